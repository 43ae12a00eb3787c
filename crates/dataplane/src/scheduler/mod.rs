//! Choosing a backend for a source that has no history.

/// The schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchedulerKind {
    /// Maglev hashing of the source prefix (NSDI'16 §3.4). Alias `sh`.
    Maglev,
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
}
