//! The VIP guard: whether another station claims a VIP while this node holds the lease.
//!
//! A claim is an ARP packet whose sender address is a VIP (RFC 5227 §2.4) or a neighbour
//! advertisement for one (RFC 4861 §4.4). Most hosts believe the last one they hear, so a claim
//! takes clients away; it is answered by announcing the VIPs again, which the router limits to once
//! a second: two stations that both defend an address do not storm each other.
//!
//! Answers to another host's request are unicast, and a switch does not deliver them here. So the
//! guard asks too: soon after the VIPs became active, and every minute. Its request changes no
//! host's table ([`announce::question`](super::announce::question)). It finds the classic mistake
//! of direct routing: a backend without `arp_ignore`, which answers for the VIP that it has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use dataplane::Mac;

/// A host says that a VIP is at a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The VIP.
    pub vip: IpAddr,
    /// Where it is said to be.
    pub mac: Mac,
}

/// A foreign claim while this node holds the lease: to be counted and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What was claimed.
    pub claim: Claim,
    /// Whether the log should say so: a new one at most once a second, one that was the last to be
    /// told once a minute.
    pub tell: bool,
}

/// Watches over the VIPs of one instance on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    own: Mac,
    vips: Vec<IpAddr>,
    /// When to ask for other owners of the VIPs; `None` while they are not active here.
    ask_at: Option<Instant>,
    told: Option<(Claim, Instant)>,
    last: Option<(Claim, Instant)>,
}

impl Guard {
    /// A guard over `vips`, whose right MAC is `own`. It is silent until they are active.
    pub const fn new(own: Mac, vips: Vec<IpAddr>) -> Self {
        Self { own, vips, ask_at: None, told: None, last: None }
    }

    /// The right MAC is another one.
    pub const fn follow_mac(&mut self, own: Mac) {
        self.own = own;
    }

    /// Other VIPs.
    pub fn follow_vips(&mut self, vips: Vec<IpAddr>) {
        self.vips = vips;
    }

    /// The VIPs became active here.
    pub fn activated(&mut self, now: Instant) {
        self.ask_at = Some(now + ASK_AFTER);
    }

    /// They became inactive.
    pub fn released(&mut self) {
        self.ask_at = None;
    }

    /// A frame that came in. `lease_until` is the end of the lease, if it is held: without one,
    /// another node has every right to the VIPs.
    pub fn see(
        &mut self,
        frame: &[u8],
        lease_until: Option<Instant>,
        now: Instant,
    ) -> Option<Sighting> {
        let claim = read(frame)?;
        let held = lease_until.is_some_and(|until| now < until);
        if !held || claim.mac == self.own || !self.vips.contains(&claim.vip) {
            return None;
        }
        self.last = Some((claim, now));
        let tell = self.told.is_none_or(|(told, at)| {
            let pause = if told == claim { SAME_AGAIN } else { OTHER_AGAIN };
            now.saturating_duration_since(at) >= pause
        });
        if tell {
            self.told = Some((claim, now));
        }
        Some(Sighting { claim, tell })
    }

    /// The last foreign claim, and when it was seen.
    pub const fn last(&self) -> Option<(Claim, Instant)> {
        self.last
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Whether to ask now for other owners of the VIPs.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.ask_at.is_some_and(|at| at <= now);
        if due {
            self.ask_at = Some(now + ASK_EVERY);
        }
        due
    }
}

/// What an Ethernet frame claims: any ARP packet with a sender, or a neighbour advertisement. The
/// frame must be untagged, as packet sockets deliver it. No bytes can make it panic.
pub fn read(frame: &[u8]) -> Option<Claim> {
    let (ethernet, content) = frame.split_first_chunk::<14>()?;
    let [.., high, low] = *ethernet;
    match u16::from_be_bytes([high, low]) {
        ETHERTYPE_ARP => read_arp(content),
        ETHERTYPE_IPV6 => {
            let [_, _, _, _, _, _, source @ .., _, _] = *ethernet;
            read_advertisement(content, Mac(source))
        }
        _ => None,
    }
}

/// RFC 826. A sender of 0.0.0.0 asks only (RFC 5227 §1.1).
fn read_arp(packet: &[u8]) -> Option<Claim> {
    let (&fixed, rest) = packet.split_first_chunk::<6>()?;
    let (_operation, rest) = rest.split_first_chunk::<2>()?;
    let (&mac, rest) = rest.split_first_chunk::<6>()?;
    let (&sender, _) = rest.split_first_chunk::<4>()?;
    let sender = Ipv4Addr::from(sender);
    (fixed == ARP_FOR_IPV4 && !sender.is_unspecified())
        .then_some(Claim { vip: IpAddr::V4(sender), mac: Mac(mac) })
}

/// RFC 4861 §4.4 and the checks of §7.1.2 that need no checksum. Without the option that names the
/// link-layer address, it is that of the frame.
fn read_advertisement(packet: &[u8], source: Mac) -> Option<Claim> {
    let (header, message) = packet.split_first_chunk::<40>()?;
    let [first, _, _, _, high, low, next, next_hops, ..] = *header;
    if first >> 4 != 6 || next != ICMPV6 || next_hops != 255 {
        return None;
    }
    let message = message.get(..usize::from(u16::from_be_bytes([high, low])))?;
    let (&[kind, code, ..], rest) = message.split_first_chunk::<8>()?;
    let (&target, options) = rest.split_first_chunk::<16>()?;
    let mac = target_link_layer(options).unwrap_or(source);
    (kind == ADVERTISEMENT && code == 0)
        .then_some(Claim { vip: IpAddr::V6(Ipv6Addr::from(target)), mac })
}

/// RFC 4861 §4.6.1. Lengths are in units of 8 bytes.
fn target_link_layer(mut options: &[u8]) -> Option<Mac> {
    while let &[kind, units, ..] = options {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if let (TARGET_LINK_LAYER, Some(&[_, _, mac @ ..])) = (kind, option.first_chunk::<8>()) {
            return Some(Mac(mac));
        }
        if units == 0 {
            return None;
        }
        options = rest;
    }
    None
}

/// From activation to the first question: the announcements have been heard by then.
const ASK_AFTER: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Lines of the log about the same claim.
const SAME_AGAIN: Duration = Duration::from_secs(60);
/// Lines of the log about different ones.
const OTHER_AGAIN: Duration = Duration::from_secs(1);
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_FOR_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
const TARGET_LINK_LAYER: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::announce::{announcement, question};
    use crate::vrrp::tests::origin;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const THIRD: Mac = Mac([2, 0, 0, 0, 0, 10]);

    fn v4() -> IpAddr {
        IpAddr::from([192, 0, 2, 10])
    }

    fn v6() -> IpAddr {
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10])
    }

    fn says(mac: Mac, vip: IpAddr) -> Vec<u8> {
        announcement(mac, vip, false).as_bytes().to_vec()
    }

    /// `frame` with bytes replaced.
    fn with(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    }

    #[test]
    fn what_is_a_claim() {
        let (arp, na) = (says(OTHER, v4()), says(OTHER, v6()));
        let without_option = with(&na[..78], 18, &[0, 24]);
        let two_options = {
            let mut frame = with(&na[..78], 18, &[0, 40]);
            frame.extend([14, 1, 0, 0, 0, 0, 0, 0]);
            frame.extend([2, 1, 2, 0, 0, 0, 0, 9]);
            frame
        };
        let by = |mac| Some(Claim { vip: v4(), mac });
        let by6 = |mac| Some(Claim { vip: v6(), mac });
        let table: [(&str, Vec<u8>, Option<Claim>); 17] = [
            ("gratuitous request", arp.clone(), by(OTHER)),
            ("reply", with(&arp, 20, &[0, 2]), by(OTHER)),
            ("question for another address", with(&arp, 38, &[192, 0, 2, 77]), by(OTHER)),
            ("MAC of the packet, not of the frame", with(&arp, 6, &THIRD.0), by(OTHER)),
            ("question without a sender", with(&arp, 28, &[0; 4]), None),
            ("our own kind of question", question(OTHER, v6(), v4()).as_bytes().to_vec(), None),
            ("ARP for another protocol", with(&arp, 16, &[0x86, 0xdd]), None),
            ("ARP that is cut off", arp[..31].to_vec(), None),
            ("unsolicited advertisement", na.clone(), by6(OTHER)),
            ("solicited advertisement", with(&na, 58, &[0x60]), by6(OTHER)),
            ("advertisement without the option", with(&without_option, 6, &THIRD.0), by6(THIRD)),
            ("the option behind another one", with(&two_options, 6, &THIRD.0), by6(OTHER)),
            ("option of length 0", with(&with(&na, 79, &[0]), 6, &THIRD.0), by6(THIRD)),
            ("advertisement from beyond the link", with(&na, 21, &[254]), None),
            ("solicitation", with(&na, 54, &[135]), None),
            ("our own kind of solicitation", question(OTHER, v6(), v6()).as_bytes().to_vec(), None),
            ("advertisement longer than its frame", with(&na, 18, &[0, 40]), None),
        ];
        for (name, frame, expected) in table {
            assert_eq!(read(&frame), expected, "{name}");
            // Cut off anywhere, it is whole or nothing, and no panic.
            for len in 0..frame.len() {
                assert!(read(&frame[..len]).is_none_or(|claim| Some(claim) == expected), "{name}");
            }
        }
    }

    #[test]
    fn no_bytes_make_a_panic() {
        for whole in [says(OTHER, v4()), says(OTHER, v6())] {
            for at in 0..whole.len() {
                for byte in 0..=255 {
                    let _ = read(&with(&whole, at, &[byte]));
                }
            }
        }
    }

    #[test]
    fn only_a_foreign_claim_for_a_vip_under_the_lease_is_a_sighting() {
        let now = origin();
        let held = Some(now + Duration::from_millis(1));
        let stranger = IpAddr::from([192, 0, 2, 99]);
        let table = [
            ("foreign", says(OTHER, v4()), held, true),
            ("foreign, IPv6", says(OTHER, v6()), held, true),
            ("our own MAC", says(OWN, v4()), held, false),
            ("another address", says(OTHER, stranger), held, false),
            ("Backup", says(OTHER, v4()), None, false),
            ("the lease is just over", says(OTHER, v4()), Some(now), false),
        ];
        for (name, frame, lease, expected) in table {
            let mut guard = Guard::new(OWN, vec![v4(), v6()]);
            assert_eq!(guard.see(&frame, lease, now).is_some(), expected, "{name}");
            assert_eq!(guard.last().is_some(), expected, "{name}");
        }
    }

    #[test]
    fn the_log_hears_of_a_new_claim_at_once_and_of_the_same_one_each_minute() {
        let start = origin();
        let mut guard = Guard::new(OWN, vec![v4()]);
        let table = [
            (0, OTHER, true),
            (10, OTHER, false),
            (20, THIRD, false),
            (999, THIRD, false),
            (1000, THIRD, true),
            (60_999, THIRD, false),
            (61_000, THIRD, true),
            (62_000, OTHER, true),
        ];
        for (ms, mac, tell) in table {
            let now = start + Duration::from_millis(ms);
            let lease = Some(now + Duration::from_secs(1));
            let claim = Claim { vip: v4(), mac };
            assert_eq!(
                guard.see(&says(mac, v4()), lease, now),
                Some(Sighting { claim, tell }),
                "{ms}"
            );
            assert_eq!(guard.last(), Some((claim, now)));
        }
    }

    #[test]
    fn it_asks_a_second_after_activation_and_every_minute_until_release() {
        let start = origin();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut guard = Guard::new(OWN, vec![v4()]);
        assert!(!guard.handle_timeout(at(0)));
        guard.activated(at(0));
        assert_eq!(guard.next_deadline(), Some(at(1)));
        assert!(!guard.handle_timeout(at(0)));
        assert!(guard.handle_timeout(at(1)));
        assert_eq!(guard.next_deadline(), Some(at(61)));
        assert!(guard.handle_timeout(at(61)));
        guard.released();
        assert_eq!(guard.next_deadline(), None);
        assert!(!guard.handle_timeout(at(1000)));
    }
}
