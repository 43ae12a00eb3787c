//! Reads the classic pcap format (not pcapng), and compares captures.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use crate::error::{LabError, Result};

/// One captured Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Time since the Unix epoch.
    pub at: Duration,
    /// Its bytes, as far as they were captured.
    pub bytes: Vec<u8>,
    /// Its length on the wire.
    pub length: usize,
}

/// Addresses of a frame, as far as it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// MAC of the sender.
    pub source_mac: [u8; 6],
    /// MAC of the receiver.
    pub destination_mac: [u8; 6],
    /// IP addresses.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// TCP or UDP ports.
    pub ports: Option<(u16, u16)>,
    /// TCP flags in words, protocol name otherwise.
    pub kind: String,
}

impl Frame {
    /// What the frame says about itself; `None` when it is shorter than an Ethernet header or
    /// broken.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let sliced = LaxSlicedPacket::from_ethernet(&self.bytes).ok()?;
        let (ethernet, _) = self.bytes.split_first_chunk::<12>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *ethernet;
        let (addresses, mut kind) = match &sliced.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let pair = (header.source_addr().into(), header.destination_addr().into());
                (Some(pair), format!("IPv4 protocol {}", header.protocol().0))
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let pair = (header.source_addr().into(), header.destination_addr().into());
                (Some(pair), format!("IPv6 next header {}", header.next_header().0))
            }
            Some(LaxNetSlice::Arp(_)) => (None, "ARP".to_owned()),
            None => (None, "other".to_owned()),
        };
        let mut ports = None;
        match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                ports = Some((tcp.source_port(), tcp.destination_port()));
                kind = tcp_kind(tcp);
            }
            Some(TransportSlice::Udp(udp)) => {
                ports = Some((udp.source_port(), udp.destination_port()));
                kind = "UDP".to_owned();
            }
            Some(TransportSlice::Icmpv4(_)) => kind = "ICMP".to_owned(),
            Some(TransportSlice::Icmpv6(_)) => kind = "ICMPv6".to_owned(),
            Some(TransportSlice::Igmp(_)) => kind = "IGMP".to_owned(),
            None => {}
        }
        Some(Summary {
            source_mac: [s0, s1, s2, s3, s4, s5],
            destination_mac: [d0, d1, d2, d3, d4, d5],
            addresses,
            ports,
            kind,
        })
    }

    /// Whether it was captured whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes.len() == self.length
    }

    /// All captured bytes after the two MAC addresses.
    #[must_use]
    pub fn after_macs(&self) -> &[u8] {
        self.bytes.get(12..).unwrap_or_default()
    }
}

/// A MAC address in the usual notation.
#[must_use]
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Outcome of [`compare`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Frames that are in both captures, equal but for the MAC addresses.
    pub equal: usize,
    /// Frames that only the first capture has.
    pub only_first: usize,
    /// Frames that only the second capture has.
    pub only_second: usize,
    /// Frames of either capture that are not whole. They are compared as far as they go.
    pub cut: usize,
}

/// Compares two captures as collections (a balancer with several queues may reorder flows): every
/// frame counts as often as it was seen, and the two MAC addresses are left out.
#[must_use]
pub fn compare(first: &[Frame], second: &[Frame]) -> Comparison {
    let mut open: HashMap<&[u8], usize> = HashMap::new();
    for frame in first {
        *open.entry(frame.after_macs()).or_default() += 1;
    }
    let mut result = Comparison::default();
    for frame in second {
        match open.get_mut(frame.after_macs()).filter(|left| **left > 0) {
            Some(left) => {
                *left -= 1;
                result.equal += 1;
            }
            None => result.only_second += 1,
        }
    }
    result.only_first = first.len() - result.equal;
    result.cut = first.iter().chain(second).filter(|frame| !frame.is_whole()).count();
    result
}

/// Reads a whole capture file.
///
/// # Errors
/// When it is not a pcap file of Ethernet frames, or ends within a record.
pub fn parse(bytes: &[u8]) -> Result<Vec<Frame>> {
    let bad = |detail: String| LabError::Malformed { what: "capture file".into(), detail };
    let (format, mut rest) = header(bytes).ok_or_else(|| bad("not a pcap file".into()))?;
    if format.link_type != LINKTYPE_ETHERNET {
        return Err(bad(format!("link type {} is not Ethernet", format.link_type)));
    }
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (record, after) =
            format.record(rest).ok_or_else(|| bad(format!("cut off at frame {}", frames.len())))?;
        let (at, length) = (record.at, record.original);
        frames.push(Frame { at, bytes: record.bytes.to_vec(), length });
        rest = after;
    }
    Ok(frames)
}

/// Number of complete frames in a capture that may still be written to.
pub(crate) fn count(bytes: &[u8]) -> usize {
    let Some((format, mut rest)) = header(bytes) else { return 0 };
    let mut frames = 0;
    while let Some((_, after)) = format.record(rest) {
        frames += 1;
        rest = after;
    }
    frames
}

/// What the file header says.
struct Format {
    swapped: bool,
    /// Length of a unit of the sub-second field.
    fraction_ns: u32,
    link_type: u32,
}

struct Record<'a> {
    at: Duration,
    original: usize,
    bytes: &'a [u8],
}

impl Format {
    fn word(&self, bytes: [u8; 4]) -> u32 {
        if self.swapped { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn record<'a>(&self, bytes: &'a [u8]) -> Option<(Record<'a>, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<16>()?;
        let [s0, s1, s2, s3, f0, f1, f2, f3, c0, c1, c2, c3, o0, o1, o2, o3] = *head;
        let seconds = self.word([s0, s1, s2, s3]);
        let fraction = self.word([f0, f1, f2, f3]).checked_mul(self.fraction_ns)?;
        let captured = usize::try_from(self.word([c0, c1, c2, c3])).ok()?;
        let original = usize::try_from(self.word([o0, o1, o2, o3])).ok()?;
        let (data, rest) = rest.split_at_checked(captured)?;
        let at = Duration::new(seconds.into(), fraction);
        Some((Record { at, original, bytes: data }, rest))
    }
}

fn header(bytes: &[u8]) -> Option<(Format, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<24>()?;
    let (magic, _) = head.split_first_chunk::<4>()?;
    let (swapped, fraction_ns) = match (u32::from_le_bytes(*magic), u32::from_be_bytes(*magic)) {
        (MICROSECONDS, _) => (false, 1000),
        (NANOSECONDS, _) => (false, 1),
        (_, MICROSECONDS) => (true, 1000),
        (_, NANOSECONDS) => (true, 1),
        (_, _) => return None,
    };
    let mut format = Format { swapped, fraction_ns, link_type: 0 };
    let (_, link_type) = head.split_last_chunk::<4>()?;
    // The upper bits may carry the length of a checksum.
    format.link_type = format.word(*link_type) & 0xffff;
    Some((format, rest))
}

fn tcp_kind(tcp: &etherparse::TcpSlice<'_>) -> String {
    let flags = [
        (tcp.syn(), "SYN"),
        (tcp.fin(), "FIN"),
        (tcp.rst(), "RST"),
        (tcp.psh(), "PSH"),
        (tcp.ack(), "ACK"),
    ];
    let names: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let length = tcp.payload().len();
    let names = names.join(" ");
    if length > 0 { format!("TCP {names}, {length} bytes") } else { format!("TCP {names}") }
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;

#[cfg(test)]
mod tests;
