//! What the VRRP thread counts, and how the control thread gets to see it.

use std::time::{Duration, Instant};

use control::vrrp::{Claim, DiscardedPeer, Peer, Reason, Reject, Router, StateName, Status};

/// One instance. Plain data: copied as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// State and reasons; `None` while its interface or address is missing.
    pub status: Option<Status>,
    /// The peers that were heard.
    pub peers: [Option<Peer>; PEERS],
    /// The last time that another station claimed a VIP while it was active here.
    pub claim: Option<(Claim, Instant)>,
    /// A peer that is heard at present and discarded.
    pub discarded: Option<DiscardedPeer>,
    /// What was counted since start.
    pub counters: Counters,
}

/// Counters of an instance, over all changes of its interface.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// Adverts sent, priority 0 included.
    pub sent: u64,
    /// Adverts that the kernel did not take.
    pub send_failed: u64,
    /// Adverts believed.
    pub received: u64,
    /// Messages that the socket had no room for.
    pub overflowed: u64,
    /// Announcements sent: frames.
    pub announced: u64,
    /// Claims of other stations to a VIP that was active here.
    pub claimed: u64,
    /// Messages not believed, by [`Reject::index`].
    pub rejected: [u64; Reject::ALL.len()],
    /// Transitions by state entered and [`Reason::index`].
    pub transitions: [[u64; Reason::ALL.len()]; StateName::ALL.len()],
    /// Timers of an Active by how late they were: one place per bound and one above all.
    pub late: [u64; LATE_BOUNDS.len() + 1],
    /// Sum of the lateness.
    pub late_sum: Duration,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            sent: 0,
            send_failed: 0,
            received: 0,
            overflowed: 0,
            announced: 0,
            claimed: 0,
            rejected: [0; _],
            transitions: [[0; _]; _],
            late: [0; _],
            late_sum: Duration::ZERO,
        }
    }
}

impl Counters {
    /// Counts a timer that fired at `now` and was due at `due`.
    pub fn note_lateness(&mut self, due: Instant, now: Instant) {
        let late = now.saturating_duration_since(due);
        let place = LATE_BOUNDS.iter().position(|bound| late <= *bound);
        if let Some(count) = self.late.get_mut(place.unwrap_or(LATE_BOUNDS.len())) {
            *count += 1;
        }
        self.late_sum += late;
    }

    /// Counts a transition.
    pub fn note_transition(&mut self, to: StateName, reason: Reason) {
        let row = self.transitions.get_mut(to as usize);
        if let Some(count) = row.and_then(|row| row.get_mut(reason.index())) {
            *count += 1;
        }
    }
}

impl Report {
    /// Takes the state of a router over.
    pub fn show(&mut self, router: &Router) {
        self.status = Some(router.status());
        self.peers = [None; PEERS];
        for (place, peer) in self.peers.iter_mut().zip(router.peers()) {
            *place = Some(*peer);
        }
    }
}

/// Upper bounds of the histogram of lateness.
pub const LATE_BOUNDS: [Duration; 7] = [
    Duration::from_micros(50),
    Duration::from_micros(200),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(100),
];

/// A router remembers no more.
const PEERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_falls_into_the_first_bound_that_holds_it() {
        let mut counters = Counters::default();
        let due = Instant::now();
        let late = [0, 50, 51, 1_000, 10_001, 99_000, 5_000_000];
        for micros in late {
            counters.note_lateness(due, due + Duration::from_micros(micros));
        }
        assert_eq!(counters.late, [2, 1, 1, 0, 0, 1, 1, 1]);
        assert_eq!(counters.late_sum, Duration::from_micros(late.iter().sum()));
    }
}
