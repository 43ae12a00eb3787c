//! Frames that clients send, made with etherparse.

use std::net::IpAddr;

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, IcmpEchoHeader, Icmpv4Type, Icmpv6Type,
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header,
    PacketBuilder, icmpv4,
};

use crate::addr::{Addr, Mac};

pub(super) const CLIENT_MAC: Mac = Mac([2, 0xcc, 0, 0, 0, 1]);
/// The destination MAC of a client's frames.
pub(super) const GATEWAY_MAC: Mac = Mac([2, 0xaa, 0, 0, 0, 0]);

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;
/// A segment whose numbers are ahead of those of the handshake.
pub(super) const DATA: u8 = PSH | ACK;
const PSH: u8 = 0x08;
/// Bytes in a fragment of [`Client::datagram`].
const PIECE: usize = 40;

/// One end of a connection to a VIP: builds the frames that it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) source: Addr,
    pub(super) source_port: u16,
    vip: Addr,
    port: u16,
    mac: Mac,
    acked: u32,
}

impl Client {
    /// IPv4 client number `index`, to port 80 of `vip`.
    pub(super) fn new(index: u32, vip: Addr) -> Self {
        let [_, b, c, d] = index.to_be_bytes();
        Self {
            source: Addr::from_v4([10, b, c, d]),
            source_port: 40_000,
            vip,
            port: 80,
            mac: CLIENT_MAC,
            acked: 9,
        }
    }

    /// The IPv6 client of the same number.
    pub(super) fn v6(index: u32, vip: Addr) -> Self {
        let bits = 0x2001_0db8_00c1_0000_u128 << 64 | u128::from(index);
        Self { source: Addr::from_v6(bits.to_be_bytes()), ..Self::new(index, vip) }
    }

    /// From another port.
    pub(super) fn from(self, source_port: u16) -> Self {
        Self { source_port, ..self }
    }

    /// To another port.
    pub(super) fn to(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// With another MAC.
    pub(super) fn mac(self, mac: Mac) -> Self {
        Self { mac, ..self }
    }

    /// With another acknowledgment number.
    pub(super) fn acked(self, acked: u32) -> Self {
        Self { acked, ..self }
    }

    pub(super) fn syn(self) -> Vec<u8> {
        self.tcp(SYN)
    }

    pub(super) fn ack(self) -> Vec<u8> {
        self.tcp(ACK)
    }

    pub(super) fn data(self) -> Vec<u8> {
        self.tcp(DATA)
    }

    pub(super) fn fin(self) -> Vec<u8> {
        self.tcp(FIN | ACK)
    }

    pub(super) fn rst(self) -> Vec<u8> {
        self.tcp(RST)
    }

    pub(super) fn tcp(self, flags: u8) -> Vec<u8> {
        let mut segment = etherparse::TcpHeader::new(self.source_port, self.port, 7, 1024);
        (segment.fin, segment.syn) = (flags & FIN != 0, flags & SYN != 0);
        (segment.rst, segment.ack) = (flags & RST != 0, flags & ACK != 0);
        segment.psh = flags & PSH != 0;
        segment.acknowledgment_number = self.acked + u32::from(segment.psh);
        let mut bytes = Vec::new();
        PacketBuilder::ip(self.ip()).tcp_header(segment).write(&mut bytes, b"payload").unwrap();
        self.framed(&bytes)
    }

    /// What ends this connection for the client: a reset from the VIP.
    pub(super) fn told(self, seq: u32) -> Vec<u8> {
        let mut segment = etherparse::TcpHeader::new(self.port, self.source_port, seq, 0);
        segment.rst = true;
        self.back(segment)
    }

    /// What refuses it.
    pub(super) fn refused(self) -> Vec<u8> {
        let mut segment = etherparse::TcpHeader::new(self.port, self.source_port, 0, 0);
        (segment.rst, segment.ack) = (true, true);
        // The payload, and the SYN.
        segment.acknowledgment_number = 7 + 7 + 1;
        self.back(segment)
    }

    fn back(self, segment: etherparse::TcpHeader) -> Vec<u8> {
        let mut ip = headers(self.vip, self.source);
        match &mut ip {
            IpHeaders::Ipv4(header, _) => header.time_to_live = 64,
            IpHeaders::Ipv6(header, _) => header.hop_limit = 64,
        }
        let mut bytes = Vec::new();
        PacketBuilder::ip(ip).tcp_header(segment).write(&mut bytes, &[]).unwrap();
        let ethertype = if self.source.is_v4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&self.mac.0[..], &GATEWAY_MAC.0, &ethertype, &bytes].concat()
    }

    pub(super) fn udp(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let datagram = PacketBuilder::ip(self.ip()).udp(self.source_port, self.port);
        datagram.write(&mut bytes, b"payload").unwrap();
        self.framed(&bytes)
    }

    /// A fragment of a datagram of `protocol` that does not carry its header.
    pub(super) fn fragment(self, protocol: IpNumber) -> Vec<u8> {
        let offset = IpFragOffset::try_new(185).unwrap();
        let mut ip = self.ip();
        match &mut ip {
            IpHeaders::Ipv4(header, _) => {
                (header.fragment_offset, header.dont_fragment) = (offset, false);
            }
            IpHeaders::Ipv6(_, extensions) => {
                extensions.fragment = Some(Ipv6FragmentHeader::new(protocol, offset, false, 77));
            }
        }
        self.raw(ip, protocol, &[0; 32])
    }

    /// The fragments of a UDP datagram: as many as asked for, and at least two.
    pub(super) fn datagram(self, id: u32, count: usize) -> Vec<Vec<u8>> {
        let payload = vec![0x5a; PIECE * count - 8];
        let mut whole = Vec::new();
        PacketBuilder::ip(self.ip())
            .udp(self.source_port, self.port)
            .write(&mut whole, &payload)
            .unwrap();
        let pieces = whole[whole.len() - PIECE * count..].chunks(PIECE);
        let piece = |(at, piece): (usize, &[u8])| {
            let offset = IpFragOffset::try_new(u16::try_from(at * PIECE / 8).unwrap()).unwrap();
            let more = at + 1 < count;
            let mut ip = self.ip();
            match &mut ip {
                IpHeaders::Ipv4(header, _) => {
                    (header.dont_fragment, header.more_fragments) = (false, more);
                    header.fragment_offset = offset;
                    header.identification = u16::try_from(id).unwrap();
                }
                IpHeaders::Ipv6(_, extensions) => {
                    let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, id);
                    extensions.fragment = Some(fragment);
                }
            }
            self.raw(ip, IpNumber::UDP, piece)
        };
        pieces.enumerate().map(piece).collect()
    }

    /// An IP packet of another protocol.
    pub(super) fn other(self, protocol: IpNumber) -> Vec<u8> {
        self.raw(self.ip(), protocol, &[0; 32])
    }

    pub(super) fn echo(self) -> Vec<u8> {
        let echo = IcmpEchoHeader { id: 5, seq: 6 };
        let mut bytes = Vec::new();
        let packet = PacketBuilder::ip(self.ip());
        match self.source.is_v4() {
            true => packet.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut bytes, b"hello"),
            false => packet.icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut bytes, b"hello"),
        }
        .unwrap();
        self.framed(&bytes)
    }

    /// A router on the way back says that a packet of this connection is too big.
    pub(super) fn too_big(self, protocol: IpNumber) -> Vec<u8> {
        let last = if self.source.is_v4() { Self::new } else { Self::v6 };
        let router = Self { source: last(0xff_ffff, self.vip).source, ..self };
        let mut reply = Vec::new();
        let packet = PacketBuilder::ip(headers(self.vip, self.source));
        match protocol {
            IpNumber::TCP => packet.tcp(self.port, self.source_port, 1, 1).write(&mut reply, &[0]),
            _ => packet.udp(self.port, self.source_port).write(&mut reply, &[0]),
        }
        .unwrap();
        let mut bytes = Vec::new();
        let error = PacketBuilder::ip(router.ip());
        match self.source.is_v4() {
            true => error
                .icmpv4(Icmpv4Type::DestinationUnreachable(
                    icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
                ))
                .write(&mut bytes, &reply),
            false => error.icmpv6(Icmpv6Type::PacketTooBig { mtu: 1280 }).write(&mut bytes, &reply),
        }
        .unwrap();
        router.framed(&bytes)
    }

    /// An ARP request or a neighbour solicitation for the VIP.
    pub(super) fn who_has(self) -> Vec<u8> {
        match (self.source.ip(), self.vip.ip()) {
            (IpAddr::V4(source), IpAddr::V4(vip)) => {
                let request = ArpPacket::from(ArpEthIpv4Packet {
                    operation: ArpOperation::REQUEST,
                    sender_mac: self.mac.0,
                    sender_ipv4: source.octets(),
                    target_mac: [0; 6],
                    target_ipv4: vip.octets(),
                });
                self.link([0x08, 0x06], &request.to_bytes())
            }
            _ => {
                let IpHeaders::Ipv6(mut header, extensions) = self.ip() else {
                    panic!("both addresses of one family")
                };
                header.hop_limit = 255;
                let mut bytes = Vec::new();
                PacketBuilder::ip(IpHeaders::Ipv6(header, extensions))
                    .icmpv6(Icmpv6Type::NeighborSolicitation)
                    .write(&mut bytes, &self.vip.octets())
                    .unwrap();
                self.framed(&bytes)
            }
        }
    }

    /// The IP packet as it lies on the wire, behind the tags.
    pub(super) fn framed(self, packet: &[u8]) -> Vec<u8> {
        self.link(if self.source.is_v4() { [0x08, 0x00] } else { [0x86, 0xdd] }, packet)
    }

    pub(super) fn ip(self) -> IpHeaders {
        headers(self.source, self.vip)
    }

    fn raw(self, ip: IpHeaders, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ip(ip).write(&mut bytes, protocol, payload).unwrap();
        self.framed(&bytes)
    }

    fn link(self, ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&GATEWAY_MAC.0[..], &self.mac.0, &ethertype, packet].concat()
    }
}

/// Makes an untagged IPv4 frame one of another client to the first worker, whatever MACs it has;
/// checksums are then wrong, which is nothing to the packet path. For tests that need millions.
pub(super) fn set_source(frame: &mut [u8], index: u32) {
    frame[..6].copy_from_slice(&GATEWAY_MAC.0);
    frame[6..12].copy_from_slice(&CLIENT_MAC.0);
    let [_, b, c, d] = index.to_be_bytes();
    frame[26..30].copy_from_slice(&[10, b, c, d]);
}

/// Sends a frame to another MAC.
pub(super) fn sent_to(mut frame: Vec<u8>, mac: Mac) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac.0);
    frame
}

/// Puts VLAN tags into a frame.
pub(super) fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

fn headers(source: Addr, destination: Addr) -> IpHeaders {
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let header = Ipv4Header::new(0, 57, IpNumber::TCP, source, destination).unwrap();
            IpHeaders::Ipv4(header, Default::default())
        }
        _ => {
            let header = Ipv6Header {
                hop_limit: 57,
                source: source.octets(),
                destination: destination.octets(),
                ..Default::default()
            };
            IpHeaders::Ipv6(header, Ipv6Extensions::default())
        }
    }
}
