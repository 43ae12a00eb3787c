//! What a run finds, one row for each measurement: written by the guest, a line of JSON each, read by
//! the host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Row {
    /// What was measured with.
    Versions(BTreeMap<String, String>),
    /// Clients while something fails.
    Failure(Failure),
    /// Packets at saturation.
    Packets(Packets),
}

/// What clients saw in one test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The test, settings that both sides share included.
    pub(crate) test: String,
    pub(crate) balancer: String,
    /// Length of the load.
    pub(crate) seconds: f64,
    pub(crate) done: usize,
    pub(crate) failed: usize,
    /// The longest time without a request that succeeded.
    pub(crate) gap_ms: u64,
    /// From the beginning of the first request that failed to the end of the last one.
    pub(crate) span_ms: u64,
    pub(crate) failures: BTreeMap<String, usize>,
    /// How many nodes answered ARP requests for the VIP while it was asked for.
    pub(crate) owners: Option<usize>,
}

/// Packets per second, in a closed loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Packets {
    pub(crate) balancer: String,
    /// How many CPUs generator, balancer and sink had together.
    pub(crate) cpus: u8,
    pub(crate) sources: u32,
    /// Over samples of a second, of packets of known connections.
    pub(crate) packets: Quartiles,
    /// SYNs per second, all from new sources.
    pub(crate) syns: Option<f64>,
    /// The same for SYN, ACK and request, counted per connection.
    pub(crate) connections: Option<f64>,
    /// Packets that did not come to the sink.
    pub(crate) lost: u64,
}

/// Order statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quartiles {
    pub(crate) q1: f64,
    pub(crate) median: f64,
    pub(crate) q3: f64,
}

impl Quartiles {
    /// Of at least one sample.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |quarter| samples[(samples.len() - 1) * quarter / 4];
        Self { q1: at(1), median: at(2), q3: at(3) }
    }
}
