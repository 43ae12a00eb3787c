//! A table: what is there, which frame comes, what becomes of it, and which counters move.

use etherparse::IpNumber;

use super::frames::{CLIENT_MAC, Client, FIN, SYN, tagged};
use super::kit::{Node, Outcome, Site, Sizes, VIP, VIP6, backend_mac, own_mac};
use crate::addr::{Addr, Mac};
use crate::key::Protocol;
use crate::packet;
use crate::scheduler::SchedulerKind;
use crate::slots::{BackendSlot, PortId, ServiceSlot};
use crate::tick::Tick;
use crate::verdict::DropReason;

/// Not active here.
const COLD: Addr = Addr::from_v4([192, 0, 2, 20]);
/// Its only backend has weight 0.
const EMPTY: Addr = Addr::from_v4([192, 0, 2, 30]);
/// Lives on port 1 only, and its backend is reached by it.
const FAR: Addr = Addr::from_v4([192, 0, 2, 40]);
/// Has a range, and two persistent UDP services.
pub(super) const MANY: Addr = Addr::from_v4([192, 0, 2, 50]);
const NOBODY: Addr = Addr::from_v4([192, 0, 2, 99]);

/// Slots 0–1: `VIP`, TCP 80; 2: `VIP6`, TCP 80; 3–4: `VIP`, any UDP; 5: `COLD`; 6: `EMPTY`;
/// 7: `FAR`; 8: `MANY`, TCP 8000–8100 without persistence; 9: `MANY`, UDP 53; 10: `MANY`, UDP 54;
/// 11: `VIP6`, any UDP.
pub(super) fn site() -> Site {
    let rr = SchedulerKind::Rr;
    let mut site = Site::web(rr, &[1, 1]);
    let backend = |last| Addr::from_v4([172, 16, 1, last]);
    let web = (80, 80);
    site.vip(VIP6, 0, None).vip(COLD, 1, None).vip(EMPTY, 0, None).vip(MANY, 0, None);
    site.vip(FAR, 0, Some(PortId(1)));
    site.service(VIP6, Protocol::Tcp, web, rr).persistent(50).backend(backend(2), 1);
    site.service(VIP, Protocol::Udp, (0, 65_535), rr).persistent(50);
    site.backend(backend(3), 1).backend(backend(4), 1);
    site.service(COLD, Protocol::Tcp, web, rr).backend(backend(5), 1);
    site.service(EMPTY, Protocol::Tcp, web, rr).backend(backend(6), 0);
    site.service(FAR, Protocol::Tcp, web, rr).backend(backend(7), 1);
    site.backends[7].port = PortId(1);
    site.service(MANY, Protocol::Tcp, (8000, 8100), rr).backend(backend(8), 1);
    site.service(MANY, Protocol::Udp, (53, 53), rr).persistent(50).backend(backend(9), 1);
    site.service(MANY, Protocol::Udp, (54, 54), rr).persistent(50).backend(backend(10), 1);
    site.service(VIP6, Protocol::Udp, (0, 65_535), rr).persistent(50).backend(backend(11), 1);
    site
}

/// What is there, what comes to worker 0, what becomes of it.
pub(super) struct Case {
    what: &'static str,
    given: fn(&mut Node),
    frame: Vec<u8>,
    outcome: Outcome,
}

pub(super) fn case(
    what: &'static str,
    given: fn(&mut Node),
    frame: Vec<u8>,
    outcome: Outcome,
) -> Case {
    Case { what, given, frame, outcome }
}

pub(super) fn dropped(what: &'static str, frame: Vec<u8>, reason: DropReason) -> Case {
    case(what, |_| (), frame, Outcome::Dropped(reason))
}

pub(super) fn forwarded(
    what: &'static str,
    given: fn(&mut Node),
    frame: Vec<u8>,
    slot: u16,
) -> Case {
    case(what, given, frame, Outcome::To(slot))
}

pub(super) fn check(cases: Vec<Case>, workers: usize) {
    for Case { what, given, frame, outcome } in cases {
        let mut node = Node::sized(site(), Sizes { workers, ..Sizes::default() });
        given(&mut node);
        let before = tally(&node, &outcome);
        let len = frame.len() as u64;
        assert_eq!(node.send(0, frame), outcome, "{what}");
        let after = tally(&node, &outcome);
        let moved: Vec<u64> =
            after.iter().zip(before).map(|(after, before)| after - before).collect();
        let expected = match outcome {
            Outcome::To(_) => [0, 0, 1, len, 1, len],
            Outcome::Answered | Outcome::HandedOver | Outcome::Waits => [0; 6],
            Outcome::Dropped(_) => [1, 1, 0, 0, 0, 0],
        };
        assert_eq!(moved, expected, "{what}");
        node.check_equation();
    }
}

/// Drops for the reason and in all, packets and bytes to the backend, and to its service.
fn tally(node: &Node, outcome: &Outcome) -> [u64; 6] {
    let all = DropReason::ALL.iter().map(|&reason| node.dropped(reason)).sum();
    let mut tally = [0, all, 0, 0, 0, 0];
    match outcome {
        Outcome::Dropped(reason) => tally[0] = node.dropped(*reason),
        Outcome::To(slot) => {
            let counters = &node.counters[0];
            let backend = counters.backend(BackendSlot(*slot));
            let service = node.snapshot.next_hop(BackendSlot(*slot)).service;
            let service = counters.service(service);
            tally[2..].copy_from_slice(&[
                backend.packets.value(),
                backend.bytes.value(),
                service.packets.value(),
                service.bytes.value(),
            ]);
        }
        Outcome::Answered | Outcome::HandedOver | Outcome::Waits => {}
    }
    tally
}

pub(super) fn web() -> Client {
    Client::new(1, VIP)
}

pub(super) fn web6() -> Client {
    Client::v6(1, VIP6)
}

#[test]
fn every_reason_that_bytes_can_give() {
    use DropReason::*;
    let cut = |frame: Vec<u8>, len| frame[..len].to_vec();
    let to = |vip| Client::new(1, vip);
    check(
        vec![
            dropped("nothing", vec![], Malformed),
            dropped("half an Ethernet header", cut(web().syn(), 9), Malformed),
            dropped("half an IP header", cut(web().syn(), 30), Malformed),
            dropped("half a TCP header", cut(web6().syn(), 70), Malformed),
            dropped("half an ARP request", cut(web().who_has(), 30), Malformed),
            dropped("SYN to an inactive VIP", to(COLD).syn(), Inactive),
            dropped("ACK to an inactive VIP", to(COLD).ack(), Inactive),
            dropped("echo request to an inactive VIP", to(COLD).echo(), Inactive),
            dropped("ARP for an inactive VIP", to(COLD).who_has(), Inactive),
            dropped("SYN to nobody", to(NOBODY).syn(), NotVip),
            dropped("datagram to nobody", to(NOBODY).udp(), NotVip),
            dropped("fragment to nobody", to(NOBODY).fragment(IpNumber::UDP), NotVip),
            dropped("ICMP error to nobody", to(NOBODY).too_big(IpNumber::TCP), NotVip),
            dropped("echo request to nobody", to(NOBODY).echo(), NotVip),
            dropped("ARP for nobody", to(NOBODY).who_has(), NotVip),
            dropped("ARP for a VIP of another port", to(FAR).who_has(), NotVip),
            dropped("echo request to a VIP of another port", to(FAR).echo(), NotVip),
            dropped("SYN to another port", web().to(81).syn(), NotVipPort),
            dropped("ACK to another port", web6().to(81).ack(), NotVipPort),
            dropped("datagram to a TCP service", to(EMPTY).udp(), NotVipPort),
            dropped("below the range", to(MANY).to(7999).syn(), NotVipPort),
            dropped("above the range", to(MANY).to(8101).syn(), NotVipPort),
            dropped("fragment without a service", to(EMPTY).fragment(IpNumber::UDP), NotVipPort),
            dropped("fragment to an inactive VIP", to(COLD).fragment(IpNumber::TCP), Inactive),
            dropped("SYN without a backend", to(EMPTY).syn(), NoBackend),
            dropped("ACK without a backend", to(EMPTY).ack(), NoBackend),
            dropped("FIN without a backend", to(EMPTY).fin(), NoBackend),
            dropped("our own frame", web().mac(own_mac(PortId(0))).syn(), Loop),
            dropped("our own other port's", web().mac(own_mac(PortId(1))).udp(), Loop),
            dropped("SCTP", web().other(IpNumber::SCTP), Unsupported),
            dropped("OSPF over IPv6", web6().other(IpNumber::OSPFIGP), Unsupported),
            dropped("GRE fragment", web().fragment(IpNumber::GRE), Unsupported),
        ],
        4,
    );
}

#[test]
fn services_are_found_by_address_protocol_and_port() {
    let many = |port| Client::new(1, MANY).to(port);
    let backend_of_another = web().mac(backend_mac(BackendSlot(8)));
    let one_tag = [0x81, 0x00, 0x20, 0x64];
    check(
        vec![
            forwarded("TCP", |_| (), web().syn(), 0),
            forwarded("TCP with a tag", |_| (), tagged(&web().syn(), &one_tag), 0),
            forwarded("TCP over IPv6", |_| (), web6().syn(), 2),
            forwarded("UDP, port 0", |_| (), web().to(0).udp(), 3),
            forwarded("UDP, port 80", |_| (), web().to(80).udp(), 3),
            forwarded("UDP, port 65535", |_| (), web().to(65_535).udp(), 3),
            forwarded("UDP over IPv6", |_| (), web6().to(443).udp(), 11),
            forwarded("first port of a range", |_| (), many(8000).syn(), 8),
            forwarded("within a range", |_| (), many(8050).syn(), 8),
            forwarded("last port of a range", |_| (), many(8100).syn(), 8),
            forwarded("the first of two neighbours", |_| (), many(53).udp(), 9),
            forwarded("the second of two neighbours", |_| (), many(54).udp(), 10),
            forwarded("by another port", |_| (), Client::new(1, FAR).syn(), 7),
            forwarded("a backend as a client of another VIP", |_| (), backend_of_another.syn(), 0),
            forwarded("SYN and FIN", |_| (), web().tcp(SYN | FIN), 0),
        ],
        1,
    );
}

#[test]
fn a_known_flow_whose_backend_is_out_of_reach() {
    let unreachable: fn(&mut Node) = |node| {
        assert_eq!(node.open((0, 0), web()), 0);
        node.set(0, |backend| backend.usable = false);
    };
    let datagrams: fn(&mut Node) = |node| {
        assert_eq!(node.to(0, web().udp()), 3);
        assert_eq!(node.to(0, web().udp()), 3);
        node.set(3, |backend| backend.usable = false);
    };
    let no_neighbour = Outcome::Dropped(DropReason::NoNeighbour);
    check(
        vec![
            case("ACK", unreachable, web().ack(), no_neighbour.clone()),
            case("FIN", unreachable, web().fin(), no_neighbour.clone()),
            case("RST", unreachable, web().rst(), no_neighbour.clone()),
            case("ICMP error", unreachable, web().too_big(IpNumber::TCP), no_neighbour),
            forwarded("SYN", unreachable, web().syn(), 1),
            forwarded("SYN of the next connection", unreachable, web().from(9).syn(), 1),
            forwarded("UDP starts anew", datagrams, web().udp(), 4),
        ],
        1,
    );
}

#[test]
fn errors_go_to_the_backend_of_the_flow() {
    let moved_on: fn(&mut Node) = |node| {
        assert_eq!(node.open((0, 0), web().from(7)), 0);
        assert_eq!(node.open((0, 0), Client::new(2, VIP)), 1);
    };
    let elsewhere: fn(&mut Node) = |node| {
        let _ = node.open((1, 1), Client::new(2, VIP));
        assert_eq!(node.open((1, 1), web()), 1);
    };
    let half_open: fn(&mut Node) = |node| assert_eq!(node.to(1, web().syn()), 0);
    let over6: fn(&mut Node) = |node| assert_eq!(node.open((0, 0), web6()), 2);
    let udp: fn(&mut Node) = |node| {
        assert_eq!(node.to(0, web().udp()), 3);
        assert_eq!(node.to(0, web().udp()), 3);
    };
    let many = Client::new(1, MANY).to(8000);
    check(
        vec![
            forwarded("a flow of this worker", moved_on, web().from(7).too_big(IpNumber::TCP), 0),
            forwarded("IPv6", over6, web6().too_big(IpNumber::TCP), 2),
            forwarded("UDP", udp, web().too_big(IpNumber::UDP), 3),
            forwarded("the source has a template", elsewhere, web().too_big(IpNumber::TCP), 1),
            forwarded("the source has a choice", half_open, web().too_big(IpNumber::TCP), 0),
            case(
                "another worker may know",
                |_| (),
                many.too_big(IpNumber::TCP),
                Outcome::HandedOver,
            ),
            case("IPv6 alike", |_| (), web6().too_big(IpNumber::TCP), Outcome::HandedOver),
        ],
        4,
    );
    // No other worker to ask: the hash that all share.
    check(vec![forwarded("the only worker", |_| (), many.too_big(IpNumber::TCP), 8)], 1);
}

#[test]
fn an_error_is_adopted_by_the_worker_that_holds_the_flow() {
    let mut site = site();
    site.backend(Addr::from_v4([172, 16, 2, 1]), 1);
    site.backends[12].service = 6;
    let mut node = Node::new(site);
    let many = |port| Client::new(1, MANY).to(8000).from(port);
    let first = node.open((2, 2), many(1));
    let second = node.open((2, 2), many(2));
    assert_ne!(first, second, "one connection per schedule");
    // What its worker announced to the others is forgotten: it has no time to announce it again.
    node.now = node.now + std::time::Duration::from_secs(200);
    for (client, backend) in [(many(1), first), (many(2), second)] {
        let mut error = client.too_big(IpNumber::TCP);
        assert_eq!(node.send(0, error.clone()), Outcome::HandedOver);
        for other in [1, 3] {
            let copy = &mut error.clone();
            assert_eq!(node.adopt(other, copy, false), Outcome::Dropped(DropReason::NoFlow));
            assert_eq!(*copy, error, "what is dropped is not changed");
        }
        let before = error.clone();
        assert_eq!(node.adopt(2, &mut error, false), Outcome::To(backend));
        assert_eq!(error[12..], before[12..]);
    }
    // If no worker holds it, the last one that is asked forwards it to where the hash would have it.
    let nobodys = &mut many(77).too_big(IpNumber::TCP);
    assert!(matches!(node.adopt(1, nobodys, true), Outcome::To(_)));
    // The lease is looked at again, and so is the neighbour.
    let error = many(1).too_big(IpNumber::TCP);
    node.lease(0, node.now);
    assert_eq!(node.adopt(2, &mut error.clone(), true), Outcome::Dropped(DropReason::Inactive));
    node.leases[0].store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
    node.set(first, |backend| backend.usable = false);
    assert_eq!(node.adopt(2, &mut error.clone(), true), Outcome::Dropped(DropReason::NoNeighbour));
    // Nothing but errors is handed over.
    for frame in [many(1).syn(), many(2).ack(), web().udp(), web().echo(), web().who_has(), vec![]]
    {
        assert_eq!(node.adopt(2, &mut frame.clone(), true), Outcome::Dropped(DropReason::NoFlow));
    }
    node.check_equation();
}

#[test]
fn questions_about_active_vips_are_answered() {
    let here = |vip| Client::new(1, vip);
    check(
        vec![
            case("ARP", |_| (), web().who_has(), Outcome::Answered),
            case("neighbour solicitation", |_| (), web6().who_has(), Outcome::Answered),
            case("ping", |_| (), web().echo(), Outcome::Answered),
            case("ping over IPv6", |_| (), web6().echo(), Outcome::Answered),
            case("a VIP without a backend", |_| (), here(EMPTY).who_has(), Outcome::Answered),
        ],
        4,
    );
    let mut node = Node::new(site());
    for question in [web().who_has(), web6().who_has(), web().echo(), web6().echo()] {
        let mut expected = [&question[..], &[0; packet::ANSWER_GROWTH]].concat();
        let len = packet::answer(&mut expected, question.len(), own_mac(PortId(0))).unwrap();
        let mut frames = vec![question];
        assert_eq!(node.burst(0, &mut frames), [Outcome::Answered]);
        assert_eq!(frames[0], expected[..len]);
        assert_eq!(packet::source_mac(&frames[0]), Some(own_mac(PortId(0))));
        assert_eq!(frames[0][..6], CLIENT_MAC.0);
    }
}

#[test]
fn on_a_shared_segment_one_port_tells_where_a_vip_is() {
    let mut node = Node::new(site());
    node.snapshot.silent_ports = vec![PortId(0)];
    for (question, expected) in [
        (web().who_has(), Outcome::Dropped(DropReason::Inactive)),
        (web6().who_has(), Outcome::Dropped(DropReason::Inactive)),
        (web().echo(), Outcome::Answered),
    ] {
        assert_eq!(node.burst(0, &mut vec![question]), [expected]);
    }
    node.snapshot.silent_ports = vec![PortId(1)];
    assert_eq!(node.burst(0, &mut vec![web().who_has()]), [Outcome::Answered]);
}

#[test]
fn a_question_that_must_not_be_answered_is_malformed() {
    let mut node = Node::new(site());
    let group = Mac([1, 0, 0x5e, 0, 0, 1]);
    for question in [web().mac(group).who_has(), web().mac(group).echo()] {
        assert_eq!(node.send(0, question), Outcome::Dropped(DropReason::Malformed));
    }
    assert_eq!(node.dropped(DropReason::Malformed), 2);
    node.check_equation();
}

#[test]
fn a_lease_decides_to_the_nanosecond() {
    let mut node = Node::new(site());
    let backend = node.open((0, 0), web());
    node.lease(0, node.now + std::time::Duration::from_nanos(1));
    assert_eq!(node.send(0, web().ack()), Outcome::To(backend));
    assert_eq!(node.send(0, web().who_has()), Outcome::Answered);
    node.lease(0, node.now);
    for frame in [web().ack(), web().syn(), web().echo(), web().who_has(), web().udp()] {
        assert_eq!(node.send(0, frame), Outcome::Dropped(DropReason::Inactive));
    }
    assert_eq!(node.dropped(DropReason::Inactive), 5);
    // The other instance has its own.
    node.lease(1, node.now + std::time::Duration::from_secs(1));
    assert_eq!(node.send(0, Client::new(1, COLD).syn()), Outcome::To(5));
    node.check_equation();
}

#[test]
fn a_refused_connection_is_booked_on_its_service() {
    let mut node = Node::new(site());
    let empty = Client::new(1, EMPTY);
    for frame in [empty.syn(), empty.ack(), empty.syn()] {
        assert_eq!(node.send(0, frame), Outcome::Dropped(DropReason::NoBackend));
    }
    assert_eq!(node.counters[0].service(ServiceSlot(4)).dropped.value(), 3);
}

/// A burst asks the loop guard once for the frames of one sender in a row.
#[test]
fn senders_that_alternate_in_a_burst_are_told_apart() {
    let mut node = Node::new(site());
    let to = node.open((0, 0), web());
    let backend = backend_mac(BackendSlot(0));
    let order = [false, true, true, false, false, true, false];
    let ack = |loops| if loops { web().mac(backend).ack() } else { web().ack() };
    let outcomes = node.burst(0, &mut order.map(ack).to_vec());
    let outcome = |loops| if loops { Outcome::Dropped(DropReason::Loop) } else { Outcome::To(to) };
    assert_eq!(outcomes, order.map(outcome));
    node.check_equation();
}

/// A burst counts the packets of one service in a row at once, and looks at the lease once for
/// them: however services alternate, all is counted, and a lease that ran out stops its own alone.
#[test]
fn services_that_alternate_in_a_burst_are_counted_apart() {
    let mut node = Node::new(site());
    node.lease(1, Tick::from_nanos(u64::MAX));
    let here = [VIP, VIP6, COLD].map(|vip| match vip {
        VIP6 => Client::v6(1, vip),
        _ => Client::new(1, vip),
    });
    let to = here.map(|client| node.open((0, 0), client));
    let service = |slot: u16| node.snapshot.next_hop(BackendSlot(slot)).service;
    let services = to.map(service);
    let counted = |node: &Node| {
        services.map(|slot| {
            let counters = node.counters[0].service(slot);
            (counters.packets.value(), counters.bytes.value())
        })
    };
    let order = [0, 0, 1, 2, 2, 2, 0, 1, 0, 2, 1, 1];
    let ack_len = here.map(|client| client.ack().len() as u64);
    for cold_is_active in [true, false] {
        node.lease(1, if cold_is_active { Tick::from_nanos(u64::MAX) } else { node.now });
        let before = counted(&node);
        let mut frames: Vec<_> = order.iter().map(|&at| here[at].ack()).collect();
        let outcomes = node.burst(0, &mut frames);
        for (&at, outcome) in order.iter().zip(&outcomes) {
            let stopped = at == 2 && !cold_is_active;
            let expected =
                if stopped { Outcome::Dropped(DropReason::Inactive) } else { Outcome::To(to[at]) };
            assert_eq!(*outcome, expected);
        }
        for (at, (before, after)) in before.into_iter().zip(counted(&node)).enumerate() {
            let passed = if at == 2 && !cold_is_active { 0 } else { 4 };
            assert_eq!(after, (before.0 + passed, before.1 + passed * ack_len[at]), "{at}");
        }
    }
    node.check_equation();
}
