//! Peers that are heard and whose adverts are discarded: each side may then own the VIPs.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::config::Config;
use super::packet::{Envelope, decode};
use super::reject::Reject;

/// An advert that was discarded, for the log. Plain data of a fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardedAdvert {
    /// Its sender.
    pub source: IpAddr,
    /// Why.
    pub reject: Reject,
    /// The first addresses of its list, if the list is the reason.
    pub addresses: [Option<IpAddr>; SHOWN_ADDRESSES],
    /// How many addresses the list has.
    pub count: usize,
}

impl DiscardedAdvert {
    /// What the log is to show of a message.
    pub fn new(message: &[u8], from: &Envelope, reject: Reject) -> Self {
        let mut discarded =
            Self { source: from.source, reject, addresses: [None; SHOWN_ADDRESSES], count: 0 };
        if reject == Reject::Addresses
            && let Ok(advert) = decode(message, from)
        {
            for (place, address) in discarded.addresses.iter_mut().zip(advert.addresses.iter()) {
                *place = Some(address);
            }
            discarded.count = advert.addresses.len();
        }
        discarded
    }
}

impl fmt::Display for DiscardedAdvert {
    /// `192.0.2.3: Another list …: 192.0.2.20, 192.0.2.21 and 3 more`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.reject)?;
        for (at, address) in self.addresses.iter().flatten().enumerate() {
            write!(f, "{}{address}", if at == 0 { " It has " } else { ", " })?;
        }
        match self.count.saturating_sub(SHOWN_ADDRESSES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A peer whose adverts are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardedPeer {
    /// Its address.
    pub source: IpAddr,
    /// Why the last one was discarded.
    pub reject: Reject,
    /// When the first one in a row came.
    pub since: Instant,
    /// When the last one came.
    pub last: Instant,
}

/// Watches what one instance discards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscardWatch {
    listed: Vec<IpAddr>,
    /// A peer that is not heard for this long is gone.
    silence: Duration,
    current: Option<DiscardedPeer>,
    /// When the log was last written.
    logged: Option<Instant>,
}

impl DiscardWatch {
    /// For an instance with this configuration.
    pub fn new(config: &Config) -> Self {
        let silence = config.interval * u32::from(config.down_adverts);
        Self {
            listed: config.peers.clone(),
            silence: silence.max(SHORTEST_SILENCE),
            current: None,
            logged: None,
        }
    }

    /// An advert was discarded. `active`: this node advertises. Returns the peer if the log is to say
    /// that two owners are possible: at once, then every minute.
    pub fn note(
        &mut self,
        source: IpAddr,
        reject: Reject,
        active: bool,
        now: Instant,
    ) -> Option<DiscardedPeer> {
        if !self.is_peer(source, reject) {
            return None;
        }
        let known = self.current(now).filter(|peer| peer.source == source);
        let since = known.map_or(now, |peer| peer.since);
        let peer = DiscardedPeer { source, reject, since, last: now };
        self.current = Some(peer);
        let due = known.is_none_or(|known| known.reject != reject)
            || self.logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_EVERY);
        let log = active && due;
        if log {
            self.logged = Some(now);
        }
        log.then_some(peer)
    }

    /// A peer's advert was accepted.
    pub fn accepted(&mut self, source: IpAddr) {
        self.current = self.current.filter(|peer| peer.source != source);
    }

    /// The peer that is heard at present and discarded.
    pub fn current(&self, now: Instant) -> Option<DiscardedPeer> {
        self.current.filter(|peer| now.saturating_duration_since(peer.last) < self.silence)
    }

    /// A listed peer, whatever the reason; without a list a sender that was set up differently. (A
    /// sender with other addresses is another virtual router then: its VIPs are not ours.)
    fn is_peer(&self, source: IpAddr, reject: Reject) -> bool {
        match reject {
            Reject::Own | Reject::Source | Reject::Vrid => false,
            Reject::Version
            | Reject::Checksum
            | Reject::Auth
            | Reject::Interval
            | Reject::Destination => self.listed.is_empty() || self.listed.contains(&source),
            Reject::Ttl
            | Reject::Length
            | Reject::Type
            | Reject::Count
            | Reject::Family
            | Reject::Addresses => self.listed.contains(&source),
        }
    }
}

const SHOWN_ADDRESSES: usize = 8;
const SHORTEST_SILENCE: Duration = Duration::from_secs(5);
const LOG_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::Vrid;
    use crate::vrrp::tests::origin;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 4));

    fn watch(peers: Vec<IpAddr>) -> DiscardWatch {
        let own = IpAddr::from([192, 0, 2, 2]);
        let config = Config::new(Vrid::MIN, own, vec![IpAddr::from([192, 0, 2, 10])]);
        DiscardWatch::new(&Config { peers, ..config })
    }

    #[test]
    fn a_listed_peer_counts_for_any_reason_another_sender_when_it_is_set_up_differently() {
        let now = origin();
        for (peers, source, reject, counts) in [
            (vec![PEER], PEER, Reject::Auth, true),
            (vec![PEER], PEER, Reject::Addresses, true),
            (vec![PEER], PEER, Reject::Ttl, true),
            (vec![PEER], OTHER, Reject::Auth, false),
            (vec![PEER], OTHER, Reject::Source, false),
            (vec![], OTHER, Reject::Auth, true),
            (vec![], OTHER, Reject::Version, true),
            (vec![], OTHER, Reject::Addresses, false),
            (vec![], OTHER, Reject::Own, false),
        ] {
            let mut watch = watch(peers);
            assert_eq!(
                watch.note(source, reject, true, now).is_some(),
                counts,
                "{source} {reject}"
            );
            assert_eq!(watch.current(now).is_some(), counts);
        }
    }

    #[test]
    fn the_log_says_so_while_active_at_once_and_every_minute() {
        let start = origin();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = watch(vec![PEER]);
        assert_eq!(watch.note(PEER, Reject::Auth, false, at(0)), None, "a Backup");
        assert!(watch.current(at(0)).is_some(), "known all the same");
        let lines = (1..=121).filter(|s| watch.note(PEER, Reject::Auth, true, at(*s)).is_some());
        assert_eq!(lines.collect::<Vec<_>>(), [1, 61, 121]);
        assert_eq!(watch.current(at(121)).unwrap().since, at(0));
        assert!(watch.note(PEER, Reject::Interval, true, at(122)).is_some(), "another reason");
    }

    #[test]
    fn it_is_over_when_the_peer_is_silent_or_accepted() {
        let start = origin();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = watch(vec![PEER]);
        watch.note(PEER, Reject::Auth, true, at(0));
        assert!(watch.current(at(4)).is_some());
        assert_eq!(watch.current(at(5)), None);
        watch.note(PEER, Reject::Auth, true, at(6));
        watch.accepted(OTHER);
        assert!(watch.current(at(6)).is_some());
        watch.accepted(PEER);
        assert_eq!(watch.current(at(6)), None);
    }
}
