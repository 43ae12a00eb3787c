//! Frames of numbered clients, and everything that may be unusual about them.

use proptest::prelude::*;
use proptest::sample::select;

use super::world::{BACKENDS, OUR_MAC, backend_mac};

/// Clients that are known, half of them over IPv6. Numbers beyond are unknown.
pub(super) const CLIENTS: u32 = 600;
/// Clients of the last part send too rarely: their flows are over.
pub(super) const OVER: u32 = 60;

pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// One frame.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) client: u32,
    /// Which of the services, by its VIP and port.
    pub(super) service: usize,
    pub(super) flags: u8,
    pub(super) number: u32,
    pub(super) payload: usize,
    pub(super) to: [u8; 6],
    pub(super) from: [u8; 6],
    pub(super) oddity: Oddity,
}

/// What is unusual about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oddity {
    None,
    Tags(usize),
    /// Four bytes of IPv4 options, or an IPv6 extension header.
    Options,
    /// The first fragment, or (with an offset) a later one.
    Fragment(u16),
    /// Not all of it is there.
    Cut(usize),
    /// More is there than the headers say.
    Padded(usize),
    /// A byte is another one.
    Wrong(usize, u8),
}

/// VIPs of the services: TCP over IPv4, TCP over IPv6, UDP over both; the last one is another
/// instance's.
pub(super) const SERVICES: [Service; 5] = [
    Service { udp: false, v6: false, vip: 1 },
    Service { udp: false, v6: true, vip: 2 },
    Service { udp: true, v6: false, vip: 1 },
    Service { udp: true, v6: true, vip: 2 },
    Service { udp: false, v6: false, vip: 3 },
];

#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) udp: bool,
    pub(super) v6: bool,
    pub(super) vip: u8,
}

pub(super) const PORT: u16 = 80;

impl Service {
    pub(super) fn address(self) -> Vec<u8> {
        if self.v6 { v6(0, u32::from(self.vip)) } else { vec![192, 0, 2, self.vip] }
    }
}

fn v6(net: u8, host: u32) -> Vec<u8> {
    let [a, b, c, d] = host.to_be_bytes();
    vec![0x20, 1, 0xd, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

impl Shape {
    pub(super) fn of(client: u32, flags: u8, number: u32) -> Self {
        let service = client as usize % SERVICES.len();
        let (to, from) = (OUR_MAC, [2, 0, 0, 0xcc, 0, 1]);
        Self { client, service, flags, number, payload: 1, to, from, oddity: Oddity::None }
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = [self.to, self.from].concat();
        if let Oddity::Tags(count) = self.oddity {
            for tag in 0..count {
                frame.extend([0x81, 0, 0, tag.to_le_bytes()[0] + 1]);
            }
        }
        frame.extend(if SERVICES[self.service].v6 { [0x86, 0xdd] } else { [0x08, 0] });
        let transport = self.transport();
        let packet =
            if SERVICES[self.service].v6 { self.v6(&transport) } else { self.v4(&transport) };
        frame.extend(packet);
        match self.oddity {
            Oddity::Cut(left) => frame.truncate(left.clamp(14, frame.len())),
            Oddity::Padded(more) => frame.resize(frame.len() + more, 0xee),
            Oddity::Wrong(at, value) => {
                let at = at % frame.len();
                frame[at] = value;
            }
            Oddity::None | Oddity::Tags(_) | Oddity::Options | Oddity::Fragment(_) => {}
        }
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let [a, b] = (10_000 + (self.client & 0x3fff) as u16).to_be_bytes();
        let [c, d] = PORT.to_be_bytes();
        let mut header = vec![a, b, c, d];
        if SERVICES[self.service].udp {
            let [e, f] = (8 + self.payload as u16).to_be_bytes();
            header.extend([e, f, 0, 0]);
        } else {
            header.extend(self.number.to_be_bytes());
            header.extend(self.number.wrapping_mul(3).to_be_bytes());
            header.extend([0x50, self.flags, 1, 0, 0, 0, 0, 0]);
        }
        header.resize(header.len() + self.payload, 0x55);
        header
    }

    fn v4(&self, transport: &[u8]) -> Vec<u8> {
        let options: &[u8] = if self.oddity == Oddity::Options { &[1, 1, 1, 1] } else { &[] };
        let [a, b] = (20 + options.len() as u16 + transport.len() as u16).to_be_bytes();
        let [c, d] = match self.oddity {
            Oddity::Fragment(0) => [0x20, 0],
            Oddity::Fragment(offset) => offset.to_be_bytes(),
            _ => [0x40, 0],
        };
        let [.., x, y] = self.client.to_be_bytes();
        let protocol = if SERVICES[self.service].udp { UDP } else { TCP };
        let version = 0x45 + (options.len() / 4) as u8;
        let mut packet = vec![version, 0, a, b, 0, 0, c, d, 64, protocol, 0, 0, 198, 51, x, y];
        packet.extend(SERVICES[self.service].address());
        [&packet, options, transport].concat()
    }

    fn v6(&self, transport: &[u8]) -> Vec<u8> {
        let protocol = if SERVICES[self.service].udp { UDP } else { TCP };
        let extension: Vec<u8> = match self.oddity {
            Oddity::Options => vec![protocol, 0, 1, 4, 0, 0, 0, 0],
            Oddity::Fragment(offset) => {
                let [a, b] = (offset << 3 | u16::from(offset == 0)).to_be_bytes();
                vec![protocol, 0, a, b, 0, 0, 0, 1]
            }
            _ => Vec::new(),
        };
        let next = match self.oddity {
            Oddity::Options => 60,
            Oddity::Fragment(_) => 44,
            _ => protocol,
        };
        let [a, b] = ((extension.len() + transport.len()) as u16).to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, a, b, next, 64];
        packet.extend(v6(1, self.client));
        packet.extend(SERVICES[self.service].address());
        [packet, extension, transport.to_vec()].concat()
    }
}

/// Mostly the next packets of known flows.
pub(super) fn shapes() -> impl Strategy<Value = Shape> {
    let client = prop_oneof![20 => 0..CLIENTS, 1 => CLIENTS..CLIENTS + 200];
    let flags = prop_oneof![
        20 => select(vec![ACK, ACK | 0x08, ACK | 0xc0]),
        1 => any::<u8>(),
        1 => Just(SYN),
        1 => select(vec![0x11_u8, 0x04, 0x14])
    ];
    let to = prop_oneof![40 => Just(OUR_MAC), 1 => any::<[u8; 6]>()];
    let from = prop_oneof![
        40 => Just([2, 0, 0, 0xcc, 0, 1]),
        1 => any::<[u8; 6]>(),
        1 => Just(OUR_MAC),
        2 => (0..BACKENDS).prop_map(backend_mac)
    ];
    let oddity = prop_oneof![
        40 => Just(Oddity::None),
        3 => (1..4_usize).prop_map(Oddity::Tags),
        1 => Just(Oddity::Options),
        1 => (0..8_u16).prop_map(Oddity::Fragment),
        1 => (14..100_usize).prop_map(Oddity::Cut),
        1 => (1..40_usize).prop_map(Oddity::Padded),
        2 => (0..80_usize, any::<u8>()).prop_map(|(at, value)| Oddity::Wrong(at, value))
    ];
    let other_service = prop_oneof![30 => Just(0), 1 => 1..SERVICES.len()];
    (client, flags, any::<u32>(), 0..64_usize, (to, from), oddity, other_service).prop_map(
        |(client, flags, number, payload, (to, from), oddity, other)| {
            let service = (client as usize + other) % SERVICES.len();
            Shape { client, service, flags, number, payload, to, from, oddity }
        },
    )
}
