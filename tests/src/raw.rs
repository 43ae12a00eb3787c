//! Packets with any header, sent through raw IP sockets: options, DSCP, any source.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IpDscp, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6Header, PacketBuilder,
};
use lab::NetNs;
use socket2::{Domain, Protocol, Socket, Type};

/// Sends whole IP packets from one namespace.
#[derive(Debug)]
pub struct RawSender {
    v4: Socket,
    v6: Socket,
}

impl RawSender {
    /// Opens the sockets in `ns`.
    ///
    /// # Panics
    /// Without root.
    #[must_use]
    pub fn open(ns: &NetNs) -> Self {
        // IPPROTO_RAW: the packet brings its own header.
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        let open = |domain| ns.enter(|| Socket::new(domain, Type::RAW, raw)).unwrap().unwrap();
        Self { v4: open(Domain::IPV4), v6: open(Domain::IPV6) }
    }

    /// Sends a packet to the address in its header. For IPv4 the kernel fills in length, checksum
    /// and, when it is 0, the identification.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn send(&self, packet: &Packet) {
        let socket = if packet.to.is_ipv4() { &self.v4 } else { &self.v6 };
        let to = SocketAddr::new(packet.to, 0);
        let sent = socket.send_to(&packet.bytes, &to.into()).expect("send a raw packet");
        assert_eq!(sent, packet.bytes.len());
    }
}

/// A packet from its IP header on.
#[derive(Clone, Debug)]
pub struct Packet {
    to: IpAddr,
    bytes: Vec<u8>,
}

/// Header fields that ordinary traffic leaves alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields {
    /// Differentiated services, 0–63.
    pub dscp: u8,
    /// Time to live or hop limit; 0 means 64.
    pub ttl: u8,
    /// IPv4: words of options, 0–10, all "no operation".
    pub option_words: u8,
    /// IPv6 flow label, 20 bits.
    pub flow_label: u32,
}

impl Packet {
    /// A UDP packet between two sockets of one family.
    ///
    /// # Panics
    /// When the families differ, or a field is out of range.
    #[must_use]
    pub fn udp(from: SocketAddr, to: SocketAddr, fields: Fields, payload: &[u8]) -> Self {
        let ip = match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => ipv4(source, target, fields),
            (IpAddr::V6(source), IpAddr::V6(target)) => ipv6(source, target, fields),
            (source, target) => panic!("from {source} to {target}"),
        };
        let builder = PacketBuilder::ip(ip).udp(from.port(), to.port());
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).expect("a packet that fits");
        Self { to: to.ip(), bytes }
    }
}

impl Packet {
    /// A reset of the connection between two sockets, with this sequence number and without an
    /// acknowledgment.
    ///
    /// # Panics
    /// When the families differ.
    #[must_use]
    pub fn reset(from: SocketAddr, to: SocketAddr, seq: u32) -> Self {
        let ip = match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => ipv4(source, target, Fields::default()),
            (IpAddr::V6(source), IpAddr::V6(target)) => ipv6(source, target, Fields::default()),
            (source, target) => panic!("from {source} to {target}"),
        };
        let builder = PacketBuilder::ip(ip).tcp(from.port(), to.port(), seq, 0).rst();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[]).expect("a packet that fits");
        Self { to: to.ip(), bytes }
    }

    /// The packet in fragments of so many bytes behind their headers, a multiple of 8, in their order.
    /// IPv4 needs no options, IPv6 no extension headers.
    ///
    /// # Panics
    /// When it is too long for IPv4.
    #[must_use]
    pub fn fragments(&self, id: u16, size: usize) -> Vec<Self> {
        let header_len = if self.to.is_ipv4() { 20 } else { 40 };
        let (header, body) = self.bytes.split_at(header_len);
        let piece = |(at, piece): (usize, &[u8])| {
            let offset = u16::try_from(at * size).expect("a datagram that fits");
            let more = usize::from(offset) + piece.len() < body.len();
            let (mut bytes, to) = (header.to_vec(), self.to);
            if to.is_ipv4() {
                bytes[4..6].copy_from_slice(&id.to_be_bytes());
                bytes[6..8]
                    .copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            } else {
                let len = u16::try_from(piece.len() + 8).expect("a fragment that fits");
                bytes[4..6].copy_from_slice(&len.to_be_bytes());
                let next = std::mem::replace(&mut bytes[6], 44);
                bytes.extend([next, 0]);
                bytes.extend((offset | u16::from(more)).to_be_bytes());
                bytes.extend(u32::from(id).to_be_bytes());
            }
            bytes.extend(piece);
            Self { to, bytes }
        };
        body.chunks(size).enumerate().map(piece).collect()
    }
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, fields: Fields) -> IpHeaders {
    let mut options = Ipv4Options::new();
    let no_operation = vec![1; usize::from(fields.option_words) * 4];
    if !no_operation.is_empty() {
        options = Ipv4Options::try_from(&no_operation[..]).expect("at most 40 bytes of options");
    }
    let header = Ipv4Header {
        dscp: IpDscp::try_new(fields.dscp).expect("six bits"),
        time_to_live: if fields.ttl == 0 { 64 } else { fields.ttl },
        source: source.octets(),
        destination: destination.octets(),
        options,
        protocol: IpNumber::UDP,
        ..Ipv4Header::default()
    };
    IpHeaders::Ipv4(header, Ipv4Extensions::default())
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, fields: Fields) -> IpHeaders {
    let header = Ipv6Header {
        traffic_class: fields.dscp << 2,
        flow_label: Ipv6FlowLabel::try_new(fields.flow_label).expect("20 bits"),
        payload_length: 0,
        next_header: IpNumber::UDP,
        hop_limit: if fields.ttl == 0 { 64 } else { fields.ttl },
        source: source.octets(),
        destination: destination.octets(),
    };
    IpHeaders::Ipv6(header, Ipv6Extensions::default())
}
