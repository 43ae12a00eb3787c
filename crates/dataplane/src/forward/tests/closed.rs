//! Ports and protocols of a VIP that no service has.

use std::time::Duration;

use etherparse::IpNumber;

use super::frames::{ACK, Client, RST, SYN};
use super::kit::{Node, Outcome, Site, Sizes, VIP, VIP6};
use crate::scheduler::SchedulerKind;
use crate::verdict::DropReason;

fn node(reject: bool) -> Node {
    let mut site = Site::web(SchedulerKind::Rr, &[1, 1]);
    site.vip(VIP6, 0, None);
    for vip in &mut site.vips {
        vip.reject_closed = reject;
    }
    Node::sized(site, Sizes { workers: 1, ..Sizes::default() })
}

#[test]
fn closed_ports_and_protocols_are_answered() {
    let mut node = node(true);
    let (v4, v6) = (Client::new(1, VIP).to(81), Client::v6(1, VIP6).to(81));
    let frames = [
        v4.syn(),
        v6.syn(),
        v4.tcp(ACK),
        v4.tcp(SYN | ACK),
        v4.udp(),
        v6.udp(),
        v4.other(IpNumber::SCTP),
        v6.other(IpNumber::OSPFIGP),
    ];
    let count = frames.len() as u64;
    for (at, frame) in frames.into_iter().enumerate() {
        assert_eq!(node.send(0, frame), Outcome::Answered, "{at}");
    }
    assert_eq!(node.total(|totals| &totals.closed), count);
    let mut frames = vec![v4.syn()];
    node.burst(0, &mut frames);
    assert_eq!(frames[0], v4.refused(), "the reset of RFC 9293");
    node.check_equation();
}

#[test]
fn what_must_not_be_answered_is_dropped() {
    let mut node = node(true);
    let client = Client::new(1, VIP).to(81);
    let closed = Outcome::Dropped(DropReason::NotVipPort);
    assert_eq!(node.send(0, client.tcp(RST)), closed);
    assert_eq!(node.send(0, client.fragment(IpNumber::UDP)), closed);
    let mut damaged = client.udp();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(node.send(0, damaged), closed);
    let nobody = Client::new(1, crate::Addr::from_v4([192, 0, 2, 99]));
    assert_eq!(node.send(0, nobody.syn()), Outcome::Dropped(DropReason::NotVip));
    // Without the lease the VIP is another node's.
    node.lease(0, node.now);
    assert_eq!(node.send(0, client.syn()), closed);
    node.check_equation();
}

#[test]
fn a_vip_may_be_silent_about_them() {
    let mut node = node(false);
    let client = Client::new(1, VIP).to(81);
    assert_eq!(node.send(0, client.syn()), Outcome::Dropped(DropReason::NotVipPort));
    assert_eq!(node.send(0, client.udp()), Outcome::Dropped(DropReason::NotVipPort));
    let sctp = client.other(IpNumber::SCTP);
    assert_eq!(node.send(0, sctp), Outcome::Dropped(DropReason::Unsupported));
    node.check_equation();
}

/// A scan uses up the answers of a second, and affects no other traffic.
#[test]
fn answers_are_bounded_in_rate() {
    let mut node = node(true);
    for second in 0..3_u64 {
        let mut answered = (0_u32, 0_u32);
        for at in 0..30_000_u32 {
            let client = Client::new(at, VIP).to(81);
            answered.0 += u32::from(node.send(0, client.syn()) == Outcome::Answered);
            answered.1 += u32::from(node.send(0, client.udp()) == Outcome::Answered);
            node.now = node.now + Duration::from_nanos(1_000_000_000 / 30_000);
        }
        let expected = |answered: u32, rate: u32, burst: u32| {
            let burst = if second == 0 { burst } else { 0 };
            (rate - 1..=rate + burst).contains(&answered)
        };
        assert!(expected(answered.0, 10_000, 1000), "{answered:?}");
        assert!(expected(answered.1, 1000, 50), "{answered:?}");
    }
    node.check_equation();
}
