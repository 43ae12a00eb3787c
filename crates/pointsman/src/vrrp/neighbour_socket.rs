//! The packet socket of one instance: announcements and questions out, other stations' claims in.
//!
//! Not the packet path: it sees what the XDP program passes, which are ARP replies, gratuitous ARP
//! and neighbour advertisements, and its filter leaves the kernel's queue to what names a VIP.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use control::vrrp::{Config, announce};
use dataplane::Mac;
use socket2::{Domain, SockFilter, Socket, Type};

use super::advert_socket::LocalEndpoint;
use crate::sys;

/// Opened by the control thread, used by the VRRP thread. Nothing here blocks.
#[derive(Debug)]
pub(super) struct NeighbourSocket {
    socket: Socket,
    vips: Vec<IpAddr>,
    mac: Mac,
    primary: IpAddr,
}

impl NeighbourSocket {
    /// Opens the socket and has it filtered before the first frame can come.
    ///
    /// # Errors
    /// What the kernel answers: no permission, no such interface.
    pub(super) fn open(config: &Config, endpoint: &LocalEndpoint) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        let LocalEndpoint { ifindex, mac, primary, .. } = *endpoint;
        let new = Self { socket, vips: config.vips.clone(), mac, primary };
        new.filter()?;
        let ethertype = if primary.is_ipv4() { libc::ETH_P_ARP } else { libc::ETH_P_IPV6 };
        let ethertype = u16::try_from(ethertype).unwrap_or_default();
        sys::bind_packet(new.socket.as_fd(), ifindex, ethertype)?;
        Ok(new)
    }

    /// The interface has another MAC. Where the kernel has no memory for another filter, the old one
    /// lets through this node's own frames, which the guard knows.
    pub(super) fn follow_mac(&mut self, mac: Mac) {
        self.mac = mac;
        let _ = self.filter();
    }

    fn filter(&self) -> io::Result<()> {
        let filter = if self.primary.is_ipv4() {
            arp_filter(&self.vips, self.mac)
        } else {
            advertisement_filter(&self.vips)
        };
        let ops = filter.into_iter().map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k));
        self.socket.attach_filter(&ops.collect::<Vec<_>>())
    }

    /// A socket that only announces.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub(super) fn sender(ifindex: u32, mac: Mac, vips: Vec<IpAddr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        // With protocol 0 it receives nothing.
        sys::bind_packet(socket.as_fd(), ifindex, 0)?;
        Ok(Self { socket, vips, mac, primary: IpAddr::from([0, 0, 0, 0]) })
    }

    /// The MAC that the VIPs belong to.
    pub(super) const fn mac(&self) -> Mac {
        self.mac
    }

    /// Announces every VIP `count` times; returns how many frames the kernel took.
    pub(super) fn announce(&self, count: u8) -> u64 {
        let mut sent = 0;
        for _ in 0..count {
            for vip in &self.vips {
                // Answers to neighbour solicitations do not set the Router flag either.
                let frame = announce::announcement(self.mac, *vip, false);
                sent += u64::from(self.socket.send(frame.as_bytes()).is_ok());
            }
        }
        sent
    }

    /// Asks for other owners of the VIPs. A request that gets lost is sent again in a minute.
    pub(super) fn ask(&self) {
        for vip in &self.vips {
            let frame = announce::question(self.mac, self.primary, *vip);
            let _ = self.socket.send(frame.as_bytes());
        }
    }

    /// The next frame that may be a claim.
    ///
    /// # Errors
    /// `WouldBlock` when none waits.
    pub(super) fn next<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let datagram = sys::receive(self.socket.as_fd(), buffer)?;
        Ok(buffer.get(..datagram.len).unwrap_or_default())
    }
}

impl AsFd for NeighbourSocket {
    /// Readable when a claim waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Code, jump if true, jump if false, operand.
type Op = (u16, u8, u8, u32);

/// ARP packets whose sender is a VIP and not this node. Two instructions per VIP: of 4,096 that a
/// filter may have, 255 VIPs need 515.
fn arp_filter(vips: &[IpAddr], own: Mac) -> Vec<Op> {
    let [a, b, c, d, e, f] = own.0;
    let mut filter = vec![
        (LOAD_WORD, 0, 0, ARP_SENDER_MAC),
        (JUMP_IF_EQUAL, 0, 3, u32::from_be_bytes([a, b, c, d])),
        (LOAD_HALF, 0, 0, ARP_SENDER_MAC + 4),
        (JUMP_IF_EQUAL, 0, 1, u32::from_be_bytes([0, 0, e, f])),
        (RETURN, 0, 0, 0),
        (LOAD_WORD, 0, 0, ARP_SENDER_IP),
    ];
    for vip in vips {
        if let IpAddr::V4(vip) = vip {
            filter.push((JUMP_IF_EQUAL, 0, 1, vip.to_bits()));
            filter.push((RETURN, 0, 0, WHOLE));
        }
    }
    filter.push((RETURN, 0, 0, 0));
    filter
}

/// Neighbour advertisements for a VIP. Nine instructions per VIP: 90 of them need 817.
fn advertisement_filter(vips: &[IpAddr]) -> Vec<Op> {
    let mut filter = vec![
        (LOAD_BYTE, 0, 0, IPV6_NEXT_HEADER),
        (JUMP_IF_EQUAL, 1, 0, ICMPV6),
        (RETURN, 0, 0, 0),
        (LOAD_BYTE, 0, 0, ICMPV6_TYPE),
        (JUMP_IF_EQUAL, 1, 0, ADVERTISEMENT),
        (RETURN, 0, 0, 0),
    ];
    for vip in vips {
        let IpAddr::V6(vip) = vip else { continue };
        let octets = vip.octets();
        let (words, _) = octets.as_chunks::<4>();
        // From the word that differs to behind the block.
        for ((word, offset), over) in words.iter().zip([0, 4, 8, 12]).zip([7, 5, 3, 1]) {
            filter.push((LOAD_WORD, 0, 0, NA_TARGET + offset));
            filter.push((JUMP_IF_EQUAL, 0, over, u32::from_be_bytes(*word)));
        }
        filter.push((RETURN, 0, 0, WHOLE));
    }
    filter.push((RETURN, 0, 0, 0));
    filter
}

// Classic BPF (linux/bpf_common.h); offsets count from the Ethernet header.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const WHOLE: u32 = 0xffff;
const ARP_SENDER_MAC: u32 = 14 + 8;
const ARP_SENDER_IP: u32 = 14 + 14;
const IPV6_NEXT_HEADER: u32 = 14 + 6;
const ICMPV6: u32 = 58;
const ICMPV6_TYPE: u32 = 14 + 40;
const ADVERTISEMENT: u32 = 136;
const NA_TARGET: u32 = 14 + 40 + 8;

#[cfg(test)]
mod tests {
    use control::vrrp::guard;

    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    /// What the kernel would do (a load beyond the end of the frame ends the program with 0).
    fn passes(filter: &[Op], frame: &[u8]) -> bool {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let (code, jt, jf, k) = filter[at];
            at += 1;
            let begin = usize::try_from(k).unwrap();
            let load = |len: usize| -> Option<u32> {
                let bytes = frame.get(begin..begin + len)?;
                Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
            };
            let loaded = match code {
                LOAD_WORD => load(4),
                LOAD_HALF => load(2),
                LOAD_BYTE => load(1),
                JUMP_IF_EQUAL => {
                    at += usize::from(if accumulator == k { jt } else { jf });
                    continue;
                }
                RETURN => return k != 0,
                _ => panic!("no such instruction: {code}"),
            };
            let Some(loaded) = loaded else { return false };
            accumulator = loaded;
        }
    }

    fn check(vips: &[IpAddr], stranger: IpAddr, filter: &[Op], own_passes: bool) {
        assert!(filter.len() <= 4096, "{} instructions", filter.len());
        let says = |mac, vip| announce::announcement(mac, vip, false);
        for vip in vips {
            let frame = says(OTHER, *vip);
            assert!(passes(filter, frame.as_bytes()), "{vip}");
            assert_eq!(passes(filter, says(OWN, *vip).as_bytes()), own_passes, "{vip}");
            let question = announce::question(OTHER, stranger, *vip);
            assert!(!passes(filter, question.as_bytes()), "{vip}");
            for len in 0..frame.as_bytes().len() {
                let cut = &frame.as_bytes()[..len];
                assert!(passes(filter, cut) || guard::read(cut).is_none(), "{vip}, {len} bytes");
            }
        }
        assert!(!passes(filter, says(OTHER, stranger).as_bytes()));
    }

    #[test]
    fn the_filter_passes_arp_of_other_stations_for_any_of_255_vips() {
        let vips: Vec<IpAddr> = (0..255).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        check(&vips, IpAddr::from([192, 0, 3, 1]), &arp_filter(&vips, OWN), false);
        // MACs that differ in one half only are foreign.
        for at in 0..6 {
            let mut mac = OWN;
            mac.0[at] ^= 0x80;
            let frame = announce::announcement(mac, vips[7], false);
            assert!(passes(&arp_filter(&vips, OWN), frame.as_bytes()), "byte {at}");
        }
    }

    #[test]
    fn the_filter_passes_advertisements_for_any_of_90_vips() {
        let vip = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let vips: Vec<IpAddr> = (1..=90).map(vip).collect();
        let filter = advertisement_filter(&vips);
        check(&vips, vip(91), &filter, true);
        // Whichever word differs.
        for word in [0, 2, 4, 6] {
            let mut segments = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
            segments[word] ^= 0x100;
            let other = announce::announcement(OTHER, segments.into(), false);
            assert!(!passes(&filter, other.as_bytes()), "word {word}");
        }
    }
}
