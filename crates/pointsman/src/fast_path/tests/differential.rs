//! The same frames through two worlds, in one of which the program forwards known flows itself.

use std::time::Duration;

use dataplane::{DropReason, NextHop, Tick, UnusableAction, Verdict};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use steer::abi;

use super::frames::{ACK, CLIENTS, OVER, SYN, Shape, shapes};
use super::world::{World, timeouts};
use crate::clock;

/// What is changed, and changed back, while frames come.
const CHANGES: [(&str, Change); 8] = [
    ("nothing", |_| {}),
    ("backends are down, their clients reset", |world| {
        world.publish(|slot, hop| down(slot, hop, UnusableAction::Reset))
    }),
    ("backends are down, their frames dropped", |world| {
        world.publish(|slot, hop| down(slot, hop, UnusableAction::Discard))
    }),
    ("backends have no MAC", |world| {
        world.publish(|slot, hop| down(slot, hop, UnusableAction::Unreachable))
    }),
    ("backends have another MAC", |world| world.publish(|_, hop| hop.macs[3] = 0xba)),
    ("a lease is over", |world| world.set_lease(0, 1)),
    ("a VIP is another interface's", |world| {
        world.set_vip(1, Some(abi::Vip { instance: 2, ifindex: 99 }));
    }),
    ("a VIP is gone", |world| world.set_vip(1, None)),
];

type Change = fn(&mut World);

fn down(slot: u16, hop: &mut NextHop, action: UnusableAction) {
    if slot.is_multiple_of(3) {
        (hop.usable, hop.eligible, hop.when_unusable) = (false, false, action);
    }
}

fn change_back(world: &mut World) {
    world.publish(|_, _| {});
    world.set_lease(0, u64::MAX);
    world.set_vip(1, Some(abi::Vip { instance: 2, ifindex: 0 }));
}

/// `POINTSMAN_LONG=1`: a million frames.
#[test]
fn frames_counters_and_flows_are_the_same() {
    let frames = if std::env::var_os("POINTSMAN_LONG").is_some() { 1_000_000 } else { 100_000 };
    let (mut slow, mut fast) = (World::new(false), World::new(true));
    let begin = clock::now();
    for world in [&mut slow, &mut fast] {
        change_back(world);
        establish(world, 0..OVER, Tick::from_nanos(begin.as_nanos() - LONG_AGO.as_nanos() as u64));
    }
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let shapes = shapes();
    let mut verdicts = [0_u32; 4];
    for (what, change) in CHANGES {
        let now = clock::now();
        [&mut slow, &mut fast].into_iter().for_each(|world| establish(world, OVER..CLIENTS, now));
        let before = fast.fast;
        [&mut slow, &mut fast].into_iter().for_each(change);
        for count in 0..frames / CHANGES.len() {
            let shape = shapes.new_tree(&mut runner).unwrap().current();
            let now = clock::now();
            let (expected, got) = (slow.take(&shape.frame(), now), fast.take(&shape.frame(), now));
            assert_eq!(got, expected, "{what}, {count}: {shape:?}");
            verdicts[kind(got.verdict)] += 1;
            slow.housekeep(now);
            fast.housekeep(now);
        }
        assert!(fast.fast > before, "{what}");
        [&mut slow, &mut fast].into_iter().for_each(change_back);
    }
    compare(&slow, &fast, begin);
    fast.check_outcomes();
    assert!(verdicts.iter().all(|count| *count > 20), "{verdicts:?}");
    assert!(fast.by_port.iter().all(|count| *count > frames as u64 / 20), "{:?}", fast.by_port);
    assert!(fast.fast > frames as u64 / 5, "{} of {frames}", fast.fast);
}

fn compare(slow: &World, fast: &World, begin: Tick) {
    assert_eq!(fast.sent(), slow.sent());
    assert_eq!(fast.received(), slow.received());
    assert_eq!(fast.dropped(), slow.dropped(), "{:?}", DropReason::ALL);
    assert_eq!(fast.flows(begin), slow.flows(begin));
    // When each flow is over: the program's clock is a tick late at most, and runs behind the test.
    let mut moved = 0;
    for step in 0..60 {
        let at = begin + timeouts().established + STEP * step;
        let (slow, earlier, later) = (
            slow.flows(at),
            fast.flows(at + SLACK),
            fast.flows(Tick::from_nanos(at.as_nanos() - SLACK.as_nanos() as u64)),
        );
        assert!(earlier.keys().all(|key| slow.contains_key(key)), "lasts longer, {step}");
        assert!(slow.keys().all(|key| later.contains_key(key)), "is over earlier, {step}");
        moved += usize::from(earlier.len() != fast.flows(begin).len());
    }
    assert!(moved > 0, "flows are over one after the other");
}

/// Flows whose clients are numbered; UDP takes two datagrams, TCP a handshake and data.
fn establish(world: &mut World, clients: std::ops::Range<u32>, now: Tick) {
    for client in clients {
        for (flags, number) in [(SYN, 0), (ACK, 1), (ACK, 1000)] {
            world.worker(&Shape::of(client, flags, number).frame(), now);
        }
    }
}

fn kind(verdict: Option<Verdict>) -> usize {
    match verdict {
        None => 0,
        Some(Verdict::Forward(_)) => 1,
        Some(Verdict::Answer) => 2,
        Some(Verdict::Drop(_) | Verdict::HandOver | Verdict::Wait) => 3,
    }
}

/// Before it, flows are over.
const LONG_AGO: Duration = Duration::from_secs(7200);
const STEP: Duration = Duration::from_millis(500);
/// A tick of the slowest kernel, and what a busy machine takes between two readings of the clock.
const SLACK: Duration = Duration::from_millis(200);
