//! The backends that took new sources of a service when any last could.
//!
//! What all backends depend on takes all of them down when it fails, but their checks find that one
//! after the other. So a backend that goes down stays one of the last until others have been up without
//! it for longer than that can take.

use std::net::IpAddr;
use std::time::Duration;

use dataplane::Tick;

use crate::health::Check;

/// The backends that were up last.
#[derive(Clone, Debug, Default)]
pub(super) struct LastUp(Vec<Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    address: IpAddr,
    /// Since when others are up and this one is not.
    missing: Option<Tick>,
}

impl LastUp {
    /// Notes the backends that are `able` to take new sources from `now` on. One that has been
    /// missing for more than `patience` is forgotten, unless none is able.
    pub(super) fn note(&mut self, able: &[IpAddr], patience: Duration, now: Tick) {
        let missed = |known: &Known| known.missing.map(|since| now.saturating_since(since));
        self.0.retain(|known| missed(known).is_none_or(|time| time <= patience));
        for known in &mut self.0 {
            let missing = !able.is_empty() && !able.contains(&known.address);
            known.missing = missing.then(|| known.missing.unwrap_or(now));
        }
        for address in able {
            if !self.contains(*address) {
                self.0.push(Known { address: *address, missing: None });
            }
        }
    }

    /// Whether the backend is among the last that were up.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|known| known.address == address)
    }
}

/// How long after each other backends may go down of one and the same failure: one is probed right
/// after it, another an interval later, and each probe may take its time.
pub(super) fn patience(checks: &[Check]) -> Duration {
    let spread = |check: &Check| {
        let jitter = check.interval.saturating_mul(u32::from(check.jitter_percent)) / 100;
        let again = check.fast_interval.max(check.timeout);
        let decided = again.saturating_mul(u32::from(check.fall));
        check.interval.saturating_add(jitter).saturating_add(decided)
    };
    checks.iter().map(spread).max().unwrap_or(UNCHECKED)
}

/// Linux asks a silent neighbour three times, a second apart, after five seconds of doubt
/// (`delay_first_probe_time`, `ucast_solicit`, `retrans_time_ms` in Documentation/networking).
const UNCHECKED: Duration = Duration::from_secs(10);
