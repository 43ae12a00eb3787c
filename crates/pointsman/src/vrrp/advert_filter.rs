//! Classic BPF of the advert sockets: which messages wake the VRRP thread.
//!
//! A host beyond the link can send any number of packets to this node's address, and any host on the
//! link to the group. What the election would discard for its hop limit or its source therefore
//! goes to a second socket, which is read at leisure to be counted and named.

use std::net::IpAddr;

use control::vrrp::{Config, MAX_TTL};
use socket2::SockFilter;

/// What a socket is to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Messages of this virtual router from a listed peer on the link.
    Candidates,
    /// All other messages of this virtual router.
    Others,
}

/// Code, jump if true, jump if false, operand.
type Op = (u16, u8, u8, u32);

/// The filter for messages of an instance.
pub(super) fn advert_filter(config: &Config, wanted: Wanted) -> Vec<SockFilter> {
    let ops = ops(config, wanted).into_iter();
    ops.map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k)).collect()
}

fn ops(config: &Config, wanted: Wanted) -> Vec<Op> {
    let (candidate, other) = match wanted {
        Wanted::Candidates => ((RETURN, 0, 0, WHOLE), (RETURN, 0, 0, 0)),
        Wanted::Others => ((RETURN, 0, 0, 0), (RETURN, 0, 0, WHOLE)),
    };
    let vrid = (JUMP_IF_EQUAL, 1, 0, u32::from(config.vrid.get()));
    let hops = (JUMP_IF_EQUAL, 1, 0, u32::from(MAX_TTL));
    let nothing = (RETURN, 0, 0, 0);
    let mut ops = if config.primary.is_ipv4() {
        // An IPv4 raw socket sees the IP header, an IPv6 one the message.
        vec![
            (LOAD_IP_HEADER_LENGTH_INTO_X, 0, 0, 0),
            (LOAD_BYTE_AT_X, 0, 0, 1),
            vrid,
            nothing,
            (LOAD_BYTE, 0, 0, TTL_V4),
            hops,
            other,
        ]
    } else {
        vec![(LOAD_BYTE, 0, 0, 1), vrid, nothing, (LOAD_BYTE, 0, 0, HOP_LIMIT_V6), hops, other]
    };
    if config.peers.is_empty() || config.peers.len() > MOST_PEERS {
        ops.push(candidate);
        return ops;
    }
    for peer in &config.peers {
        match peer {
            IpAddr::V4(v4) => {
                ops.push((LOAD_WORD, 0, 0, SOURCE_V4));
                ops.push((JUMP_IF_EQUAL, 0, 1, v4.to_bits()));
            }
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                let (words, _) = octets.as_chunks::<4>();
                // From the word that differs to behind the block.
                for ((word, offset), over) in words.iter().zip([0, 4, 8, 12]).zip([7, 5, 3, 1]) {
                    ops.push((LOAD_WORD, 0, 0, SOURCE_V6 + offset));
                    ops.push((JUMP_IF_EQUAL, 0, over, u32::from_be_bytes(*word)));
                }
            }
        }
        ops.push(candidate);
    }
    ops.push(other);
    ops
}

/// Of 4,096 instructions that a filter may have, an IPv6 peer needs nine. More peers are compared by
/// the election alone.
const MOST_PEERS: usize = 400;

// Classic BPF (linux/bpf_common.h, linux/filter.h).
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const LOAD_BYTE_AT_X: u16 = 0x50;
const LOAD_IP_HEADER_LENGTH_INTO_X: u16 = 0xb1;
const JUMP_IF_EQUAL: u16 = 0x15;
pub(super) const RETURN: u16 = 0x06;
const WHOLE: u32 = 0xffff;
const TTL_V4: u32 = 8;
const SOURCE_V4: u32 = 12;
/// Offsets from here on count from the network header (`SKF_NET_OFF`).
const NETWORK_HEADER: u32 = 0xfff0_0000;
const HOP_LIMIT_V6: u32 = NETWORK_HEADER + 7;
const SOURCE_V6: u32 = NETWORK_HEADER + 8;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use control::vrrp::Vrid;

    use super::*;

    /// What the kernel would do with a packet whose IP header has `header` bytes.
    fn passes(filter: &[Op], packet: &[u8], header: usize, v4: bool) -> bool {
        let (mut at, mut accumulator, mut x) = (0, 0, 0);
        let data = if v4 { packet } else { &packet[header..] };
        loop {
            let (code, jt, jf, k) = filter[at];
            at += 1;
            let load = |begin: usize, len: usize| -> Option<u32> {
                let network = usize::try_from(k).unwrap().checked_sub(0xfff0_0000);
                let (bytes, begin) = network.map_or((data, begin), |offset| (packet, offset));
                let bytes = bytes.get(begin..begin + len)?;
                Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
            };
            let k = usize::try_from(k).unwrap();
            let loaded = match code {
                LOAD_WORD => load(k, 4),
                LOAD_BYTE => load(k, 1),
                LOAD_BYTE_AT_X => load(x + k, 1),
                LOAD_IP_HEADER_LENGTH_INTO_X => {
                    x = usize::from(data[k] & 0x0f) * 4;
                    continue;
                }
                JUMP_IF_EQUAL => {
                    let jump = if usize::try_from(accumulator).unwrap() == k { jt } else { jf };
                    at += usize::from(jump);
                    continue;
                }
                RETURN => return k != 0,
                _ => panic!("no such instruction: {code}"),
            };
            let Some(loaded) = loaded else { return false };
            accumulator = loaded;
        }
    }

    fn v4_packet(source: [u8; 4], ttl: u8, vrid: u8, options: usize) -> Vec<u8> {
        let words = 5 + u8::try_from(options).unwrap();
        let mut packet = vec![0x40 | words, 0xc0, 0, 40, 0, 0, 0, 0, ttl, 112, 0, 0];
        packet.extend(source);
        packet.extend([224, 0, 0, 18]);
        packet.extend(vec![0; options * 4]);
        packet.extend([0x31, vrid, 100, 1]);
        packet
    }

    fn v6_packet(source: Ipv6Addr, hops: u8, vrid: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 24, 112, hops];
        packet.extend(source.octets());
        packet.extend([0; 16]);
        packet.extend([0x31, vrid, 100, 1]);
        packet
    }

    /// Candidates and others; never both.
    fn check(config: &Config, packet: &[u8], header: usize, expected: (bool, bool)) {
        let v4 = config.primary.is_ipv4();
        let [candidate, other] = [Wanted::Candidates, Wanted::Others].map(|wanted| {
            let ops = ops(config, wanted);
            assert!(ops.len() <= 4096, "{} instructions", ops.len());
            passes(&ops, packet, header, v4)
        });
        assert_eq!((candidate, other), expected, "{packet:02x?}");
    }

    #[test]
    fn only_listed_peers_on_the_link_wake_the_thread() {
        let vrid = Vrid::new(37).unwrap();
        let own = IpAddr::from([192, 0, 2, 1]);
        let peer = |last: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let open = Config::new(vrid, own, vec![peer(10)]);
        let listed = Config { peers: (2..=250).map(peer).collect(), ..open.clone() };
        for options in [0, 10] {
            let header = 20 + options * 4;
            for (source, ttl, vrid, in_open, in_listed) in [
                ([192, 0, 2, 2], 255, 37, (true, false), (true, false)),
                ([192, 0, 2, 250], 255, 37, (true, false), (true, false)),
                ([192, 0, 2, 251], 255, 37, (true, false), (false, true)),
                ([192, 0, 2, 2], 254, 37, (false, true), (false, true)),
                ([192, 0, 2, 2], 64, 37, (false, true), (false, true)),
                ([192, 0, 2, 2], 255, 38, (false, false), (false, false)),
                ([192, 0, 2, 2], 64, 38, (false, false), (false, false)),
            ] {
                let packet = v4_packet(source, ttl, vrid, options);
                check(&open, &packet, header, in_open);
                check(&listed, &packet, header, in_listed);
            }
        }
    }

    #[test]
    fn the_same_over_ipv6() {
        let peer = |word, last| Ipv6Addr::new(0xfe80, 0, word, 0, 0, 0, 0, last);
        let own = IpAddr::from(peer(0, 1));
        let open = Config::new(Vrid::new(37).unwrap(), own, vec![peer(0, 0x10).into()]);
        let peers = (2..=400).map(|last| peer(0, last).into()).collect();
        let listed = Config { peers, ..open.clone() };
        for (source, hops, vrid, in_open, in_listed) in [
            (peer(0, 2), 255, 37, (true, false), (true, false)),
            (peer(0, 400), 255, 37, (true, false), (true, false)),
            (peer(1, 2), 255, 37, (true, false), (false, true)),
            (peer(0, 401), 255, 37, (true, false), (false, true)),
            (peer(0, 2), 64, 37, (false, true), (false, true)),
            (peer(0, 2), 255, 38, (false, false), (false, false)),
        ] {
            let packet = v6_packet(source, hops, vrid);
            check(&open, &packet, 40, in_open);
            check(&listed, &packet, 40, in_listed);
        }
    }
}
