//! Who was heard, for status output. A fixed number of places: the least recently heard goes.

use std::net::IpAddr;
use std::time::Instant;

use super::action::Heard;

/// A router that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its last advert.
    pub last: Heard,
    /// When that came.
    pub at: Instant,
    /// How many came.
    pub adverts: u64,
    /// Until then its adverts move nothing: it advertised although a better Active was alive.
    pub ignored_until: Option<Instant>,
}

/// Up to eight peers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Peers([Option<Peer>; PLACES]);

const PLACES: usize = 8;

impl Peers {
    pub(super) fn note(&mut self, heard: Heard, now: Instant) {
        if let Some(peer) = self.known(heard.source) {
            peer.last = heard;
            peer.at = now;
            peer.adverts = peer.adverts.saturating_add(1);
            if heard.priority == 0 {
                peer.ignored_until = None;
            }
        } else if let Some(place) = self.0.iter_mut().min_by_key(|place| place.map(|p| p.at)) {
            // `None` sorts first: a free place is taken before a peer is forgotten.
            *place = Some(Peer { last: heard, at: now, adverts: 1, ignored_until: None });
        }
    }

    /// The adverts of this peer are to be ignored until then.
    pub(super) fn ignore(&mut self, source: IpAddr, until: Instant) {
        if let Some(peer) = self.known(source) {
            peer.ignored_until = peer.ignored_until.max(Some(until));
        }
    }

    pub(super) fn is_ignored(&self, source: IpAddr, now: Instant) -> bool {
        let peer = self.iter().find(|peer| peer.last.source == source);
        peer.and_then(|peer| peer.ignored_until).is_some_and(|until| now < until)
    }

    /// Whether an advert of this source was accepted.
    pub(super) fn knows(&self, source: IpAddr) -> bool {
        self.iter().any(|peer| peer.last.source == source)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter().flatten()
    }

    fn known(&mut self, source: IpAddr) -> Option<&mut Peer> {
        self.0.iter_mut().flatten().find(|peer| peer.last.source == source)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::vrrp::tests::origin;
    use crate::vrrp::{AddressList, ChecksumStyle};

    #[test]
    fn the_least_recently_heard_makes_room() {
        let start = origin();
        let mut peers = Peers::default();
        for last in 1..=9u8 {
            let heard = Heard {
                source: IpAddr::from([192, 0, 2, last]),
                priority: 1,
                interval: Duration::from_secs(1),
                checksum: ChecksumStyle::Plain,
                list: AddressList::Same,
            };
            peers.note(heard, start + Duration::from_secs(u64::from(last)));
            peers.note(heard, start + Duration::from_secs(u64::from(last)));
        }
        assert_eq!(peers.iter().count(), PLACES);
        assert!(peers.iter().all(|p| p.adverts == 2));
        assert!(peers.known(IpAddr::from([192, 0, 2, 1])).is_none());
        assert!(peers.known(IpAddr::from([192, 0, 2, 9])).is_some());
    }
}
