//! Frames, made layer by layer. Lengths are right, contents plausible; what a test wants wrong, it
//! breaks itself.

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv6Header,
    Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader, SingleVlanHeader, TcpHeader, UdpHeader,
};

/// Where frames for us go.
pub(super) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Where frames for another host go; it differs in one bit.
pub(super) const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub(super) const BROADCAST: [u8; 6] = [0xff; 6];
/// The group of a solicited-node address (RFC 2464 §7).
pub(super) const SOLICITED_NODE: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 0x10];

pub(super) const VLAN: u16 = 0x8100;
pub(super) const QINQ: u16 = 0x88a8;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
const CLIENT4: [u8; 4] = [198, 51, 100, 1];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xc1];

/// What follows the Ethernet header and its tags.
#[derive(Clone, Debug)]
pub(super) struct Layer3 {
    ether_type: EtherType,
    bytes: Vec<u8>,
}

/// A frame with the given tags, outermost first.
pub(super) fn tagged(destination: [u8; 6], tags: &[u16], inner: &Layer3) -> Vec<u8> {
    let mut types = tags.iter().copied().map(EtherType).chain([inner.ether_type]);
    let ether_type = types.next().unwrap_or_default();
    let mut frame =
        Ethernet2Header { source: CLIENT_MAC, destination, ether_type }.to_bytes().to_vec();
    for ether_type in types {
        let tag = SingleVlanHeader { ether_type, ..SingleVlanHeader::default() };
        frame.extend(tag.to_bytes());
    }
    frame.extend(&inner.bytes);
    frame
}

/// An untagged frame for our MAC.
pub(super) fn frame(inner: &Layer3) -> Vec<u8> {
    tagged(OUR_MAC, &[], inner)
}

/// Any other EtherType.
pub(super) fn other(ether_type: u16, bytes: &[u8]) -> Layer3 {
    Layer3 { ether_type: EtherType(ether_type), bytes: bytes.to_vec() }
}

pub(super) fn tcp4(destination: [u8; 4]) -> Layer3 {
    ipv4(destination, IpNumber::TCP, &[], &tcp())
}

pub(super) fn udp4(destination: [u8; 4]) -> Layer3 {
    ipv4(destination, IpNumber::UDP, &[], &udp())
}

pub(super) fn ping4(destination: [u8; 4]) -> Layer3 {
    ipv4(destination, IpNumber::ICMP, &[], &[8, 0, 0, 0, 0, 1, 0, 1])
}

/// `options` are a multiple of four bytes, at most 40.
pub(super) fn tcp4_with_options(destination: [u8; 4], options: &[u8]) -> Layer3 {
    ipv4(destination, IpNumber::TCP, options, &tcp())
}

/// `offset` in units of eight bytes.
pub(super) fn fragment4(destination: [u8; 4], offset: u16, more: bool) -> Layer3 {
    let payload = [0xaa; 24];
    let mut header = ipv4_header(destination, IpNumber::UDP, &[], payload.len());
    header.dont_fragment = false;
    header.more_fragments = more;
    header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
    ipv4_bytes(header, &payload)
}

pub(super) fn tcp6(destination: [u8; 16]) -> Layer3 {
    ipv6(destination, IpNumber::TCP, 64, &tcp())
}

pub(super) fn udp6(destination: [u8; 16]) -> Layer3 {
    ipv6(destination, IpNumber::UDP, 64, &udp())
}

pub(super) fn empty6(destination: [u8; 16]) -> Layer3 {
    ipv6(destination, IpNumber::IPV6_NO_NEXT_HEADER, 64, &[])
}

/// TCP behind hop-by-hop and destination options.
pub(super) fn tcp6_with_extensions(destination: [u8; 16]) -> Layer3 {
    let options = [1, 4, 0, 0, 0, 0];
    let hop_by_hop =
        Ipv6RawExtHeader::new_raw(IpNumber::IPV6_DESTINATION_OPTIONS, &options).unwrap();
    let for_destination = Ipv6RawExtHeader::new_raw(IpNumber::TCP, &options).unwrap();
    let mut payload = hop_by_hop.to_bytes().to_vec();
    payload.extend(for_destination.to_bytes());
    payload.extend(tcp());
    ipv6(destination, IpNumber::IPV6_HEADER_HOP_BY_HOP, 64, &payload)
}

/// `offset` in units of eight bytes.
pub(super) fn fragment6(destination: [u8; 16], offset: u16, more: bool) -> Layer3 {
    let header = Ipv6FragmentHeader {
        next_header: IpNumber::UDP,
        fragment_offset: IpFragOffset::try_new(offset).unwrap(),
        more_fragments: more,
        identification: 7,
    };
    let mut payload = header.to_bytes().to_vec();
    payload.extend([0xaa; 24]);
    ipv6(destination, IpNumber::IPV6_FRAGMENTATION_HEADER, 64, &payload)
}

/// An ICMPv6 message of this type and code, with 20 bytes behind its checksum.
pub(super) fn icmp6(destination: [u8; 16], kind: u8, code: u8, hop_limit: u8) -> Layer3 {
    let mut message = vec![kind, code, 0, 0];
    message.extend([0; 20]);
    ipv6(destination, IpNumber::IPV6_ICMP, hop_limit, &message)
}

/// With the source link-layer address option.
pub(super) fn solicitation(destination: [u8; 16], target: [u8; 16]) -> Layer3 {
    let mut payload = target.to_vec();
    payload.extend([1, 1]);
    payload.extend(CLIENT_MAC);
    let mut message = Icmpv6Header::new(Icmpv6Type::NeighborSolicitation).to_bytes().to_vec();
    message.extend(payload);
    ipv6(destination, IpNumber::IPV6_ICMP, 255, &message)
}

/// The solicited-node address of every target that ends in 00:0010 (RFC 4291 §2.7.1).
pub(super) const SOLICITED_NODE_ADDRESS: [u8; 16] =
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0x10];

pub(super) fn arp(operation: ArpOperation, sender: [u8; 4], target: [u8; 4]) -> Layer3 {
    let packet = ArpPacket::from(ArpEthIpv4Packet {
        operation,
        sender_mac: CLIENT_MAC,
        sender_ipv4: sender,
        target_mac: [0; 6],
        target_ipv4: target,
    });
    Layer3 { ether_type: EtherType::ARP, bytes: packet.to_bytes().to_vec() }
}

pub(super) fn arp_request(target: [u8; 4]) -> Layer3 {
    arp(ArpOperation::REQUEST, CLIENT4, target)
}

fn tcp() -> Vec<u8> {
    TcpHeader::new(40_000, 80, 1, 65_535).to_bytes().to_vec()
}

fn udp() -> Vec<u8> {
    let mut datagram =
        UdpHeader { source_port: 40_000, destination_port: 53, length: 12, ..UdpHeader::default() }
            .to_bytes()
            .to_vec();
    datagram.extend(*b"data");
    datagram
}

fn ipv4_header(
    destination: [u8; 4],
    protocol: IpNumber,
    options: &[u8],
    payload_len: usize,
) -> Ipv4Header {
    let mut header = Ipv4Header::new(0, 64, protocol, CLIENT4, destination).unwrap();
    header.options = options.try_into().unwrap();
    header.set_payload_len(payload_len).unwrap();
    header
}

fn ipv4(destination: [u8; 4], protocol: IpNumber, options: &[u8], payload: &[u8]) -> Layer3 {
    ipv4_bytes(ipv4_header(destination, protocol, options, payload.len()), payload)
}

fn ipv4_bytes(mut header: Ipv4Header, payload: &[u8]) -> Layer3 {
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(payload);
    Layer3 { ether_type: EtherType::IPV4, bytes }
}

fn ipv6(destination: [u8; 16], next: IpNumber, hop_limit: u8, payload: &[u8]) -> Layer3 {
    let header = Ipv6Header {
        payload_length: u16::try_from(payload.len()).unwrap(),
        next_header: next,
        hop_limit,
        source: CLIENT6,
        destination,
        ..Ipv6Header::default()
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(payload);
    Layer3 { ether_type: EtherType::IPV6, bytes }
}
