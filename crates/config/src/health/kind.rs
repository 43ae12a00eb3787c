//! The kinds of check. Each has one descriptor, which stands beside the reader of its keys.

use control::health::CheckKind;

use super::{dns, http, payload, ping, script};
use crate::section::Section;

/// All kinds, in the order in which messages list them.
pub(super) const KINDS: [&Kind; 7] = [
    &http::HTTP,
    &http::HTTPS,
    &payload::TCP,
    &payload::UDP,
    &dns::DNS,
    &ping::PING,
    &script::SCRIPT,
];

/// Describes a kind of check.
#[derive(Debug)]
pub(super) struct Kind {
    /// The key that selects it; equal to `CheckKind::name` of what `read` returns.
    pub(super) key: &'static str,
    /// Whether it asks a port.
    pub(super) port: PortUse,
    /// Whether it makes a connection, which the sentinel can keep.
    pub(super) connected: bool,
    /// Whether its probes can be sent to the VIP at one backend.
    pub(super) steerable: bool,
    /// Reads the key if it is written. `None`: it is absent, or wrong and reported.
    pub(super) read: fn(&mut Section<'_>) -> Option<CheckKind>,
}

/// Whether a kind of check asks a port.
#[derive(Debug)]
pub(super) enum PortUse {
    /// It has a port.
    Asked {
        /// A usual one, for help texts.
        usual: u16,
    },
    /// It has a port, and where the service has every port, the protocol's own one.
    WellKnown,
    /// It has no port.
    Portless {
        /// What to do about a `port` that is written.
        help: &'static str,
    },
}

/// The keys of the kinds that `select` picks: `` `http`, `https` and `tcp` ``.
pub(super) fn list(select: impl Fn(&Kind) -> bool) -> String {
    let mut keys: Vec<String> = KINDS
        .into_iter()
        .filter(|kind| select(kind))
        .map(|kind| format!("`{}`", kind.key))
        .collect();
    let last = keys.pop().unwrap_or_default();
    if keys.is_empty() { last } else { format!("{} and {last}", keys.join(", ")) }
}
