//! Health of backends: what is checked, and what the results amount to.
//!
//! Pure: probes are made elsewhere, their outcomes and `now` are passed in.
//!
//! | module | owns |
//! |---|---|
//! | `check`, `failure` | what is asked, and why a probe failed |
//! | `host`, `action`, `report` | one backend's address: the machine, its contract, what it tells |
//! | `asked` | a check as a service asks it of a backend: what is the same, and made once |
//! | `judge` | what the checks of a backend amount to for one service |
//! | `monitor` | the same machine for one service alone |
//! | `checker` | one check: when it is probed |
//! | `verdict` | `rise` and `fall` |
//! | `confirm` | the tries after the loss of a sentinel |
//! | `passive` | when handshakes are a reason to look |
//! | `dampener`, `hold_off` | limits: of going up and down, of hints |
//!
//! # Rules
//!
//! * The first result of a check decides at once, later ones need `rise` or `fall` in a row. All
//!   checks must pass.
//! * After a first failure a check goes on at `fast_interval` until it is decided, while it is down
//!   at `down_interval`.
//! * A backend is *suspected* from the first failure of its connection (refused, reset, closed,
//!   timed out, unreachable) or a trigger, until a check passes or it is down. An answer that is
//!   merely wrong (status, content, TLS, exit code) causes no suspicion: the server runs, and may
//!   answer correctly the next time. It only counts towards `fall`.
//! * The loss of a sentinel alone is no verdict: it starts confirming probes. Two that are refused
//!   or reset (at once and 5 ms later), or two of three (the last 20 ms later), take the backend
//!   down without waiting for `fall`; otherwise the loss has no effect. Servers that close every
//!   kept connection are confirmed less and less often, down to once per `interval`.
//! * A trigger ([`unanswered`]) counts as one failure, never as the last one, and starts all checks.
//!   After a false one others are ignored for 1 s, doubling up to 30 s, reset after a minute
//!   without any: a flood of forged SYNs causes no storm of checks and takes no backend down.
//! * A probe that the node itself could not make ([`Failure::Local`]) is counted and changes nothing:
//!   a node without file descriptors does not lose all its backends.
//! * A probe whose time-out is found 50 ms late or later is ignored and repeated, because the process
//!   was stalled. A second one in a row counts.
//! * A check that several services ask alike of one address is made once, and its result, lost
//!   sentinel or trigger counts for all of them. Checks that differ in anything, thresholds and
//!   intervals included, are different ones.
//! * A backend that went down is held down by the [`Dampener`] although its checks pass, unless no
//!   other backend of its service is up ([`Host::release`]).
//!
//! # How a driver uses it
//!
//! One [`Host`] per address of a backend, whatever services it is in. Each call, of whatever reason, is followed by
//! [`Host::poll_action`] until `None`:
//!
//! | action | what to do |
//! |---|---|
//! | `Start` | make the probe on a new connection; [`Host::probe_ended`] when it ends, with [`Failure::Timeout`] when `timeout` is over |
//! | `Cancel` | drop the probe |
//! | `Changed` | publish the [`Condition`] of its new state, log the transition with the backend's name |
//!
//! Then arm a timer with [`Host::next_deadline`]. Outcomes that wait are to be reported before
//! [`Host::handle_timeout`] is called: they ended before.

mod action;
mod asked;
mod check;
mod checker;
mod confirm;
mod dampener;
mod failure;
mod hold_off;
mod host;
mod jitter;
mod judge;
mod monitor;
mod passive;
mod report;
mod verdict;

pub use action::{Action, Probe, Reason, State, Transition, Trouble};
pub use asked::{Asked, Scope};
pub use check::{
    BodyPattern, Check, CheckKind, CheckOverride, DNS_RCODES, DNS_TYPES, DnsCheck, HttpCheck,
    ProbeTarget, StatusSet, TcpCheck, TlsCheck, UdpCheck,
};
pub use dampener::Dampener;
pub use failure::{Failure, FailureKind};
pub use host::{Host, Judged, Verdict};
pub use monitor::Monitor;
pub use passive::{PATIENCE, unanswered};
pub use report::{CheckReport, CheckState, Report, Tally};

/// What is known of a backend, as the packet path has to take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Not checked, or every check passes.
    #[default]
    Up,
    /// It may be down: new connections go elsewhere if another backend is up, its flows stay.
    Suspected,
    /// It is down.
    Down,
}

#[cfg(test)]
mod tests;
