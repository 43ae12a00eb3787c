//! Segments from forged addresses that would end what is proven, and flows that they would begin.

use super::frames::{ACK, Client, FIN, RST};
use super::kit::{EVERY_SCHEDULER, Node, Site, Sizes, VIP};
use crate::key::Protocol;
use crate::scheduler::SchedulerKind;

/// A RST of a proven connection that the backend does not take for the client's: the client goes on
/// after any pause, on any worker, and finds its backend.
#[test]
fn a_forged_reset_moves_no_connection() {
    for kind in EVERY_SCHEDULER {
        for site in [Site::web, Site::forgetful] {
            let mut node = Node::new(site(kind, &[1, 1, 1, 1]));
            let clients: Vec<Client> = (0..60).map(|index| Client::new(index, VIP)).collect();
            let backends: Vec<u16> =
                clients.iter().map(|&client| node.open((0, 1), client)).collect();
            for &client in &clients {
                node.to(1, client.rst());
            }
            for (round, pause) in [1, 12, 100, 600].into_iter().enumerate() {
                node.pass(pause);
                for (&client, &backend) in clients.iter().zip(&backends) {
                    let acked = client.acked(100 * u32::try_from(round).unwrap() + 100);
                    assert_eq!(node.to(round % 4, acked.data()), backend, "{kind:?}, {pause} s");
                    assert_eq!(node.to(round % 4, acked.acked(50_000).data()), backend);
                }
            }
            node.check_equation();
        }
    }
}

#[test]
fn ends_with_numbers_from_nowhere_are_passed_on_and_end_nothing() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1, 1]));
    let client = Client::new(1, VIP);
    let backend = node.open((0, 0), client);
    for flags in [RST | ACK, FIN | ACK, FIN] {
        assert_eq!(node.to(0, client.acked(1 << 30).tcp(flags)), backend);
        assert_eq!((node.active(backend), node.inactive(backend)), (1, 0), "{flags:#x}");
    }
    node.to(0, client.acked(100).tcp(RST | ACK));
    assert_eq!((node.active(backend), node.inactive(backend)), (0, 1), "the client's own");
}

/// Forged flows of UDP fill the table; half a minute later they make room, and what makes room goes on
/// at its backend.
#[test]
fn flows_of_udp_from_forged_addresses_make_room() {
    let mut site = Site::default();
    site.vip(VIP, 0, None).service(VIP, Protocol::Udp, (80, 80), SchedulerKind::Rr);
    (1..4).for_each(|last| {
        site.backend(crate::Addr::from_v4([172, 16, 0, last]), 1);
    });
    site.service(VIP, Protocol::Tcp, (80, 80), SchedulerKind::Rr);
    site.backend(crate::Addr::from_v4([172, 16, 0, 9]), 1);
    let mut node = Node::sized(site, Sizes { workers: 2, flows: 16, ..Sizes::default() });
    let backends: Vec<u16> = (0..200)
        .map(|index| {
            let client = Client::new(index, VIP);
            let backend = node.to(0, client.udp());
            assert_eq!(node.to(0, client.udp()), backend);
            backend
        })
        .collect();
    let full = node.flows();
    node.pass(31);
    for index in 1000..1010 {
        node.open((0, 0), Client::new(index, VIP));
    }
    assert_eq!((node.active(3), node.flows()), (10, full), "connections find room");
    for (index, backend) in (0..).zip(backends) {
        let worker = index as usize % 2;
        assert_eq!(node.to(worker, Client::new(index, VIP).udp()), backend, "client {index}");
    }
    node.check_equation();
}
