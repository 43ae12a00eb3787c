//! Frames that came back, and frames of a gateway that is a backend as well.

use etherparse::IpNumber;

use super::frames::Client;
use super::kit::{EVERY_SCHEDULER, Node, Outcome, Site, VIP, backend_mac};
use crate::slots::BackendSlot;
use crate::verdict::DropReason;

const LOOP: Outcome = Outcome::Dropped(DropReason::Loop);

/// A backend without the VIP that routes what it gets: the default route leads to us.
#[test]
fn what_a_backend_sends_back_is_dropped() {
    for kind in EVERY_SCHEDULER {
        for site in [Site::web(kind, &[1; 3]), Site::forgetful(kind, &[1; 3])] {
            let mut node = Node::new(site);
            for index in 0..100 {
                let client = Client::new(index, VIP);
                let backend = node.open((0, 0), client);
                let returned = client.mac(backend_mac(BackendSlot(backend)));
                for worker in [0, 1] {
                    for frame in [returned.ack(), returned.fin(), returned.too_big(IpNumber::TCP)] {
                        let outcome = node.send(worker, frame.clone());
                        // Without persistence another queue does not know where it came from.
                        let unknown = worker == 1 && node.site.offers[0].persistence.is_none();
                        assert!(outcome == LOOP || unknown, "{kind:?} {outcome:?}");
                    }
                }
                assert_eq!(node.to(0, client.ack()), backend, "the client goes on");
            }
            node.check_equation();
        }
    }
}

/// The SYN that comes back goes to another backend, which may answer the client.
#[test]
fn a_syn_that_comes_back_goes_elsewhere() {
    let mut node = Node::new(Site::web(crate::SchedulerKind::Maglev, &[1; 3]));
    for index in 0..100 {
        let client = Client::new(index, VIP);
        let first = node.to(0, client.syn());
        let returned = client.mac(backend_mac(BackendSlot(first)));
        let second = node.to(1, returned.syn());
        assert_ne!(second, first);
        assert_eq!(node.to(0, client.ack()), second, "its ACK follows");
    }
}

/// Its clients are served by the others, on every queue and with every scheduler.
#[test]
fn clients_behind_a_gateway_that_is_a_backend_are_served_by_the_others() {
    let gateway = backend_mac(BackendSlot(1));
    for kind in EVERY_SCHEDULER {
        for site in [Site::web(kind, &[1; 3]), Site::forgetful(kind, &[1; 3])] {
            let mut node = Node::new(site);
            let mut had = [0; 3];
            for index in 0..300 {
                let client = Client::new(index, VIP).mac(gateway);
                let backend = node.open((0, 1), client);
                had[usize::from(backend)] += 1;
                assert_eq!(node.to(1, client.ack()), backend);
                assert_eq!(node.to(1, client.fin()), backend);
            }
            assert_eq!(had[1], 0, "{kind:?}: sent back to the gateway");
            assert!(had[0] > 100 && had[2] > 100, "{kind:?}: {had:?}");
            // All others have all three.
            let mut had = [0; 3];
            for index in 1000..1300 {
                had[usize::from(node.open((0, 1), Client::new(index, VIP)))] += 1;
            }
            assert!(had.iter().all(|count| *count > 50), "{kind:?}: {had:?}");
            node.check_equation();
        }
    }
}

/// Without state, packets from the gateway take the same way on every worker.
#[test]
fn stray_packets_from_such_a_gateway_agree_on_a_backend() {
    let mut node = Node::new(Site::web(crate::SchedulerKind::Maglev, &[1; 3]));
    for index in 0..300 {
        let client = Client::new(index, VIP).mac(backend_mac(BackendSlot(1)));
        let backend = node.to(0, client.ack());
        assert_ne!(backend, 1);
        assert!((1..4).all(|worker| node.to(worker, client.ack()) == backend));
    }
}

/// The gateway is all there is: its clients cannot be sent back to it.
#[test]
fn the_only_backend_does_not_get_its_own_frames() {
    let mut node = Node::new(Site::web(crate::SchedulerKind::Rr, &[1]));
    let client = Client::new(1, VIP).mac(backend_mac(BackendSlot(0)));
    assert_eq!(node.send(0, client.syn()), Outcome::Dropped(DropReason::NoBackend));
    assert_eq!(node.to(0, Client::new(2, VIP).syn()), 0);
}
