//! Unsolicited resets: which client gets one, where it goes, and at which pace.

use std::time::Duration;

use super::frames::{Client, tagged};
use super::kit::{Health, Node, Outcome, Site, Sizes, VIP, VIP6};
use crate::addr::{Addr, Mac};
use crate::forward::Forwarder;
use crate::key::Protocol;
use crate::scheduler::SchedulerKind;

fn client() -> Client {
    Client::new(1, VIP)
}

#[test]
fn every_live_flow_of_the_lost_backend_and_no_other() {
    let mut site = Site::web(SchedulerKind::Rr, &[1; 4]);
    site.vip(VIP6, 0, None).service(VIP6, Protocol::Tcp, (80, 80), SchedulerKind::Rr);
    for last in 1..=4 {
        site.backend(Addr::from_v4([172, 16, 1, last]), 1);
    }
    let mut node = Node::new(site);
    let clients = |index| [Client::new(index, VIP), Client::v6(index, VIP6)];
    let clients: Vec<Client> = (0..500).flat_map(clients).collect();
    let mut expected = Vec::new();
    for (number, &client) in (0..).zip(&clients) {
        let backend = node.open((0, 0), client);
        node.to(0, client.acked(1000 + number).ack());
        if [2, 6].contains(&backend) {
            expected.push(client.told(1000 + number));
        }
    }
    assert!(node.tell(0).is_empty(), "all is well");
    node.health(2, Health::Reset);
    node.health(6, Health::Reset);
    let mut told = node.tell(0);
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told.len(), 250);
    assert_eq!(told, expected);
    assert_eq!((node.flows(), node.active(2), node.active(6)), (750, 0, 0));
    assert!(node.tell(0).is_empty(), "once");
    for &client in &clients {
        let outcome = node.send(0, client.acked(1).ack());
        assert!(
            matches!(outcome, Outcome::To(0 | 1 | 3 | 4 | 5 | 7) | Outcome::Answered),
            "{outcome:?}"
        );
    }
    node.check_equation();
}

#[test]
fn who_is_left_out_gets_an_answer() {
    let vlan = |frame: Vec<u8>| tagged(&frame, &[0x81, 0x00, 0x20, 0x64]);
    let group = Mac([3, 0, 0, 0, 0, 1]);
    // What was sent before, and whether there is something to tell.
    let table: [(&str, Vec<Vec<u8>>, bool); 6] = [
        ("established", vec![client().syn(), client().ack()], true),
        ("half open: the client tries again", vec![client().syn()], false),
        ("with a tag", vec![vlan(client().syn()), vlan(client().ack())], false),
        ("closed by the client", vec![client().syn(), client().ack(), client().fin()], false),
        ("reset by the client", vec![client().syn(), client().ack(), client().rst()], false),
        ("no station", vec![client().mac(group).syn(), client().mac(group).ack()], false),
    ];
    for (what, frames, is_told) in table {
        let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 2]));
        for frame in frames {
            assert_eq!(node.to(0, frame), 0, "{what}");
        }
        node.health(0, Health::Reset);
        let expected: Vec<_> = is_told.then(|| client().told(9)).into_iter().collect();
        assert_eq!(node.tell(0), expected, "{what}");
    }
    // Idle for too long: the client has forgotten it as well.
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 2]));
    assert_eq!(node.open((0, 0), client()), 0);
    node.now = node.now + Duration::from_secs(900);
    node.health(0, Health::Reset);
    assert!(node.tell(0).is_empty());
}

#[test]
fn a_picked_up_connection_is_told_at_its_newest_address() {
    let mut node = Node::new(Site::web(SchedulerKind::Maglev, &[1; 2]));
    let backend = node.to(0, client().ack());
    let router = Mac([2, 0xcc, 0, 0, 0, 9]);
    node.to(0, client().mac(router).acked(30).ack());
    node.to(0, client().acked(40).ack());
    node.health(backend, Health::Reset);
    // Looked at when its second packet proved it; the last ACK is always the newest.
    assert_eq!(node.tell(0), [client().mac(router).told(40)]);
}

#[test]
fn a_backend_that_returns_in_time_keeps_its_flows() {
    let mut node = Node::new(Site::web(SchedulerKind::Rr, &[1; 2]));
    assert_eq!(node.open((0, 0), client()), 0);
    node.health(0, Health::Reset);
    node.health(0, Health::Up);
    assert!(node.tell(0).is_empty());
    for health in [Health::Suspected, Health::Kept, Health::Discarded, Health::Up] {
        node.health(0, health);
        assert!(node.tell(0).is_empty(), "{health:?}");
    }
    assert_eq!(node.to(0, client().ack()), 0);
    node.health(0, Health::Reset);
    assert_eq!(node.tell(0).len(), 1, "it is lost anew");
}

/// A frame that is not taken is offered again; the pace is that of the table's size.
#[test]
fn a_walk_is_bounded_in_every_turn_and_misses_nobody() {
    let sizes = Sizes { flows: 100_000, pending: 1 << 18, templates: 1 << 18, ..Sizes::default() };
    let mut node = Node::sized(Site::web(SchedulerKind::Rr, &[1; 2]), sizes);
    let count = 100_000;
    for index in 0..count {
        node.open((0, 0), Client::new(index, VIP));
    }
    let refused = node.flows();
    node.health(0, Health::Reset);
    node.health(1, Health::Reset);
    let forwarder: &mut Forwarder = &mut node.workers[0];
    let (mut sent, mut turns) = (0, 0);
    let start = node.now;
    loop {
        let (before, mut offered) = (sent, 0);
        let mut send = |_: &[u8]| {
            offered += 1;
            let taken = offered % 100 != 50;
            sent += usize::from(taken);
            taken
        };
        forwarder.reset_flows(node.now, &node.snapshot, &node.leases, &mut send);
        assert!(sent - before <= 64, "{} in one turn", sent - before);
        turns += 1;
        if !forwarder.is_resetting() {
            break;
        }
        node.now = node.now + Duration::from_micros(50);
        assert!(turns < 100_000, "{sent} sent");
    }
    assert_eq!(sent, refused, "every flow that there was");
    assert!(refused > 99_000, "{refused} flows");
    let passed = node.now.saturating_since(start);
    assert!(passed < Duration::from_secs(1), "{passed:?}");
    assert!(passed > Duration::from_millis(700), "{passed:?}: it is no flood");
    assert_eq!(node.flows(), 0);
}
