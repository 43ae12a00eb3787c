//! Frames for the tests, made with etherparse, each with what it must be taken for.

use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv4Type, Icmpv6Type,
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FragmentHeader,
    Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, PacketBuilder, icmpv4, icmpv6,
};

use super::{Packet, TcpFields};
use crate::addr::Addr;
use crate::key::{FlowKey, FragmentKey, Protocol};

pub(super) const CLIENT: [u8; 4] = [198, 51, 100, 7];
pub(super) const VIP: [u8; 4] = [192, 0, 2, 10];
pub(super) const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
pub(super) const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0xcd, 0xef];
/// The solicited-node group of [`VIP6`].
pub(super) const VIP6_GROUP: [u8; 16] =
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xab, 0xcd, 0xef];
pub(super) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
pub(super) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const IPV4: [u8; 2] = [0x08, 0x00];
pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];
pub(super) const ARP: [u8; 2] = [0x08, 0x06];
/// Tags with their TPID in front.
pub(super) const VLAN: [u8; 4] = [0x81, 0x00, 0x20, 0x64];
pub(super) const QINQ: [u8; 8] = [0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0x20, 0x64];

/// A frame and what it must be taken for.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) frame: Vec<u8>,
    pub(super) packet: Packet,
}

/// From the client to the balancer.
pub(super) fn ethernet(tags: &[u8], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&OWN_MAC, &CLIENT_MAC, tags, &ethertype, payload].concat()
}

pub(super) fn key4(protocol: Protocol) -> FlowKey {
    FlowKey {
        src: Addr::from_v4(CLIENT),
        dst: Addr::from_v4(VIP),
        src_port: 40_000,
        dst_port: 443,
        protocol,
    }
}

pub(super) fn key6(protocol: Protocol) -> FlowKey {
    FlowKey { src: Addr::from_v6(CLIENT6), dst: Addr::from_v6(VIP6), ..key4(protocol) }
}

pub(super) fn v4(change: impl FnOnce(&mut Ipv4Header)) -> IpHeaders {
    let mut header = Ipv4Header::new(0, 57, IpNumber::TCP, CLIENT, VIP).unwrap();
    change(&mut header);
    IpHeaders::Ipv4(header, Default::default())
}

pub(super) fn v6(change: impl FnOnce(&mut Ipv6Header, &mut Ipv6Extensions)) -> IpHeaders {
    let mut header =
        Ipv6Header { hop_limit: 57, source: CLIENT6, destination: VIP6, ..Default::default() };
    let mut extensions = Ipv6Extensions::default();
    change(&mut header, &mut extensions);
    IpHeaders::Ipv6(header, extensions)
}

/// ACK and PSH with acknowledgment number 0x01020304.
pub(super) fn tcp(ip: IpHeaders, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let segment = PacketBuilder::ip(ip).tcp(40_000, 443, 9, 1024).ack(0x0102_0304).psh();
    segment.write(&mut bytes, payload).unwrap();
    bytes
}

/// Of [`tcp`] with a payload of so many bytes.
pub(super) const fn fields(payload: u32) -> TcpFields {
    TcpFields { flags: 0x18, ack: 0x0102_0304, next: payload.wrapping_add(9) }
}

pub(super) fn udp(ip: IpHeaders, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ip(ip).udp(40_000, 443).write(&mut bytes, payload).unwrap();
    bytes
}

pub(super) fn raw(ip: IpHeaders, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ip(ip).write(&mut bytes, protocol, payload).unwrap();
    bytes
}

pub(super) fn icmp4(ip: IpHeaders, kind: Icmpv4Type, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ip(ip).icmpv4(kind).write(&mut bytes, payload).unwrap();
    bytes
}

pub(super) fn icmp6(ip: IpHeaders, kind: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ip(ip).icmpv6(kind).write(&mut bytes, payload).unwrap();
    bytes
}

/// What a backend sent to the client: headers as they come back in an error.
pub(super) fn reply4(protocol: Protocol) -> Vec<u8> {
    let ip = v4(|header| std::mem::swap(&mut header.source, &mut header.destination));
    let mut bytes = Vec::new();
    match protocol {
        Protocol::Tcp => PacketBuilder::ip(ip).tcp(443, 40_000, 1, 1).write(&mut bytes, &[0; 100]),
        Protocol::Udp => PacketBuilder::ip(ip).udp(443, 40_000).write(&mut bytes, &[0; 100]),
    }
    .unwrap();
    bytes
}

pub(super) fn reply6(protocol: Protocol) -> Vec<u8> {
    let ip = v6(|header, _| std::mem::swap(&mut header.source, &mut header.destination));
    let mut bytes = Vec::new();
    match protocol {
        Protocol::Tcp => PacketBuilder::ip(ip).tcp(443, 40_000, 1, 1).write(&mut bytes, &[0; 100]),
        Protocol::Udp => PacketBuilder::ip(ip).udp(443, 40_000).write(&mut bytes, &[0; 100]),
    }
    .unwrap();
    bytes
}

pub(super) fn arp(operation: ArpOperation, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &CLIENT_MAC,
        &sender,
        &[0; 6],
        &target,
    )
    .unwrap()
    .to_bytes()
    .to_vec()
}

/// The answer to [`arp`].
pub(super) fn arp_reply(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    ArpPacket::from(ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac: OWN_MAC,
        sender_ipv4: target,
        target_mac: CLIENT_MAC,
        target_ipv4: sender,
    })
    .to_bytes()
    .to_vec()
}

/// A neighbour solicitation for [`VIP6`]; `options` follow the target.
pub(super) fn solicitation(src: [u8; 16], dst: [u8; 16], options: &[u8]) -> Vec<u8> {
    let ip = v6(|header, _| {
        (header.source, header.destination, header.hop_limit) = (src, dst, 255);
    });
    icmp6(ip, Icmpv6Type::NeighborSolicitation, &[&VIP6, options].concat())
}

pub(super) const SOURCE_OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 7];

pub(super) fn echo4() -> Vec<u8> {
    let echo = Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 5, seq: 6 });
    icmp4(v4(|_| ()), echo, b"hello, is there anybody")
}

pub(super) fn echo6() -> Vec<u8> {
    let echo = Icmpv6Type::EchoRequest(etherparse::IcmpEchoHeader { id: 5, seq: 6 });
    icmp6(v6(|_, _| ()), echo, b"hello, is there anybody")
}

fn extension(len: usize) -> Ipv6RawExtHeader {
    Ipv6RawExtHeader::new_raw(IpNumber::TCP, &vec![0; len]).unwrap()
}

pub(super) fn all_extensions(extensions: &mut Ipv6Extensions) {
    extensions.hop_by_hop_options = Some(extension(6));
    extensions.destination_options = Some(extension(14));
    extensions.routing = Some(Ipv6RoutingExtensions {
        routing: extension(22),
        final_destination_options: Some(extension(6)),
    });
}

pub(super) fn fragment6(offset: u16, more: bool) -> IpHeaders {
    v6(|_, extensions| {
        extensions.fragment = Some(Ipv6FragmentHeader::new(
            IpNumber::UDP,
            IpFragOffset::try_new(offset).unwrap(),
            more,
            77,
        ));
    })
}

pub(super) fn fragment4(offset: u16, more: bool) -> IpHeaders {
    v4(|header| {
        header.dont_fragment = false;
        header.identification = 0x1234;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.more_fragments = more;
    })
}

/// One of each kind; none has padding, and each is whole as its headers say.
pub(super) fn all() -> Vec<Sample> {
    let mut samples = Vec::new();
    samples.extend(balanced());
    samples.extend(fragments());
    samples.extend(errors());
    samples.extend(requests());
    samples
}

fn sample(name: &'static str, frame: Vec<u8>, packet: Packet) -> Sample {
    Sample { name, frame, packet }
}

fn balanced() -> Vec<Sample> {
    let tcp4 = Packet::Tcp(key4(Protocol::Tcp), fields(3));
    let tcp6 = Packet::Tcp(key6(Protocol::Tcp), fields(3));
    let empty = Packet::Tcp(key4(Protocol::Tcp), fields(0));
    let udp4 = Packet::Udp(key4(Protocol::Udp));
    let udp6 = Packet::Udp(key6(Protocol::Udp));
    let options = |header: &mut Ipv4Header| header.options = Ipv4Options::from([1; 40]);
    let extended = || v6(|_, extensions| all_extensions(extensions));
    vec![
        sample("tcp4", ethernet(&[], IPV4, &tcp(v4(|_| ()), b"GET")), tcp4),
        sample("tcp4 empty", ethernet(&[], IPV4, &tcp(v4(|_| ()), b"")), empty),
        sample("tcp4 vlan", ethernet(&VLAN, IPV4, &tcp(v4(|_| ()), b"GET")), tcp4),
        sample("tcp4 qinq", ethernet(&QINQ, IPV4, &tcp(v4(|_| ()), b"GET")), tcp4),
        sample("tcp4 options", ethernet(&[], IPV4, &tcp(v4(options), b"GET")), tcp4),
        sample("udp4", ethernet(&[], IPV4, &udp(v4(|_| ()), b"?")), udp4),
        sample("udp4 options", ethernet(&VLAN, IPV4, &udp(v4(options), b"")), udp4),
        sample("tcp6", ethernet(&[], IPV6, &tcp(v6(|_, _| ()), b"GET")), tcp6),
        sample("tcp6 qinq", ethernet(&QINQ, IPV6, &tcp(v6(|_, _| ()), b"GET")), tcp6),
        sample("tcp6 extended", ethernet(&[], IPV6, &tcp(extended(), b"GET")), tcp6),
        sample("udp6", ethernet(&VLAN, IPV6, &udp(v6(|_, _| ()), b"?")), udp6),
        sample("udp6 extended", ethernet(&[], IPV6, &udp(extended(), b"?")), udp6),
        sample("udp6 atomic fragment", ethernet(&[], IPV6, &udp(fragment6(0, false), b"?")), udp6),
    ]
}

fn fragments() -> Vec<Sample> {
    let later = |key: FlowKey| {
        let FlowKey { src, dst, protocol, .. } = key;
        let id = if src.is_v4() { 0x1234 } else { 77 };
        Packet::Fragment(FragmentKey { src, dst, id, protocol })
    };
    let (tcp4, udp4, udp6) = (key4(Protocol::Tcp), key4(Protocol::Udp), key6(Protocol::Udp));
    let first_udp4 = udp(fragment4(0, true), &[0; 24]);
    let later_tcp4 = raw(fragment4(3, true), IpNumber::TCP, &[0; 24]);
    let last_udp4 = raw(fragment4(185, false), IpNumber::UDP, &[0; 9]);
    let later_udp6 = raw(fragment6(3, true), IpNumber::UDP, &[0; 24]);
    let later_icmp = raw(fragment4(3, true), IpNumber::ICMP, &[0; 24]);
    vec![
        sample(
            "tcp4 first",
            ethernet(&[], IPV4, &tcp(fragment4(0, true), &[0; 24])),
            Packet::FirstFragment(tcp4),
        ),
        sample("udp4 first", ethernet(&[], IPV4, &first_udp4), Packet::FirstFragment(udp4)),
        sample("tcp4 later", ethernet(&[], IPV4, &later_tcp4), later(tcp4)),
        sample("udp4 last", ethernet(&[], IPV4, &last_udp4), later(udp4)),
        sample(
            "udp6 first",
            ethernet(&[], IPV6, &udp(fragment6(0, true), &[0; 24])),
            Packet::FirstFragment(udp6),
        ),
        sample("udp6 later", ethernet(&[], IPV6, &later_udp6), later(udp6)),
        sample("icmp later", ethernet(&[], IPV4, &later_icmp), Packet::Other { dst: tcp4.dst }),
    ]
}

fn errors() -> Vec<Sample> {
    use icmpv4::DestUnreachableHeader::{FragmentationNeeded, Port};
    let too_long = Icmpv4Type::DestinationUnreachable(FragmentationNeeded { next_hop_mtu: 1400 });
    let port = Icmpv4Type::DestinationUnreachable(Port);
    let exceeded = Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit);
    let too_big = Icmpv6Type::PacketTooBig { mtu: 1280 };
    let unreachable = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
    let (tcp4, udp4) = (reply4(Protocol::Tcp), reply4(Protocol::Udp));
    let (tcp6, udp6) = (reply6(Protocol::Tcp), reply6(Protocol::Udp));
    let error4 = |kind, quote: &[u8]| ethernet(&[], IPV4, &icmp4(v4(|_| ()), kind, quote));
    let error6 = |kind, quote: &[u8]| ethernet(&[], IPV6, &icmp6(v6(|_, _| ()), kind, quote));
    let about4 = |protocol| Packet::IcmpError(key4(protocol));
    let about6 = |protocol| Packet::IcmpError(key6(protocol));
    vec![
        sample("icmp too long", error4(too_long, &tcp4[..28]), about4(Protocol::Tcp)),
        sample("icmp port", error4(port, &udp4), about4(Protocol::Udp)),
        sample("icmp exceeded", error4(exceeded, &tcp4[..40]), about4(Protocol::Tcp)),
        sample("icmp6 too big", error6(too_big, &tcp6), about6(Protocol::Tcp)),
        sample("icmp6 port", error6(unreachable, &udp6[..48]), about6(Protocol::Udp)),
    ]
}

fn requests() -> Vec<Sample> {
    let (vip4, vip6) = (Addr::from_v4(VIP), Addr::from_v6(VIP6));
    let (who4, who6) = (Packet::WhoHas { target: vip4 }, Packet::WhoHas { target: vip6 });
    let (echo_v4, echo_v6) = (Packet::EchoRequest { dst: vip4 }, Packet::EchoRequest { dst: vip6 });
    let other = Packet::Other { dst: vip4 };
    let arp = |operation, sender| ethernet(&[], ARP, &arp(operation, sender, VIP));
    let ns = |src, dst, options: &[u8]| ethernet(&[], IPV6, &solicitation(src, dst, options));
    let nonce = [&SOURCE_OPTION[..], &[14, 1, 1, 2, 3, 4, 5, 6]].concat();
    let sctp = raw(v4(|_| ()), IpNumber::SCTP, &[0; 12]);
    vec![
        sample("echo4", ethernet(&[], IPV4, &echo4()), echo_v4),
        sample("echo4 vlan", ethernet(&VLAN, IPV4, &echo4()), echo_v4),
        sample("echo6", ethernet(&[], IPV6, &echo6()), echo_v6),
        sample("arp request", arp(ArpOperation::REQUEST, CLIENT), who4),
        sample("arp probe", arp(ArpOperation::REQUEST, [0; 4]), who4),
        sample("arp announcement", arp(ArpOperation::REQUEST, VIP), other),
        sample("arp reply", arp(ArpOperation::REPLY, CLIENT), other),
        sample("ns multicast", ns(CLIENT6, VIP6_GROUP, &SOURCE_OPTION), who6),
        sample("ns unicast", ns(CLIENT6, VIP6, &[]), who6),
        sample("ns probe", ns([0; 16], VIP6_GROUP, &[]), who6),
        sample("ns nonce", ns(CLIENT6, VIP6_GROUP, &nonce), who6),
        sample("sctp", ethernet(&[], IPV4, &sctp), other),
    ]
}
