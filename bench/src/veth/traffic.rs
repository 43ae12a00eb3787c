//! What is sent.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use clap::Args;

/// Packets of numbered flows. The sizes are the shortest that there are on an Ethernet, or that hold the
/// headers.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Flows.
    #[arg(long)]
    pub flows: u32,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    pub v6: bool,
    /// UDP instead of TCP.
    #[arg(long)]
    pub udp: bool,
    /// The first packets of each flow, instead of further ones in random order for ever.
    #[arg(long)]
    pub establish: bool,
    /// Nanoseconds from packet to packet; 0: as fast as it goes.
    #[arg(long, default_value_t = 0)]
    pub interval: u64,
}

impl Traffic {
    /// For ever, as fast as it goes.
    pub const fn of(flows: u32) -> Self {
        Self { flows, v6: false, udp: false, establish: false, interval: 0 }
    }

    /// The first packets of each flow, slowly enough for user space.
    pub const fn establishing(self) -> Self {
        Self { establish: true, interval: self.establishing_ns(), ..self }
    }

    /// How long that takes.
    pub fn establishing_takes(self) -> Duration {
        Duration::from_nanos(self.establishing_ns()) * self.flows * STEPS
    }

    /// From packet to packet of new flows: many at a rate at which user space drops none.
    const fn establishing_ns(self) -> u64 {
        if self.flows > 100_000 { 20_000 } else { 100_000 }
    }

    /// So many packets a second.
    #[must_use]
    pub fn at(self, rate: f64) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate);
        Self { interval: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX), ..self }
    }

    /// As options of a command line.
    pub fn options(self) -> Vec<String> {
        let flags = [("--v6", self.v6), ("--udp", self.udp), ("--establish", self.establish)];
        let flags = flags.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag.to_owned());
        let numbers = [format!("--flows={}", self.flows), format!("--interval={}", self.interval)];
        flags.chain(numbers).collect()
    }

    /// `struct settings` of `bpf/veth.bpf.c`.
    pub(super) fn settings(self) -> Vec<u8> {
        let header = self.header();
        let sum = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum = if self.v6 { 0 } else { sum.sum::<u32>() };
        let mut bytes = [NEAR_MAC, CLIENT_MAC].concat();
        for flag in [self.v6, self.udp] {
            bytes.extend(u16::from(flag).to_ne_bytes());
        }
        for word in [self.flows, u32::from(self.establish), sum, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.interval.to_ne_bytes());
        bytes
    }

    /// What the program completes for each packet.
    pub(super) fn frame(self) -> Vec<u8> {
        let mut frame = [NEAR_MAC, CLIENT_MAC].concat();
        frame.extend(if self.v6 { [0x86, 0xdd] } else { [0x08, 0] });
        frame.extend(self.header());
        frame.extend(self.transport());
        frame
    }

    fn header(self) -> Vec<u8> {
        let (protocol, len) = (if self.udp { 17 } else { 6 }, self.transport_len());
        let [a, b] = len.to_be_bytes();
        if self.v6 {
            let source = [0xfd, 0x99, 0, 0, 0, 0, 0, 0x64, 0, 0, 0, 0, 0, 0, 0, 0];
            let start = [0x60, 0, 0, 0, a, b, protocol, 64];
            return [&start[..], &source, &VIP6.octets()].concat();
        }
        let [a, b] = (20 + len).to_be_bytes();
        let start = [0x45, 0, a, b, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0];
        [&start[..], &VIP.octets()].concat()
    }

    /// The header of TCP, or what an Ethernet frame has room for.
    const fn transport_len(self) -> u16 {
        if self.v6 && !self.udp { 20 } else { 26 }
    }

    fn transport(self) -> Vec<u8> {
        let [a, b] = PORT.to_be_bytes();
        let mut bytes = vec![0, 0, a, b];
        bytes.resize(usize::from(self.transport_len()), 0);
        if self.udp {
            let [c, d] = self.transport_len().to_be_bytes();
            bytes[4..8].copy_from_slice(&[c, d, 0xbe, 0xef]);
        } else {
            bytes[12..20].copy_from_slice(&[0x50, 0x10, 1, 0, 0xbe, 0xef, 0, 0]);
        }
        bytes
    }
}

/// The VIPs.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
/// And the IPv6 one.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x100);
/// Of all services.
pub const PORT: u16 = 80;
/// Of the balancer's end.
pub const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Of the other end, which plays the backends.
pub const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0xbb, 1];
/// What frames come from: no MAC of a backend.
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0xcc, 1];

/// Packets of each flow.
const STEPS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_short_as_their_headers_allow() {
        let lengths = [(false, false), (false, true), (true, false), (true, true)]
            .map(|(v6, udp)| Traffic { v6, udp, ..Traffic::of(1) }.frame().len());
        assert_eq!(lengths, [60, 60, 74, 80]);
    }
}
