//! Backends that are suspected or down: who goes elsewhere, and who stays.

use super::frames::Client;
use super::kit::{EVERY_SCHEDULER, Health, Node, Outcome, Site, VIP};
use crate::key::Protocol;
use crate::scheduler::SchedulerKind;
use crate::verdict::DropReason;

const UNWELL: [Health; 4] = [Health::Suspected, Health::Kept, Health::Reset, Health::Discarded];

/// Those of them that are a verdict.
const DECIDED: [Health; 3] = [Health::Kept, Health::Reset, Health::Discarded];

fn client() -> Client {
    Client::new(1, VIP)
}

/// With and without persistence.
const SITES: [fn(SchedulerKind, &[u32]) -> Site; 2] = [Site::web, Site::forgetful];

#[test]
fn a_retransmitted_syn_goes_elsewhere_and_all_follow() {
    for kind in EVERY_SCHEDULER {
        for (health, site) in UNWELL.iter().flat_map(|health| SITES.map(|site| (health, site))) {
            let mut node = Node::new(site(kind, &[1; 4]));
            let first = node.to(0, client().syn());
            node.health(first, *health);
            let second = node.to(1, client().syn());
            assert_ne!(second, first, "{kind:?} {health:?}");
            for worker in 0..4 {
                assert_eq!(node.to(worker, client().syn()), second, "{kind:?} {health:?}");
            }
            assert_eq!(node.to(2, client().ack()), second, "{kind:?} {health:?}");
            node.health(first, Health::Up);
            assert_eq!(node.to(2, client().ack()), second, "{kind:?} {health:?}");
            node.check_equation();
        }
    }
}

#[test]
fn persistence_follows_a_verdict() {
    for health in DECIDED {
        let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
        let first = node.open((0, 1), client());
        node.health(first, health);
        let second = node.open((2, 3), client().from(2));
        assert_ne!(second, first, "{health:?}");
        node.health(first, Health::Up);
        for port in 3..9 {
            let workers = (usize::from(port % 4), usize::from(port % 3));
            assert_eq!(node.open(workers, client().from(port)), second, "{health:?}");
        }
        assert_eq!(node.live_flows(client()), Some(7), "{health:?}: of the new template");
        node.check_equation();
    }
}

/// A suspicion detours a connection, if there is more to it than SYNs, and moves no template.
#[test]
fn no_suspicion_replaces_a_template() {
    for (health, detours) in [(Health::Suspected, true), (Health::Doubted, false)] {
        let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
        let first = node.open((0, 1), client());
        node.health(first, health);
        for port in 2..5 {
            let second = node.open((2, 3), client().from(port));
            assert_eq!(second != first, detours, "{health:?}");
            let other = Client::new(u32::from(port), VIP);
            assert_ne!(node.open((0, 0), other), first, "{health:?}: of another source");
        }
        node.health(first, Health::Up);
        for port in 5..9 {
            assert_eq!(node.open((2, 3), client().from(port)), first, "{health:?}");
        }
        for port in 2..5 {
            let there = node.to(1, client().from(port).ack()) == first;
            assert_eq!(there, !detours, "{health:?}: connections stay where they are");
        }
        node.check_equation();
    }
}

/// SYNs from forged addresses make one backend after the other suspected while its checks are slow
/// to say that it is well.
#[test]
fn forged_syns_move_nobody() {
    for kind in EVERY_SCHEDULER {
        let mut node = Node::new(Site::web(kind, &[1; 4]));
        let first = node.open((0, 1), client());
        for round in 0..12 {
            let health = [Health::Doubted, Health::Up][round % 2];
            (0..4).for_each(|slot| node.health(slot, Health::Up));
            node.health(first, health);
            let port = 100 + u16::try_from(round).unwrap();
            assert_eq!(node.open((round % 4, 2), client().from(port)), first, "{kind:?}");
            // A SYN on the established connection, and one for the client's address.
            assert_eq!(node.to(1, client().syn()), first, "{kind:?}");
            node.to(3, client().from(1000 + port).syn());
            assert_eq!(node.to(1, client().ack()), first, "{kind:?}");
            node.pass(7);
        }
        node.check_equation();
    }
}

/// The host is silent indeed: a client of its own tries again, and gets through.
#[test]
fn a_syn_that_is_sent_again_leaves_a_doubted_backend() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    let first = node.open((0, 1), client());
    node.health(first, Health::Doubted);
    assert_eq!(node.to(0, client().from(2).syn()), first);
    node.pass(1);
    let second = node.to(0, client().from(2).syn());
    assert_ne!(second, first);
    assert_eq!(node.to(2, client().from(2).ack()), second);
    node.health(first, Health::Reset);
    let third = node.open((0, 1), client().from(3));
    assert_ne!(third, first, "the verdict moves the source");
    node.check_equation();
}

/// The suspicion was false, and is over before the handshake is.
#[test]
fn a_connection_that_was_sent_elsewhere_stays_there() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    let first = node.open((0, 1), client());
    node.health(first, Health::Suspected);
    let second = node.to(0, client().from(2).syn());
    assert_ne!(second, first);
    node.health(first, Health::Up);
    assert_eq!(node.to(1, client().from(2).syn()), second, "its retransmission");
    assert_eq!(node.open((0, 2), client().from(3)), first, "another of the same source");
    assert_eq!(node.to(1, client().from(2).ack()), second, "its ACK");
    for worker in 0..4 {
        assert_eq!(node.to(worker, client().from(2).ack()), second, "it moves");
        assert_eq!(node.to(worker, client().ack()), first, "and so does the oldest");
    }
    node.check_equation();
}

/// Two connections of one source whose SYNs were before a suspicion, two whose SYNs were after it.
#[test]
fn every_handshake_under_way_ends_where_its_syn_went() {
    let orders = [[1, 2, 3, 4], [4, 3, 2, 1], [1, 3, 2, 4], [3, 1, 4, 2]];
    for (kind, order) in EVERY_SCHEDULER.iter().flat_map(|kind| orders.map(|order| (*kind, order)))
    {
        for site in SITES {
            for over in [false, true] {
                let mut node = Node::new(site(kind, &[1; 4]));
                let syn = |node: &mut Node, port| node.to(0, client().from(port).syn());
                let first = node.to(0, client().from(0).syn());
                let before = [1, 2].map(|port| syn(&mut node, port));
                for unwell in [first, before[0], before[1]] {
                    node.health(unwell, Health::Suspected);
                }
                let after = [3, 4].map(|port| syn(&mut node, port));
                assert!(!after.contains(&first), "{kind:?}");
                if over {
                    (0..4).for_each(|slot| node.health(slot, Health::Up));
                }
                let backends = [before, after].concat();
                for port in order {
                    let expected = backends[usize::from(port) - 1];
                    for _ in 0..2 {
                        let backend = node.to(1, client().from(port).ack());
                        assert_eq!(backend, expected, "{kind:?} {order:?}, over: {over}: {port}");
                    }
                }
                node.check_equation();
            }
        }
    }
}

#[test]
fn a_retransmission_follows_its_syn_not_its_source() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    let first = node.to(0, client().syn());
    node.health(first, Health::Suspected);
    let second = node.to(0, client().from(2).syn());
    node.health(first, Health::Up);
    assert_eq!(node.to(1, client().syn()), first, "the suspicion was false");
    assert_eq!(node.to(1, client().from(3).syn()), second, "the source has another choice");
    assert_eq!(node.to(2, client().ack()), first);
    assert_eq!(node.to(2, client().data()), first);
    assert_eq!(node.to(2, client().from(2).ack()), second);
    assert_eq!(node.to(2, client().from(3).ack()), second);
    assert_eq!(node.open((0, 1), client().from(4)), first, "whose handshake was through first");
}

/// It is counted where it was made, until it is confirmed or fades.
#[test]
fn a_choice_is_confirmed_by_flows_of_its_own_backend_only() {
    let half_open = |node: &Node, slot| node.gauge(slot, |backend| &backend.half_open);
    let counts = |node: &Node, slots: [u16; 2]| slots.map(|slot| half_open(node, slot));
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    let first = node.to(0, client().syn());
    node.health(first, Health::Suspected);
    let second = node.to(0, client().from(2).syn());
    assert_eq!(counts(&node, [first, second]), [1, 1]);
    let connected = |node: &mut Node, port| {
        let client = client().from(port);
        assert_eq!(node.to(0, client.ack()), node.to(0, client.data()));
    };
    connected(&mut node, 40_000);
    assert_eq!(counts(&node, [first, second]), [1, 1], "the source's choice is another by now");
    assert_eq!(node.to(0, client().from(3).syn()), second, "and stays");
    connected(&mut node, 2);
    connected(&mut node, 3);
    assert_eq!((node.active(first), node.active(second)), (1, 2));
    assert_eq!(counts(&node, [first, second]), [1, 1], "the template is the first one's");
    for _ in 0..8 {
        node.pass(8);
    }
    assert_eq!(counts(&node, [first, second]), [0, 0]);
}

/// An established flow that comes by another queue is no handshake of its source's pending choice.
#[test]
fn a_flow_that_moves_leaves_the_choice_of_its_source_alone() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    let first = node.open((0, 0), client());
    node.health(first, Health::Suspected);
    let second = node.to(0, client().from(2).syn());
    assert_eq!(node.to(1, client().ack()), first);
    let half_open = [first, second].map(|slot| node.gauge(slot, |backend| &backend.half_open));
    assert_eq!(half_open, [0, 1]);
    assert_eq!(node.to(0, client().from(3).syn()), second);
    assert_eq!(node.to(2, client().from(2).ack()), second);
}

#[test]
fn established_flows_stay_with_a_backend_that_is_suspected_or_keeps_them() {
    for (health, site) in
        [Health::Suspected, Health::Kept].into_iter().flat_map(|health| SITES.map(|s| (health, s)))
    {
        let mut node = Node::new(site(SchedulerKind::Maglev, &[1; 4]));
        let backend = node.open((0, 1), client());
        node.health(backend, health);
        for _ in 0..3 {
            assert_eq!(node.to(1, client().ack()), backend, "{health:?}");
        }
        assert_eq!(node.to(1, client().fin()), backend, "{health:?}");
        assert!(node.tell(1).is_empty(), "nobody is told");
    }
}

/// Its queue changes while its source connects elsewhere.
#[test]
fn a_flow_that_moves_does_not_follow_a_new_connection_of_its_source() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    let first = node.open((0, 1), client());
    node.health(first, Health::Suspected);
    let second = node.to(0, client().from(2).syn());
    assert_ne!(second, first);
    assert_eq!(node.to(3, client().ack()), first);
    assert_eq!(node.to(2, client().from(2).ack()), second);
}

#[test]
fn a_syn_on_an_established_tuple() {
    for health in DECIDED {
        let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
        let first = node.open((0, 0), client());
        assert_eq!(node.to(0, client().syn()), first, "forged, perhaps: the flow stays");
        for suspicion in [Health::Suspected, Health::Doubted] {
            node.health(first, suspicion);
            assert_eq!(node.to(0, client().syn()), first, "and so does it under a suspicion");
        }
        node.health(first, health);
        let second = node.to(0, client().syn());
        assert_ne!(second, first, "{health:?}");
        assert_eq!(node.to(1, client().syn()), second, "{health:?}");
        assert_eq!(node.to(0, client().ack()), second, "{health:?}");
        assert_eq!(node.to(0, client().data()), second, "{health:?}");
        assert_eq!((node.active(first), node.active(second)), (0, 1), "{health:?}");
        node.check_equation();
    }
}

#[test]
fn nobody_sticks_to_a_backend_that_is_unwell() {
    for health in UNWELL {
        let mut site = Site::web(SchedulerKind::Rr, &[1; 4]);
        site.sticky_when_drained();
        let mut node = Node::new(site);
        let backend = node.open((0, 1), client().from(1));
        node.set(backend, |backend| backend.weight = 0);
        assert_eq!(node.open((2, 3), client().from(2)), backend);
        node.health(backend, health);
        assert_ne!(node.open((2, 3), client().from(3)), backend, "{health:?}");
    }
}

#[test]
fn datagrams_start_anew_where_the_backend_is_gone() {
    for (health, stays) in [
        (Health::Suspected, true),
        (Health::Kept, true),
        (Health::Reset, false),
        (Health::Discarded, false),
    ] {
        let mut site = Site::default();
        site.vip(VIP, 0, None).service(VIP, Protocol::Udp, (53, 53), SchedulerKind::Rr);
        site.persistent(50);
        for last in 1..=3 {
            site.backend(crate::Addr::from_v4([172, 16, 0, last]), 1);
        }
        let mut node = Node::new(site);
        let client = client().to(53);
        assert_eq!((node.to(0, client.udp()), node.to(0, client.udp())), (0, 0));
        node.health(0, health);
        let next = node.to(0, client.udp());
        assert_eq!(next == 0, stays, "{health:?}");
        for worker in [0, 0, 1, 2] {
            let at = node.to(worker, client.udp());
            assert!(worker > 0 && stays || at == next, "{health:?}, worker {worker}: {at}");
        }
        assert!(node.tell(0).is_empty(), "UDP has nothing to reset");
        node.check_equation();
    }
}

#[test]
fn datagrams_stay_where_their_first_one_went() {
    let mut site = Site::default();
    site.vip(VIP, 0, None).service(VIP, Protocol::Udp, (53, 53), SchedulerKind::Rr).persistent(50);
    for last in 1..=3 {
        site.backend(crate::Addr::from_v4([172, 16, 0, last]), 1);
    }
    let mut node = Node::new(site);
    let flow = |port| client().from(port).to(53).udp();
    let first = node.to(0, flow(1));
    node.health(first, Health::Suspected);
    let second = node.to(0, flow(2));
    assert_ne!(second, first);
    node.health(first, Health::Up);
    for (port, backend, flows) in [(1, first, 1), (2, second, 2), (1, first, 2), (2, second, 2)] {
        assert_eq!(node.to(0, flow(port)), backend, "flow {port}");
        assert_eq!(node.flows(), flows, "the second datagram confirms");
    }
    node.check_equation();
}

#[test]
fn frames_for_a_backend_that_is_down_are_dropped_if_told_so() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 2]));
    let backend = node.open((0, 0), client());
    node.health(backend, Health::Discarded);
    let down = Outcome::Dropped(DropReason::BackendDown);
    for frame in [client().ack(), client().fin(), client().too_big(etherparse::IpNumber::TCP)] {
        assert_eq!(node.send(0, frame), down);
    }
    assert_eq!(node.send(1, client().from(2).ack()), down, "as the template says");
    assert!(node.tell(0).is_empty());
    // Back again: waiting clients go on.
    node.health(backend, Health::Up);
    assert_eq!(node.to(1, client().from(2).ack()), backend);
    node.check_equation();
}
