//! Datagrams in fragments: in any order and on any worker all of them go to one backend, and those
//! that cannot be placed cost a bounded number of frames for a bounded time.

use std::collections::BTreeMap;
use std::time::Duration;

use etherparse::IpNumber;
use proptest::prelude::*;

use super::frames::Client;
use super::kit::{EVERY_SCHEDULER, Health, Node, Outcome, Site, Sizes, VIP, VIP6};
use super::verdicts::{MANY, case, check, forwarded, site, web, web6};
use crate::addr::Addr;
use crate::fragments::WaitingRoom;
use crate::key::Protocol;
use crate::scheduler::SchedulerKind;
use crate::verdict::DropReason;

const WORKERS: usize = 4;
const LONGEST: Duration = WaitingRoom::<Vec<u8>>::LONGEST;
const MOST: usize = WaitingRoom::<Vec<u8>>::MOST;

/// Two UDP services on each VIP, with three backends each.
fn datagrams(kind: SchedulerKind, persistent: bool) -> Site {
    let mut site = Site::default();
    site.vip(VIP, 0, None).vip(VIP6, 0, None);
    for (vip, port, net) in [(VIP, 53, 1), (VIP, 54, 2), (VIP6, 53, 3), (VIP6, 54, 4)] {
        site.service(vip, Protocol::Udp, (port, port), kind);
        if persistent {
            site.persistent(50);
        }
        for last in 1..4 {
            site.backend(Addr::from_v4([172, 16, net, last]), 1);
        }
    }
    site
}

/// Lets all workers look, until none has news.
fn release(node: &mut Node) -> Vec<(Outcome, Vec<u8>)> {
    node.now = node.now + Duration::from_millis(1);
    (0..node.workers.len()).flat_map(|worker| node.release(worker)).collect()
}

/// The datagram that a frame of [`Client::datagram`] belongs to: source and identification.
fn datagram_of(frame: &[u8]) -> Vec<u8> {
    match frame[12] {
        0x08 => [&frame[18..20], &frame[26..30]].concat(),
        _ => [&frame[58..62], &frame[22..38]].concat(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn all_fragments_follow_the_first_in_any_order_on_any_worker(
        kind in prop::sample::select(EVERY_SCHEDULER.to_vec()),
        persistent: bool,
        datagrams_of in prop::collection::vec(
            (0..3_u32, 0..4_u16, 2..7_usize, any::<bool>(), any::<bool>()), 1..12,
        ),
        order in prop::collection::vec(any::<(u32, prop::sample::Index)>(), 72),
    ) {
        let mut node = Node::new(datagrams(kind, persistent));
        let mut frames = Vec::new();
        for (id, (client, port, count, v6, other)) in (7..).zip(datagrams_of) {
            let client = if v6 { Client::v6(client, VIP6) } else { Client::new(client, VIP) };
            let client = client.from(1000 + port).to(if other { 54 } else { 53 });
            frames.extend(client.datagram(id, count));
        }
        let total = frames.len();
        let mut order: Vec<_> = order.into_iter().zip(frames).collect();
        order.sort_by_key(|((place, _), _)| *place);
        let mut went = Vec::new();
        for ((_, worker), frame) in order {
            let worker = worker.index(WORKERS);
            let outcome = node.send(worker, frame.clone());
            if outcome != Outcome::Waits {
                went.push((outcome, frame));
            }
            // Some look at once, others when nothing comes any more.
            if worker == 0 {
                went.extend(release(&mut node));
            }
        }
        went.extend(release(&mut node));
        let mut places = BTreeMap::<Vec<u8>, Outcome>::new();
        prop_assert_eq!(went.len(), total);
        for (outcome, frame) in went {
            prop_assert!(matches!(outcome, Outcome::To(_)), "{:?}", outcome);
            let place = places.entry(datagram_of(&frame)).or_insert_with(|| outcome.clone());
            prop_assert_eq!(&outcome, &*place);
        }
        prop_assert_eq!(node.total(|totals| &totals.forwarded), total as u64);
        node.check_equation();
    }
}

#[test]
fn without_the_first_one_the_others_wait_for_a_bounded_time() {
    let mut node = Node::new(datagrams(SchedulerKind::Maglev, false));
    let [_, second, third] = &Client::new(1, VIP).to(53).datagram(9, 3)[..] else { panic!() };
    assert_eq!(node.send(0, second.clone()), Outcome::Waits);
    node.check_equation();
    node.now = node.now + (LONGEST - Duration::from_millis(2));
    assert_eq!(node.send(1, third.clone()), Outcome::Waits);
    assert_eq!(release(&mut node), [], "not yet");
    let [(outcome, frame)] = &release(&mut node)[..] else { panic!("its time is over") };
    assert_eq!((outcome, frame), (&Outcome::Dropped(DropReason::Fragment), second));
    node.now = node.now + LONGEST;
    assert_eq!(release(&mut node).len(), 1);
    assert_eq!(node.dropped(DropReason::Fragment), 2);
    node.check_equation();
}

/// A hundred thousand fragments of datagrams that have no beginning, from as many sources, and
/// datagrams in disorder meanwhile: these arrive, those cost 256 frames.
#[test]
fn a_flood_of_fragments_costs_a_bounded_number_of_frames() {
    let mut node = Node::new(datagrams(SchedulerKind::Maglev, false));
    let stray = Client::new(1, VIP).to(53).datagram(9, 2)[1].clone();
    let mut rejected = 0;
    for round in 0..1_600_u32 {
        let mut burst: Vec<Vec<u8>> = (0..62).map(|_| stray.clone()).collect();
        for (frame, at) in burst.iter_mut().zip(0..) {
            super::frames::set_source(frame, 0x10_0000 + round * 64 + at);
        }
        let client = Client::new(round % 50, VIP).to(53).from(2000 + u16::try_from(round).unwrap());
        let mut own = client.datagram(round, 2);
        own.reverse();
        burst.splice(20..20, own);
        let outcomes = node.burst(0, &mut burst);
        assert_eq!(outcomes[20], Outcome::Waits);
        assert!(matches!(outcomes[21], Outcome::To(_)));
        node.now = node.now + Duration::from_micros(300);
        assert!(node.waiting[0].len() <= MOST);
        let released = node.release(0);
        let mine = released.iter().filter(|(outcome, _)| *outcome == outcomes[21]).count();
        assert_eq!(mine, 1, "round {round}: {released:?}");
        rejected += released.len() - mine;
        node.check_equation();
    }
    let full = node.dropped(DropReason::FragmentFull);
    assert_eq!(full + rejected as u64 + node.waiting[0].len() as u64, 1_600 * 62);
    assert!(full > 90_000, "{full}");
}

/// First fragments of 600,000 spoofed sources a second fill the table: it keeps nearly all of the
/// datagrams that are under way.
#[test]
fn a_flood_of_first_fragments_costs_few_datagrams() {
    let sizes = Sizes { datagrams: 1 << 12, workers: 2, ..Sizes::default() };
    let mut node = Node::sized(datagrams(SchedulerKind::Maglev, false), sizes);
    let first = Client::new(1, VIP).to(53).datagram(9, 2)[0].clone();
    let mut lost = 0;
    for round in 0..1_000_u32 {
        let [own_first, own_second] = &Client::new(round, VIP).to(54).datagram(1000 + round, 2)[..]
        else {
            panic!()
        };
        let backend = node.to(0, own_first.clone());
        for at in 0..60 {
            let mut frame = first.clone();
            super::frames::set_source(&mut frame, 0x10_0000 + round * 64 + at);
            node.to(0, frame);
        }
        let outcome = node.send(1, own_second.clone());
        assert!([Outcome::To(backend), Outcome::Waits].contains(&outcome), "{outcome:?}");
        lost += u32::from(outcome == Outcome::Waits);
        node.now = node.now + Duration::from_micros(100);
    }
    assert!(lost <= 30, "{lost} of 1000 datagrams");
    node.check_equation();
}

/// What no backend took is not waited for.
#[test]
fn the_others_of_a_first_one_that_was_refused_are_dropped_at_once() {
    let mut node = Node::new(datagrams(SchedulerKind::Maglev, false));
    let [first, second, third] = &Client::new(1, VIP).to(55).datagram(9, 3)[..] else { panic!() };
    assert_eq!(node.send(1, third.clone()), Outcome::Waits);
    assert_eq!(node.send(0, first.clone()), Outcome::Dropped(DropReason::NotVipPort));
    assert_eq!(node.send(0, second.clone()), Outcome::Dropped(DropReason::Fragment));
    let released = release(&mut node);
    assert_eq!(released, [(Outcome::Dropped(DropReason::Fragment), third.clone())]);
    node.check_equation();
}

/// An identification that comes again is another datagram, and after a second it is forgotten.
#[test]
fn a_repeated_identification_follows_the_youngest() {
    let mut node = Node::new(datagrams(SchedulerKind::Rr, false));
    let mut backends = Vec::new();
    for port in [1, 2, 3] {
        let client = Client::new(1, VIP).to(53).from(port);
        let [first, second] = &client.datagram(9, 2)[..] else { panic!() };
        let backend = node.to(0, first.clone());
        assert_eq!(node.to(3, second.clone()), backend);
        backends.push(backend);
    }
    backends.sort_unstable();
    assert_eq!(backends, [0, 1, 2], "in turn");
    node.now = node.now + Duration::from_millis(1500);
    let late = Client::new(1, VIP).to(53).from(3).datagram(9, 2)[1].clone();
    assert_eq!(node.send(0, late), Outcome::Waits);
}

#[test]
fn a_backend_that_is_lost_meanwhile_gets_none() {
    let mut node = Node::new(datagrams(SchedulerKind::Maglev, false));
    let [first, second] = &Client::new(1, VIP).to(53).datagram(9, 2)[..] else { panic!() };
    let backend = node.to(0, first.clone());
    node.health(backend, Health::Reset);
    let down = Outcome::Dropped(DropReason::BackendDown);
    assert_eq!(node.send(1, second.clone()), down);
}

/// TCP that was fragmented on its way, as a SYN of a tunnel's client may be: its first fragment opens
/// the connection, the others follow.
#[test]
fn fragments_of_tcp_follow_the_first_one() {
    let mut node = Node::new(Site::forgetful(SchedulerKind::Rr, &[1, 1]));
    let client = Client::new(1, VIP);
    let backend = node.open((0, 1), client);
    let mut first = client.acked(200).data();
    // More fragments, identification 0x0909.
    first[18..22].copy_from_slice(&[9, 9, 0x20, 0]);
    let mut later = client.fragment(IpNumber::TCP);
    later[18..20].copy_from_slice(&[9, 9]);
    assert_eq!(node.send(3, later.clone()), Outcome::Waits);
    assert_eq!(node.to(1, first), backend);
    assert_eq!(node.to(2, later), backend);
    let [(outcome, _)] = &release(&mut node)[..] else { panic!() };
    assert_eq!(*outcome, Outcome::To(backend));
    assert_eq!(node.active(backend), 1, "it is a segment like others");
}

#[test]
fn fragments_follow_their_source_where_it_leaves_one_answer() {
    let udp: fn(&mut Node) = |node| {
        let _ = node.to(1, Client::new(2, VIP).udp());
        assert_eq!(node.to(1, web().udp()), 4);
    };
    let confirmed: fn(&mut Node) = |node| {
        let _ = node.to(1, Client::new(2, VIP).udp());
        assert_eq!(node.to(1, web().udp()), 4);
        assert_eq!(node.to(2, web().udp()), 4);
        node.pass(200);
    };
    let over6: fn(&mut Node) = |node| assert_eq!(node.to(1, web6().udp()), 11);
    let one_of_two: fn(&mut Node) =
        |node| assert_eq!(node.to(1, Client::new(1, MANY).to(54).udp()), 10);
    let tcp: fn(&mut Node) = |node| {
        let _ = node.open((1, 1), Client::new(2, VIP));
        assert_eq!(node.open((1, 2), web()), 1);
    };
    let many = Client::new(1, MANY);
    let (many_udp, many_tcp) = (many.fragment(IpNumber::UDP), many.fragment(IpNumber::TCP));
    check(
        vec![
            forwarded("after the first packet", udp, web().fragment(IpNumber::UDP), 4),
            forwarded("of a template", confirmed, web().fragment(IpNumber::UDP), 4),
            forwarded("of IPv6", over6, web6().fragment(IpNumber::UDP), 11),
            forwarded("of TCP", tcp, web().fragment(IpNumber::TCP), 1),
            case("two services, one known", one_of_two, many_udp.clone(), Outcome::Waits),
            case("two services, none known", |_| (), many_udp, Outcome::Waits),
            case("without persistence", |_| (), many_tcp, Outcome::Waits),
            case("before all others", |_| (), web6().fragment(IpNumber::UDP), Outcome::Waits),
        ],
        4,
    );
}

/// A fragment whose first one does not come goes where its source's template leads, if that is one
/// answer, else with one persistent service where a pick-up would.
#[test]
fn what_has_waited_in_vain_follows_its_source() {
    let mut node = Node::new(site());
    assert_eq!(node.to(1, Client::new(1, MANY).to(54).udp()), 10);
    for index in 1..100 {
        let client = Client::new(index, VIP);
        assert_eq!(node.send(0, client.fragment(IpNumber::TCP)), Outcome::Waits);
        node.now = node.now + LONGEST;
        let [(Outcome::To(slot), _)] = release(&mut node)[..] else { panic!() };
        assert_eq!(node.to(1, client.ack()), slot);
    }
    let mut after_all = |client: Client| {
        assert_eq!(node.send(0, client.fragment(IpNumber::UDP)), Outcome::Waits);
        node.now = node.now + LONGEST;
        release(&mut node).remove(0).0
    };
    assert_eq!(after_all(Client::new(1, MANY)), Outcome::To(10));
    assert_eq!(after_all(Client::new(2, MANY)), Outcome::Dropped(DropReason::Fragment));
}
