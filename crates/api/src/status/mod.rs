//! The state of the node as one document: the source of `/status.json`, `pointsman status`, and
//! every metric.

mod interface;
mod service;
mod vrrp;
mod worker;

use dataplane::DropReason;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use interface::{Interface, XdpMode};
pub use service::{Backend, BackendState, Check, OperatorChange, Rates, Service};
pub use vrrp::{Checksum, ForeignClaim, Vrrp, VrrpDiscardedPeer, VrrpPeer, VrrpTransitions};
pub use worker::{Frames, SocketCounter, Worker, WorkerCounters};

/// Version of the document; raised when a field changes its meaning or goes away.
pub const VERSION: u32 = 4;

/// The whole node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program.
    pub program: String,
    /// Node name.
    pub node: String,
    /// Seconds since start.
    pub uptime_seconds: f64,
    /// Whether a client would be served now.
    pub ready: bool,
    /// What is missing, if not; one line each.
    pub not_ready: Vec<String>,
    /// The configuration in force.
    #[serde(default)]
    pub configuration: Configuration,
    /// How often notifications of the kernel were lost, so that everything was read anew.
    #[serde(default)]
    pub netlink_overruns: u64,
    /// Generation of the published snapshot.
    pub generation: u64,
    /// Generation that all workers work with.
    pub acknowledged: u64,
    /// Interfaces, as configured.
    pub interfaces: Vec<Interface>,
    /// Flows that all workers together were made for.
    #[serde(default)]
    pub flow_capacity: u64,
    /// Workers, by interface and queue.
    pub workers: Vec<Worker>,
    /// VRRP instances, as configured.
    #[serde(default)]
    pub vrrp: Vec<Vrrp>,
    /// Services, as configured.
    pub services: Vec<Service>,
    /// How late health checks were started.
    #[serde(default)]
    pub health_late: Histogram,
    /// The persistence table.
    pub persistence: Persistence,
    /// Lines of the log that standard error did not take, or not in time.
    #[serde(default)]
    pub log_lines_lost: u64,
    /// Panics that ended no more than a page or a connection.
    #[serde(default)]
    pub panics: u64,
    /// Frames dropped by all workers, by reason; every reason is listed.
    pub dropped: Vec<Count<DropReason>>,
}

/// A number with a label of the list `K`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count<K> {
    /// Label.
    pub name: K,
    /// Value.
    pub value: u64,
}

impl<K: Copy + PartialEq> Count<K> {
    /// The number with a label; 0 if it is not in the list.
    pub fn of(list: &[Self], name: K) -> u64 {
        list.iter().filter(|count| count.name == name).map(|count| count.value).sum()
    }

    /// A number for every label.
    pub fn list(labels: impl IntoIterator<Item = K>, value: impl Fn(K) -> u64) -> Vec<Self> {
        labels.into_iter().map(|name| Self { name, value: value(name) }).collect()
    }
}

/// The configuration in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// Hash of the file's text, 16 hexadecimal digits.
    pub hash: String,
    /// Seconds since it was taken over.
    pub age_seconds: f64,
    /// How often a configuration was taken over since the start: by reload, undo or roll-back.
    pub reloads: u64,
    /// How often one was refused.
    pub refused: u64,
    /// Whether the last one was refused.
    pub last_refused: bool,
    /// Seconds until it is rolled back unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_seconds: Option<f64>,
}

/// A histogram of seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    /// Upper bounds.
    pub bounds: Vec<f64>,
    /// Values up to each bound and above the one before; the last one above all bounds.
    pub counts: Vec<u64>,
    /// Sum of the values.
    pub sum: f64,
}

impl Histogram {
    /// Adds the values of another one with the same bounds.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

/// The persistence table.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Persistence {
    /// Templates.
    pub entries: u64,
    /// Most templates.
    pub capacity: u64,
    /// Templates made.
    pub created: u64,
    /// Templates that timed out.
    pub expired: u64,
    /// Templates whose backend was replaced.
    pub replaced: u64,
    /// Connections that got no template because the table was full.
    pub refused: u64,
}

/// A node whose only service lost its quorum: for tests of what shows it.
///
/// # Panics
/// If the example does not fit the schema.
#[doc(hidden)]
pub fn example() -> Status {
    const TEXT: &str = include_str!("example.json");
    match serde_json::from_str(TEXT) {
        Ok(status) => status,
        Err(error) => panic!("example.json: {error}"),
    }
}
