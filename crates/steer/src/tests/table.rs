//! Frame by frame: what it is, what is to become of it.

use etherparse::ArpOperation;

use super::frames::*;
use super::rig::*;
use crate::Outcome::{self, *};

/// One line of the table.
type Case = (&'static str, Vec<u8>, Outcome);

#[test]
fn every_frame_of_the_table() {
    let rig = Rig::new();
    for (description, frame, expected) in all() {
        assert_eq!(rig.run(&frame), (action_of(expected), expected), "{description}");
    }
}

#[test]
fn without_a_socket_active_becomes_unbound_and_nothing_else_changes() {
    let rig = Rig::new();
    rig.bind(false);
    for (description, frame, bound) in all() {
        let redirected = matches!(bound, Redirected | NeighbourRedirected);
        let expected = if redirected { Unbound } else { bound };
        assert_eq!(rig.run(&frame), (action_of(expected), expected), "{description}");
    }
}

#[test]
fn the_table_has_every_outcome() {
    for outcome in Outcome::ALL {
        // Only the second test above can see the one, and tests of known flows the other.
        let elsewhere = matches!(outcome, Unbound | Forwarded);
        assert!(
            elsewhere || all().iter().any(|(_, _, expected)| *expected == outcome),
            "{outcome:?}"
        );
    }
}

/// All lines; the oracle test truncates and mutates them.
pub(super) fn all() -> Vec<Case> {
    [ip(), tags(), neighbours(), other_hosts(), garbled()].concat()
}

fn ip() -> Vec<Case> {
    let group = [1, 0, 0x5e, 0, 0, 1];
    let mut padded = frame(&udp4(ACTIVE4));
    padded.resize(60, 0);
    let mut wrong_checksum = frame(&tcp4(ACTIVE4));
    wrong_checksum[24] ^= 0xff;
    vec![
        ("TCP to an active VIP", frame(&tcp4(ACTIVE4)), Redirected),
        ("UDP to an active VIP", frame(&udp4(ACTIVE4)), Redirected),
        ("echo request to an active VIP", frame(&ping4(ACTIVE4)), Redirected),
        ("short packet padded to 60 bytes", padded, Redirected),
        ("a wrong checksum is user space's business", wrong_checksum, Redirected),
        ("four bytes of IPv4 options", frame(&tcp4_with_options(ACTIVE4, &[1; 4])), Redirected),
        ("forty bytes of IPv4 options", frame(&tcp4_with_options(ACTIVE4, &[1; 40])), Redirected),
        ("first IPv4 fragment", frame(&fragment4(ACTIVE4, 0, true)), Redirected),
        ("last IPv4 fragment", frame(&fragment4(ACTIVE4, 100, false)), Redirected),
        ("TCP to a standby VIP", frame(&tcp4(STANDBY4)), Inactive),
        ("fragment to a standby VIP", frame(&fragment4(STANDBY4, 100, false)), Inactive),
        ("TCP to the VIP of this interface", frame(&tcp4(HERE4)), Redirected),
        ("TCP to the VIP of another interface", frame(&tcp4(ELSEWHERE4)), OtherInterface),
        ("TCP to the node itself", frame(&tcp4(NODE4)), Passed),
        ("active VIP, Ethernet broadcast", tagged(BROADCAST, &[], &udp4(ACTIVE4)), Group),
        ("active VIP, Ethernet multicast", tagged(group, &[], &udp4(ACTIVE4)), Group),
        ("standby VIP, Ethernet broadcast", tagged(BROADCAST, &[], &udp4(STANDBY4)), Group),
        ("the node, Ethernet broadcast", tagged(BROADCAST, &[], &udp4(NODE4)), Passed),
        ("VRRP advertisement", tagged(group, &[], &udp4([224, 0, 0, 18])), Passed),
        ("TCP to an active VIP, IPv6", frame(&tcp6(ACTIVE6)), Redirected),
        ("UDP to an active VIP, IPv6", frame(&udp6(ACTIVE6)), Redirected),
        ("IPv6 without payload", frame(&empty6(ACTIVE6)), Redirected),
        ("IPv6 extension headers", frame(&tcp6_with_extensions(ACTIVE6)), Redirected),
        ("first IPv6 fragment", frame(&fragment6(ACTIVE6, 0, true)), Redirected),
        ("last IPv6 fragment", frame(&fragment6(ACTIVE6, 100, false)), Redirected),
        ("echo request, IPv6", frame(&icmp6(ACTIVE6, 128, 0, 64)), Redirected),
        ("packet too big, IPv6", frame(&icmp6(ACTIVE6, 2, 0, 64)), Redirected),
        ("TCP to a standby VIP, IPv6", frame(&tcp6(STANDBY6)), Inactive),
        ("TCP to the VIP of this interface, IPv6", frame(&tcp6(HERE6)), Redirected),
        ("TCP to the VIP of another interface, IPv6", frame(&tcp6(ELSEWHERE6)), OtherInterface),
        ("TCP to the node itself, IPv6", frame(&tcp6(NODE6)), Passed),
        (
            "active VIP, Ethernet multicast, IPv6",
            tagged(SOLICITED_NODE, &[], &udp6(ACTIVE6)),
            Group,
        ),
        ("IPv6 to the mapped address of an IPv4 VIP", frame(&tcp6(mapped(ACTIVE4))), Passed),
        ("IPv6 to that of a standby VIP", frame(&tcp6(mapped(STANDBY4))), Passed),
    ]
}

fn tags() -> Vec<Case> {
    let to = |tags: &[u16], inner: &Layer3| tagged(OUR_MAC, tags, inner);
    vec![
        ("one VLAN tag", to(&[VLAN], &tcp4(ACTIVE4)), Redirected),
        ("one VLAN tag, standby", to(&[VLAN], &tcp4(STANDBY4)), Inactive),
        ("one VLAN tag, IPv6", to(&[VLAN], &tcp6(ACTIVE6)), Redirected),
        ("one service tag", to(&[QINQ], &tcp4(ACTIVE4)), Redirected),
        ("QinQ", to(&[QINQ, VLAN], &tcp4(ACTIVE4)), Redirected),
        ("QinQ, IPv6", to(&[QINQ, VLAN], &tcp6(ACTIVE6)), Redirected),
        ("two VLAN tags", to(&[VLAN, VLAN], &tcp4(ACTIVE4)), Redirected),
        ("two VLAN tags, the node", to(&[VLAN, VLAN], &tcp4(NODE4)), Passed),
        ("three tags", to(&[QINQ, VLAN, VLAN], &tcp4(ACTIVE4)), Passed),
        ("ARP in a VLAN", tagged(BROADCAST, &[VLAN], &arp_request(ACTIVE4)), NeighbourRedirected),
        (
            "ARP in QinQ",
            tagged(BROADCAST, &[QINQ, VLAN], &arp_request(STANDBY4)),
            NeighbourInactive,
        ),
    ]
}

fn other_hosts() -> Vec<Case> {
    let to = |inner: &Layer3| tagged(OTHER_MAC, &[], inner);
    let differing = |at: usize| {
        let mut mac = OUR_MAC;
        mac[at] ^= 0x80;
        ("active VIP, one byte of the MAC differs", tagged(mac, &[], &tcp4(ACTIVE4)), OtherHost)
    };
    let cases = [
        ("active VIP, MAC of another host", to(&tcp4(ACTIVE4)), OtherHost),
        ("a standby's", to(&tcp4(STANDBY4)), OtherHost),
        ("active VIP, IPv6", to(&udp6(ACTIVE6)), OtherHost),
        ("in a VLAN", tagged(OTHER_MAC, &[VLAN], &tcp4(ACTIVE4)), OtherHost),
        ("a fragment", to(&fragment4(ACTIVE4, 100, false)), OtherHost),
        ("VIP of another interface", to(&tcp4(ELSEWHERE4)), OtherInterface),
        ("no VIP", to(&tcp4(NODE4)), Passed),
        ("ARP request that asks another host", to(&arp_request(ACTIVE4)), OtherHost),
        ("the same for a standby VIP", to(&arp_request(STANDBY4)), OtherHost),
        ("solicitation of another host", to(&solicitation(ACTIVE6, ACTIVE6)), OtherHost),
    ];
    cases.into_iter().chain((0..6).map(differing)).collect()
}

fn neighbours() -> Vec<Case> {
    let arp_to_all = |inner: &Layer3| tagged(BROADCAST, &[], inner);
    let reply = |sender, target| frame(&arp(ArpOperation::REPLY, sender, target));
    let solicit =
        |target| tagged(SOLICITED_NODE, &[], &solicitation(SOLICITED_NODE_ADDRESS, target));
    let mut foreign_hardware = arp_to_all(&arp_request(ACTIVE4));
    foreign_hardware[15] = 6;
    let mut far_away = solicit(ACTIVE6);
    far_away[14 + 7] = 64;
    let mut wrong_code = solicit(ACTIVE6);
    wrong_code[14 + 40 + 1] = 1;
    vec![
        ("ARP request for an active VIP", arp_to_all(&arp_request(ACTIVE4)), NeighbourRedirected),
        ("the same, to our MAC", frame(&arp_request(ACTIVE4)), NeighbourRedirected),
        ("for a standby VIP", arp_to_all(&arp_request(STANDBY4)), NeighbourInactive),
        ("for the VIP of this interface", arp_to_all(&arp_request(HERE4)), NeighbourRedirected),
        ("for that of another interface", arp_to_all(&arp_request(ELSEWHERE4)), OtherInterface),
        ("for the node", arp_to_all(&arp_request(NODE4)), Passed),
        ("ARP reply from an active VIP", reply(ACTIVE4, NODE4), Passed),
        ("ARP reply to an active VIP", reply(NODE4, ACTIVE4), Passed),
        ("ARP reply to a standby VIP", reply(NODE4, STANDBY4), Passed),
        (
            "gratuitous ARP request, active",
            arp_to_all(&arp(ArpOperation::REQUEST, ACTIVE4, ACTIVE4)),
            Passed,
        ),
        (
            "gratuitous ARP request, standby",
            arp_to_all(&arp(ArpOperation::REQUEST, STANDBY4, STANDBY4)),
            Passed,
        ),
        (
            "gratuitous ARP reply, standby",
            arp_to_all(&arp(ArpOperation::REPLY, STANDBY4, STANDBY4)),
            Passed,
        ),
        ("ARP for another hardware", foreign_hardware, Passed),
        ("NS for an active VIP", solicit(ACTIVE6), NeighbourRedirected),
        (
            "NS to the VIP's own address",
            frame(&solicitation(ACTIVE6, ACTIVE6)),
            NeighbourRedirected,
        ),
        ("NS for a standby VIP", solicit(STANDBY6), NeighbourInactive),
        ("NS to the standby VIP", frame(&solicitation(STANDBY6, STANDBY6)), NeighbourInactive),
        ("NS for the VIP of another interface", solicit(ELSEWHERE6), OtherInterface),
        ("NS for the node", solicit(NODE6), Passed),
        ("NS for the node, sent to a VIP", frame(&solicitation(ACTIVE6, NODE6)), Passed),
        ("NS for the mapped address of a VIP", solicit(mapped(ACTIVE4)), Passed),
        ("NS that crossed a router", far_away, Passed),
        ("NS with a code", wrong_code, Passed),
        ("neighbour advertisement to a VIP", frame(&icmp6(ACTIVE6, 136, 0, 255)), Passed),
        ("router advertisement to a VIP", frame(&icmp6(ACTIVE6, 134, 0, 255)), Passed),
        ("redirect to a standby VIP", frame(&icmp6(STANDBY6, 137, 0, 255)), Passed),
        ("the type before ND", frame(&icmp6(ACTIVE6, 132, 0, 255)), Redirected),
        ("the type behind ND", frame(&icmp6(ACTIVE6, 138, 0, 255)), Redirected),
    ]
}

fn garbled() -> Vec<Case> {
    let broken = |mut frame: Vec<u8>, at: usize, value: u8| {
        frame[at] = value;
        frame
    };
    let cut = |mut frame: Vec<u8>, len: usize| {
        frame.truncate(len);
        frame
    };
    let v4 = || frame(&tcp4(ACTIVE4));
    let v6 = || frame(&tcp6(ACTIVE6));
    let ns = || frame(&solicitation(ACTIVE6, ACTIVE6));
    vec![
        ("nothing behind Ethernet", cut(v4(), 14), Malformed),
        ("nothing behind Ethernet, unknown type", frame(&other(0x88cc, &[])), Passed),
        ("LLDP", frame(&other(0x88cc, &[0; 46])), Passed),
        ("IEEE 802.3 length", frame(&other(38, &[0x42, 0x42, 3])), Passed),
        ("cut VLAN tag", cut(tagged(OUR_MAC, &[VLAN], &tcp4(ACTIVE4)), 17), Malformed),
        ("cut second tag", cut(tagged(OUR_MAC, &[QINQ, VLAN], &tcp4(ACTIVE4)), 21), Malformed),
        ("cut IPv4 header", cut(v4(), 33), Malformed),
        ("IPv4 header only, total length of more", cut(v4(), 34), Malformed),
        ("IPv4 version 6", broken(v4(), 14, 0x65), Malformed),
        ("IPv4 version 0", broken(v4(), 14, 0x05), Malformed),
        ("IPv4 IHL 4", broken(v4(), 14, 0x44), Malformed),
        ("IPv4 IHL 15 beyond total length", broken(v4(), 14, 0x4f), Malformed),
        ("IPv4 total length below the header", broken(v4(), 17, 19), Malformed),
        ("IPv4 total length of the header", broken(v4(), 17, 20), Redirected),
        ("IPv4 total length beyond the frame", broken(v4(), 17, 41), Malformed),
        ("cut IPv6 header", cut(v6(), 53), Malformed),
        ("IPv6 version 4", broken(v6(), 14, 0x40), Malformed),
        ("IPv6 payload beyond the frame", broken(v6(), 19, 21), Malformed),
        ("IPv6 payload within the frame", broken(v6(), 19, 19), Redirected),
        ("cut ARP", cut(frame(&arp_request(ACTIVE4)), 41), Malformed),
        ("ARP of eight bytes", cut(frame(&arp_request(ACTIVE4)), 22), Malformed),
        ("ARP of seven bytes", cut(frame(&arp_request(ACTIVE4)), 21), Malformed),
        ("NS without its whole target", broken(ns(), 19, 23), Malformed),
        ("NS without options", broken(ns(), 19, 24), NeighbourRedirected),
        ("ICMPv6 without a type", broken(ns(), 19, 0), Redirected),
    ]
}
