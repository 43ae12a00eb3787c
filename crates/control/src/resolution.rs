//! Which MAC address frames for a backend are sent to.
//!
//! The kernel's neighbour entry is a hint, not the truth. It goes away when the link loses its
//! carrier, when an administrator flushes the table and when the table overflows: none of that
//! says anything about the backend, so the last known MAC stays in use until another one is
//! learned, or until a resolution that had a fair chance fails.

use std::time::Duration;

use dataplane::{Mac, Tick};

use crate::neighbour::{Neighbour, Unusable};

/// What is known of one backend's MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolution {
    /// The last one known.
    mac: Option<Mac>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The kernel has no answer yet; asked since.
    Asking { since: Tick },
    /// The kernel has the MAC.
    Known,
    /// An administrator entered the MAC.
    Static,
    /// The kernel's entry became `NUD_FAILED` then. A deletion looks the same for a moment.
    Failing { since: Tick },
    /// A resolution failed.
    Silent,
}

/// An entry that is deleted is `NUD_FAILED` first and gone at once; the two messages follow each
/// other within microseconds.
pub(crate) const CONFIRM: Duration = Duration::from_millis(100);
/// Linux asks three times, one second apart (`mcast_solicit`, `retrans_time_ms` in
/// Documentation/networking). A resolution that began without a link, or without an address to ask
/// from, fails this long after these came at the latest, and does not count.
pub(crate) const RESOLUTION: Duration = Duration::from_secs(4);
/// A backend without any known MAC is given up after this time, whatever the kernel says.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(5);

impl Resolution {
    /// A backend that is asked for from `now` on.
    pub(crate) const fn new(now: Tick) -> Self {
        Self { mac: None, phase: Phase::Asking { since: now } }
    }

    /// Takes in what the kernel says. `up_since`: since when there are a link towards the backend and
    /// an address to ask from; `None` while there are not. Returns whether the answer to [`Self::mac`] or [`Self::is_static`] changed.
    pub(crate) fn hear(&mut self, heard: Neighbour, up_since: Option<Tick>, now: Tick) -> bool {
        let before = (self.mac(), self.is_static());
        let asking = Phase::Asking { since: now };
        let fair = up_since.is_some_and(|since| now.saturating_since(since) >= RESOLUTION);
        self.phase = match (heard, self.phase) {
            (Neighbour::Static(_), _) => Phase::Static,
            (Neighbour::Resolved(_), _) => Phase::Known,
            // The kernel asks again every few seconds; until an answer comes that is no news.
            (_, Phase::Silent) => Phase::Silent,
            (Neighbour::Failed, Phase::Failing { since }) if fair => Phase::Failing { since },
            (Neighbour::Failed, _) if fair => Phase::Failing { since: now },
            (Neighbour::Asking(_), Phase::Failing { since }) => Phase::Failing { since },
            (_, Phase::Asking { since }) => Phase::Asking { since },
            (Neighbour::Asking(_) | Neighbour::Failed | Neighbour::Missing, _) => asking,
        };
        let unicast = heard.mac().filter(|mac| mac.is_unicast());
        self.mac = unicast.or(self.mac);
        before != (self.mac(), self.is_static())
    }

    /// Lets time pass. Returns whether the answer to [`Self::mac`] changed.
    pub(crate) fn handle_timeout(&mut self, up_since: Option<Tick>, now: Tick) -> bool {
        let due = self.next_deadline(up_since).is_some_and(|at| at <= now);
        if due {
            self.phase = Phase::Silent;
        }
        due
    }

    /// When to call [`Self::handle_timeout`]. Without a link time proves nothing.
    pub(crate) fn next_deadline(&self, up_since: Option<Tick>) -> Option<Tick> {
        let up_since = up_since?;
        match self.phase {
            Phase::Failing { since } => Some(since + CONFIRM),
            Phase::Asking { since } if self.mac.is_none() => Some(since.max(up_since) + GIVE_UP),
            Phase::Asking { .. } | Phase::Known | Phase::Static | Phase::Silent => None,
        }
    }

    /// The link went down: what failed until now may have failed because of that.
    pub(crate) fn link_lost(&mut self, now: Tick) {
        if let Phase::Failing { .. } = self.phase {
            self.phase = Phase::Asking { since: now };
        }
    }

    /// Whether it may have a deadline.
    pub(crate) fn is_pending(&self) -> bool {
        match self.phase {
            Phase::Failing { .. } => true,
            Phase::Asking { .. } => self.mac.is_none(),
            Phase::Known | Phase::Static | Phase::Silent => false,
        }
    }

    /// Where frames are to be sent, or why they cannot be.
    ///
    /// # Errors
    /// [`Unusable::NoAnswer`], or [`Unusable::Resolving`] before the first answer.
    pub(crate) fn mac(&self) -> Result<Mac, Unusable> {
        match (self.phase, self.mac) {
            (Phase::Silent, _) => Err(Unusable::NoAnswer),
            (_, None) => Err(Unusable::Resolving),
            (_, Some(mac)) => Ok(mac),
        }
    }

    /// Whether an administrator entered the MAC, so that the entry must be left alone.
    pub(crate) fn is_static(&self) -> bool {
        self.phase == Phase::Static
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const UP: Option<Tick> = Some(Tick::from_nanos(0));

    fn ms(ms: u64) -> Tick {
        Tick::from_nanos(ms * 1_000_000)
    }

    fn after(heard: &[(u64, Neighbour)], up_since: Option<Tick>) -> Resolution {
        let mut resolution = Resolution::new(ms(0));
        for (at, neighbour) in heard {
            resolution.handle_timeout(up_since, ms(*at));
            resolution.hear(*neighbour, up_since, ms(*at));
        }
        resolution
    }

    #[test]
    fn the_last_mac_stays_in_use_while_it_is_resolved_anew() {
        let known = (10_000, Neighbour::Resolved(RS));
        let lost = [
            &[Neighbour::Missing][..],
            &[Neighbour::Asking(None)],
            // What `ip neigh flush` looks like.
            &[Neighbour::Failed, Neighbour::Missing, Neighbour::Asking(None)],
            &[Neighbour::Asking(None), Neighbour::Failed, Neighbour::Missing],
        ];
        for story in lost {
            let mut heard = vec![known];
            heard.extend(story.iter().map(|neighbour| (11_000, *neighbour)));
            let mut resolution = after(&heard, UP);
            assert_eq!(resolution.mac(), Ok(RS), "{story:?}");
            assert!(!resolution.handle_timeout(UP, ms(600_000)), "{story:?}");
            assert_eq!(resolution.mac(), Ok(RS), "{story:?}");
            assert!(resolution.hear(Neighbour::Resolved(OTHER), UP, ms(700_000)));
            assert_eq!(resolution.mac(), Ok(OTHER));
        }
    }

    #[test]
    fn a_failed_resolution_counts_when_the_entry_stays() {
        let known = (10_000, Neighbour::Resolved(RS));
        let mut resolution = after(&[known, (15_000, Neighbour::Failed)], UP);
        assert_eq!(resolution.mac(), Ok(RS));
        // The kernel tries again meanwhile.
        resolution.hear(Neighbour::Asking(None), UP, ms(15_050));
        assert_eq!(resolution.next_deadline(UP), Some(ms(15_000) + CONFIRM));
        assert!(!resolution.handle_timeout(UP, ms(15_099)));
        assert!(resolution.handle_timeout(UP, ms(15_100)));
        assert_eq!(resolution.mac(), Err(Unusable::NoAnswer));
        for again in [Neighbour::Asking(None), Neighbour::Failed, Neighbour::Missing] {
            assert!(!resolution.hear(again, UP, ms(20_000)), "{again:?}");
        }
        assert!(resolution.hear(Neighbour::Resolved(RS), UP, ms(21_000)));
        assert_eq!(resolution.mac(), Ok(RS));
    }

    #[test]
    fn a_failure_without_a_link_or_right_after_it_came_up_does_not_count() {
        let known = (10_000, Neighbour::Resolved(RS));
        for up_since in [None, Some(ms(12_000))] {
            let mut resolution = after(&[known, (15_000, Neighbour::Failed)], up_since);
            assert!(!resolution.handle_timeout(Some(ms(12_000)), ms(60_000)), "{up_since:?}");
            assert_eq!(resolution.mac(), Ok(RS), "{up_since:?}");
        }
        let mut resolution = after(&[known, (15_000, Neighbour::Failed)], UP);
        resolution.link_lost(ms(15_050));
        assert!(!resolution.handle_timeout(Some(ms(15_060)), ms(60_000)));
        assert_eq!(resolution.mac(), Ok(RS));
    }

    #[test]
    fn a_backend_that_never_answered_is_given_up_while_there_is_a_link() {
        let mut resolution = Resolution::new(ms(0));
        assert_eq!(resolution.mac(), Err(Unusable::Resolving));
        assert_eq!(resolution.next_deadline(None), None);
        let up = Some(ms(30_000));
        assert!(!resolution.handle_timeout(up, ms(34_999)));
        assert!(resolution.handle_timeout(up, ms(35_000)));
        assert_eq!(resolution.mac(), Err(Unusable::NoAnswer));
    }

    #[test]
    fn a_static_entry_is_known_as_one_until_it_goes() {
        let mut resolution = Resolution::new(ms(0));
        assert!(resolution.hear(Neighbour::Static(RS), UP, ms(1)));
        assert!(resolution.is_static());
        assert_eq!(resolution.mac(), Ok(RS));
        assert!(resolution.hear(Neighbour::Missing, UP, ms(2)));
        assert!(!resolution.is_static());
        assert_eq!(resolution.mac(), Ok(RS), "in use until another one is known");
    }

    #[test]
    fn a_multicast_mac_is_never_used() {
        let mut resolution = Resolution::new(ms(0));
        let multicast = Mac([1, 0, 0x5e, 0, 0, 1]);
        resolution.hear(Neighbour::Resolved(multicast), UP, ms(1));
        assert_eq!(resolution.mac(), Err(Unusable::Resolving));
    }
}
