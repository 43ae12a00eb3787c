//! How long a client keeps its backend, seen from outside: under `rr` every new schedule is
//! another backend, so that none goes unnoticed.

use super::frames::{ACK, Client, DATA, FIN, RST, SYN};
use super::kit::{EVERY_SCHEDULER, Node, Outcome, Site, Sizes, VIP};
use crate::scheduler::SchedulerKind;
use crate::verdict::DropReason;

use self::Step::{Pass, Tcp, Udp};

/// A packet of the one client, or time.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Worker, source port, flags.
    Tcp(usize, u16, u8),
    /// Worker, source port.
    Udp(usize, u16),
    /// Seconds.
    Pass(u64),
}

/// A handshake over two queues, and a request.
const fn open(port: u16) -> [Step; 3] {
    [Tcp(0, port, SYN), Tcp(1, port, ACK), Tcp(1, port, DATA)]
}

/// As many backends as there are schedules in any case, and a service for UDP on the same terms.
fn site() -> Site {
    let mut site = Site::web(SchedulerKind::Rr, &[1; 8]);
    site.service(VIP, crate::Protocol::Udp, (53, 53), SchedulerKind::Rr).persistent(50);
    for last in 1..=8 {
        site.backend(crate::Addr::from_v4([172, 16, 0, last]), 1);
    }
    site
}

/// What happens, and which schedule the last packet follows: the first is 0.
type Case = (&'static str, Vec<Step>, u16);

fn check(cases: Vec<Case>) {
    for (what, steps, expected) in cases {
        let mut node = Node::new(site());
        let client = Client::new(1, VIP);
        let mut last = None;
        for step in steps {
            match step {
                Tcp(worker, port, flags) => {
                    last = Some(node.to(worker, client.from(port).tcp(flags)));
                }
                Udp(worker, port) => {
                    last = Some(node.to(worker, client.from(port).to(53).udp()) - 8);
                }
                Pass(seconds) => node.pass(seconds),
            }
        }
        assert_eq!(last, Some(expected), "{what}");
        node.check_equation();
    }
}

#[test]
fn a_source_keeps_its_backend_for_the_whole_timeout_on_all_workers() {
    let mut node = Node::new(site());
    let client = Client::new(1, VIP);
    let backend = node.open((0, 1), client);
    assert_eq!(node.to(1, client.fin()), backend);
    for second in 0..49 {
        node.pass(1);
        // A connection attempt that comes to nothing does not prolong the template.
        let worker = second % 4;
        let port = 1000 + u16::try_from(second).unwrap();
        assert_eq!(node.to(worker, client.from(port).syn()), backend, "after {second} s");
    }
    node.pass(1);
    assert_eq!(node.live_flows(client), None, "the template is gone");
    assert_eq!(node.to(3, client.from(2000).syn()), backend, "but the last SYN's choice holds");
    node.pass(60);
    assert_eq!(node.to(2, client.from(2001).syn()), backend + 1, "scheduled anew");
}

#[test]
fn the_end_of_a_connection_starts_the_clock() {
    let after = |steps: &[Step]| [&open(1)[..], steps].concat();
    check(vec![
        ("FIN, just in time", after(&[Tcp(1, 1, FIN | ACK), Pass(49), Tcp(2, 2, SYN)]), 0),
        ("FIN, too late", after(&[Tcp(1, 1, FIN | ACK), Pass(50), Tcp(2, 2, SYN)]), 1),
        ("RST, just in time", after(&[Tcp(1, 1, RST), Pass(49), Tcp(2, 2, SYN)]), 0),
        ("RST, too late", after(&[Tcp(1, 1, RST), Pass(50), Tcp(2, 2, SYN)]), 1),
        ("an established connection holds", after(&[Pass(899), Tcp(3, 2, SYN)]), 0),
        ("idle for 900 s and the timeout", after(&[Pass(949), Tcp(3, 2, SYN)]), 0),
        ("and over", after(&[Pass(950), Tcp(3, 2, SYN)]), 1),
        ("data keep it", after(&[Pass(899), Tcp(1, 1, ACK), Pass(899), Tcp(3, 2, SYN)]), 0),
        (
            "a half-closed long download",
            after(&[
                Tcp(1, 1, FIN | ACK),
                Pass(45),
                Tcp(1, 1, ACK),
                Pass(45),
                Tcp(1, 1, ACK),
                Pass(45),
                Tcp(3, 2, SYN),
            ]),
            0,
        ),
        (
            "which is over",
            after(&[Tcp(1, 1, FIN | ACK), Pass(45), Tcp(1, 1, ACK), Pass(50), Tcp(3, 2, SYN)]),
            1,
        ),
        (
            "its own packets go on regardless",
            after(&[Tcp(1, 1, FIN | ACK), Pass(119), Tcp(1, 1, ACK)]),
            0,
        ),
        (
            "SYN on a closing tuple is a new connection",
            after(&[Tcp(1, 1, FIN | ACK), Pass(60), Tcp(1, 1, SYN)]),
            1,
        ),
        (
            "SYN on a reset tuple is one too",
            after(&[
                Tcp(1, 1, RST),
                Tcp(1, 1, SYN),
                Tcp(1, 1, ACK),
                Tcp(1, 1, DATA),
                Pass(900),
                Tcp(1, 2, SYN),
            ]),
            0,
        ),
        ("SYN on a live tuple is none", after(&[Pass(800), Tcp(1, 1, SYN), Tcp(1, 1, ACK)]), 0),
    ]);
}

#[test]
fn several_connections_hold_a_template_together() {
    let six: Vec<Step> = (1..=6)
        .map(|port| Tcp(usize::from(port % 4), port, SYN))
        .chain((1..=6).map(|port| Tcp(usize::from((port + 1) % 4), port, ACK)))
        .chain((1..=6).map(|port| Tcp(usize::from((port + 1) % 4), port, DATA)))
        .collect();
    let after = |steps: &[Step]| [&six[..], steps].concat();
    let five_end: Vec<Step> =
        (1..=5).map(|port| Tcp(usize::from((port + 1) % 4), port, FIN | ACK)).collect();
    check(vec![
        ("one lives", after(&[&five_end[..], &[Pass(899), Tcp(0, 9, SYN)]].concat()), 0),
        (
            "the last one ends",
            after(&[&five_end[..], &[Tcp(3, 6, RST), Pass(50), Tcp(0, 9, SYN)]].concat()),
            1,
        ),
    ]);
}

#[test]
fn datagrams() {
    check(vec![
        ("one makes no template", vec![Udp(0, 1), Pass(60), Udp(0, 2)], 1),
        ("the second one does", vec![Udp(0, 1), Udp(0, 1), Pass(100), Udp(3, 2)], 0),
        ("on any worker", vec![Udp(0, 1), Udp(1, 1), Pass(349), Udp(3, 2)], 0),
        ("for 300 s and the timeout", vec![Udp(0, 1), Udp(1, 1), Pass(350), Udp(3, 2)], 1),
        (
            "or longer if they go on",
            vec![Udp(0, 1), Udp(1, 1), Pass(299), Udp(1, 1), Pass(299), Udp(1, 1), Udp(3, 2)],
            0,
        ),
    ]);
}

/// Further apart than a handshake may take.
#[test]
fn rare_datagrams_stay_on_their_backend() {
    for kind in EVERY_SCHEDULER {
        for timeout in [None, Some(300), Some(3600)] {
            let mut site = Site::default();
            site.vip(VIP, 0, None).service(VIP, crate::Protocol::Udp, (53, 53), kind);
            timeout.map(|seconds| site.persistent(seconds));
            for last in 1..=4 {
                site.backend(crate::Addr::from_v4([172, 16, 0, last]), 1);
            }
            let mut node = Node::new(site);
            // No multiple of the backends: in turn, each would be chosen another one.
            let clients: Vec<Client> =
                (0..21).map(|index| Client::new(index, VIP).to(53)).collect();
            let backends: Vec<u16> =
                clients.iter().map(|client| node.to(0, client.udp())).collect();
            let pauses = match timeout {
                Some(3600) => [3599, 61, 1000, 3500, 61],
                _ => [61, 61, 299, 120, 61],
            };
            for (round, pause) in pauses.into_iter().enumerate() {
                node.pass(pause);
                for (client, backend) in clients.iter().zip(&backends) {
                    let worker = if timeout.is_some() { round % 4 } else { 0 };
                    let goes = node.to(worker, client.udp());
                    assert_eq!(goes, *backend, "{kind:?}, {timeout:?}, round {round}");
                }
            }
            node.check_equation();
        }
    }
}

#[test]
fn gauges_follow_a_connection() {
    let mut node = Node::new(site());
    let client = Client::new(1, VIP);
    let half_open = |node: &Node| node.gauge(0, |backend| &backend.half_open);
    assert_eq!(node.to(0, client.syn()), 0);
    assert_eq!((half_open(&node), node.active(0), node.inactive(0)), (1, 0, 0));
    assert_eq!(node.to(1, client.ack()), 0);
    assert_eq!((half_open(&node), node.unproven(0), node.active(0)), (1, 1, 0));
    assert_eq!(node.to(1, client.data()), 0);
    assert_eq!((half_open(&node), node.unproven(0), node.active(0)), (0, 0, 1));
    assert_eq!(node.to(1, client.fin()), 0);
    assert_eq!((node.active(0), node.inactive(0)), (0, 1));
    node.pass(120);
    assert_eq!((node.active(0), node.inactive(0), node.flows()), (0, 0, 0));
    assert_eq!(node.shared.persistence.templates_of(crate::BackendSlot(0)), 0);
}

#[test]
fn six_syns_at_once_get_one_backend_under_every_scheduler() {
    for kind in EVERY_SCHEDULER {
        let site = Site::web(kind, &[1, 2, 3, 4]);
        let mut node = Node::sized(site, Sizes { workers: 6, ..Sizes::default() });
        for index in 0..50 {
            let client = |port| Client::new(index, VIP).from(port);
            let backend = node.to(0, client(0).syn());
            for port in 1..6 {
                assert_eq!(node.to(usize::from(port), client(port).syn()), backend, "{kind:?}");
            }
            for port in 0..6 {
                let worker = usize::from((port + 3) % 6);
                assert_eq!(node.to(worker, client(port).ack()), backend, "{kind:?}");
                assert_eq!(node.to(worker, client(port).data()), backend, "{kind:?}");
            }
            assert_eq!(node.live_flows(client(0)), Some(6), "{kind:?}");
        }
        node.check_equation();
    }
}

#[test]
fn without_weight_flows_stay_and_sources_go() {
    let mut node = Node::new(site());
    let client = Client::new(1, VIP);
    let backend = node.open((0, 1), client.from(1));
    node.set(backend, |backend| backend.weight = 0);
    assert_eq!(node.to(1, client.from(1).ack()), backend, "the flow stays");
    let other = node.to(2, client.from(2).syn());
    assert_ne!(other, backend, "the source does not");
    assert_eq!(node.to(1, client.from(1).ack()), backend);
    assert_eq!(node.to(3, client.from(2).ack()), other, "the ACK follows its SYN");
    assert_eq!(node.to(3, client.from(2).data()), other);
    assert_eq!(node.to(0, client.from(3).syn()), other, "and so does the source");
    assert_eq!(node.live_flows(client), Some(1), "of the new template");
    // The old flow's end is nothing to the new template.
    assert_eq!(node.to(1, client.from(1).fin()), backend);
    assert_eq!(node.live_flows(client), Some(1));
    // No flow is left on the drained backend.
    node.pass(120);
    assert_eq!((node.active(backend), node.inactive(backend)), (0, 0));
    node.check_equation();
}

#[test]
fn a_drained_backend_keeps_its_clients_if_told_so() {
    let mut site = Site::web(SchedulerKind::Rr, &[1; 4]);
    site.sticky_when_drained();
    let mut node = Node::new(site);
    let client = Client::new(1, VIP);
    let backend = node.open((0, 1), client.from(1));
    node.set(backend, |backend| backend.weight = 0);
    assert_eq!(node.open((2, 3), client.from(2)), backend, "it comes back");
    assert_eq!(node.live_flows(client), Some(2));
    for index in 2..20 {
        assert_ne!(node.open((0, 0), Client::new(index, VIP)), backend, "nobody new");
    }
    node.set(backend, |backend| backend.usable = false);
    assert_ne!(node.open((2, 3), client.from(3)), backend, "it cannot come back");
}

#[test]
fn a_backend_that_is_removed() {
    for kind in EVERY_SCHEDULER {
        let mut node = Node::new(Site::web(kind, &[1; 4]));
        let clients: Vec<Client> = (0..40).map(|index| Client::new(index, VIP)).collect();
        let backends: Vec<u16> = clients.iter().map(|&client| node.open((0, 1), client)).collect();
        assert!(backends.contains(&0) && backends.contains(&1), "{kind:?}");
        node.set(0, |backend| backend.usable = false);
        let mut chosen = Vec::new();
        for (&client, &backend) in clients.iter().zip(&backends) {
            let ack = node.send(1, client.ack());
            let next = node.to(2, client.from(9).syn());
            if backend == 0 {
                assert_eq!(ack, Outcome::Dropped(DropReason::NoNeighbour), "{kind:?}");
                assert_ne!(next, 0, "{kind:?}");
                assert_eq!(node.to(1, client.syn()), next, "the same tuple too");
            } else {
                assert_eq!((ack, next), (Outcome::To(backend), backend), "{kind:?}");
            }
            chosen.push(next);
        }
        // It comes back: who was let go and is connecting stays where that is, and then returns.
        node.set(0, |backend| backend.usable = true);
        for ((&client, &backend), &chosen) in clients.iter().zip(&backends).zip(&chosen) {
            assert_eq!(node.to(3, client.from(9).ack()), chosen, "{kind:?}");
            assert_eq!(node.open((0, 2), client.from(10)), backend, "{kind:?}");
        }
        node.check_equation();
    }
}
