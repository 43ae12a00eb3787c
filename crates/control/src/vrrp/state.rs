//! The three states of RFC 9568 §6.3, each with the deadlines that only it has.

use std::time::Instant;

use super::action::{Announce, Reason};

/// ```text
///                  +---------------+
///       +--------->|               |<-------------+
///       |          |  Initialize   |              |
///       |   +------|               |----------+   |
///       |   |      +---------------+          |   |
///       |   |                                 |   |
///       |   V                                 V   |
/// +---------------+                       +---------------+
/// |               |---------------------->|               |
/// |    Active     |                       |    Backup     |
/// |               |<----------------------|               |
/// +---------------+                       +---------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not taking part: stopped, or unable to forward.
    Initialize,
    /// Listening.
    Backup(Backup),
    /// Advertising, and (once activated) owning the VIPs.
    Active(Active),
}

/// Deadlines of a Backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backup {
    /// `Active_Down_Timer`. `None`: it ended and the sync group has not agreed yet.
    pub(super) down_at: Option<Instant>,
    /// When a lower-priority Active may be preempted; set when one is first heard.
    pub(super) preempt_at: Option<Instant>,
    /// Why the timer will end, if it does.
    pub(super) cause: Reason,
}

/// Deadlines of an Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Active {
    /// `Adver_Timer`.
    pub(super) advert_at: Instant,
    /// When the last advert was asked for.
    pub(super) advertised_at: Instant,
    /// End of the lease; before the first successful advert, of the patience with failing sends.
    pub(super) lease_until: Instant,
    /// When the first advert as Active was out.
    pub(super) heralded_at: Option<Instant>,
    /// Whether the last send failed.
    pub(super) failing: bool,
    /// The VIPs are active.
    pub(super) activated: bool,
    /// When they become so; known once an advert is out.
    pub(super) activate_at: Option<Instant>,
    /// When the VIPs are announced next, and what for.
    pub(super) announce_at: Option<(Instant, Announce)>,
    /// When they were announced last.
    pub(super) announced_at: Option<Instant>,
}

label::labels! {
    /// A state's name.
    pub enum StateName {
        Initialize => "initialize", "Not taking part.";
        Backup => "backup", "Listening.";
        Active => "active", "Advertising.";
    }
}

impl StateName {
    /// As logs print it; with the former word (MASTER), for searches in logs.
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Initialize => "INITIALIZE",
            Self::Backup => "BACKUP",
            Self::Active => "ACTIVE (MASTER)",
        }
    }
}

impl State {
    pub(super) const fn name(&self) -> StateName {
        match self {
            Self::Initialize => StateName::Initialize,
            Self::Backup(_) => StateName::Backup,
            Self::Active(_) => StateName::Active,
        }
    }
}

impl Active {
    /// The earliest thing an Active waits for.
    pub(super) fn next_deadline(&self) -> Instant {
        let next = self.advert_at.min(self.lease_until);
        let other =
            if self.activated { self.announce_at.map(|(at, _)| at) } else { self.activate_at };
        other.map_or(next, |at| next.min(at))
    }
}
