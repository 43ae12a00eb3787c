//! What must hold, whatever happens.

use std::fmt;

use super::{MS, SECOND};

/// The promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Crash and freeze alone gave two lease holders.
    TwoOwners,
    /// Connected and quiet for `Active_Down_Interval`, but not exactly one Active.
    NotOneActive,
    /// The same for long enough that a lease must have been taken, but not exactly one holder.
    NotOneOwner,
    /// A node that cannot forward held the lease for more than 1.2 s.
    UnableOwner,
    /// A rejected packet changed the router.
    RejectedInput,
    /// A sender of the lowest priority changed the state or postponed something.
    LiarMoved,
}

/// A broken promise, with what is needed to see it again.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) broken: Broken,
    pub(crate) seed: u64,
    pub(crate) at: u64,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broken, seed, at, detail } = self;
        let seconds = *at as f64 / SECOND as f64;
        write!(f, "seed {seed}, {seconds:.6} s: {broken:?}: {detail}\n  replay: ")?;
        write!(f, "POINTSMAN_SEED={seed} cargo test -p control --test vrrp_sim -- --nocapture")
    }
}

/// Watches a number that must be right whenever the network has been quiet for `window`; it may be
/// wrong for `tolerance` while one node hands over to another.
pub(crate) struct Watch {
    pub(crate) broken: Broken,
    pub(crate) window: u64,
    pub(crate) tolerance: u64,
    wrong_since: Option<u64>,
}

impl Watch {
    /// `Active_Down_Interval` of the lowest priority (3.8 s) on the slowest clock, plus what may
    /// still be under way when the quiet begins.
    pub(crate) const fn actives() -> Self {
        let window = 4700 * MS;
        Self { broken: Broken::NotOneActive, window, tolerance: 40 * MS, wrong_since: None }
    }

    /// A new Active may have to wait for a lease that it must assume (3 s on the slowest clock).
    pub(crate) const fn owners() -> Self {
        let window = (4700 + 3400) * MS;
        Self { broken: Broken::NotOneOwner, window, tolerance: 150 * MS, wrong_since: None }
    }

    /// Time passes without change up to `now`. Returns since when the number has been wrong, if
    /// that is too long.
    pub(crate) fn until(&self, now: u64, quiet_since: u64) -> Option<u64> {
        let from = self.wrong_since?.max(quiet_since + self.window);
        (now > from + self.tolerance).then_some(from)
    }

    /// What the number is from now on.
    pub(crate) fn set(&mut self, right: bool, now: u64) {
        match (right, self.wrong_since) {
            (true, _) => self.wrong_since = None,
            (false, None) => self.wrong_since = Some(now),
            (false, Some(_)) => {}
        }
    }
}

/// How long a node that cannot forward may keep the VIPs.
pub(crate) const UNABLE_LIMIT: u64 = 1200 * MS;
