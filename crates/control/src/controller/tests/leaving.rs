//! Backends that the configuration does not name any more.

use dataplane::{Mailbox, UnusableAction, WorkerCounters};

use super::failure::{checked, health, lines, next_hop, resolved_all, state, taking};
use super::*;
use crate::desired::FailurePolicy;
use crate::health::Condition::{Down, Up};

/// A worker whose counters say which backends have flows.
fn worker() -> (WorkerLink, Arc<WorkerCounters>) {
    let counters = Arc::new(WorkerCounters::default());
    let mailbox = Arc::new(Mailbox::new(2, 64, || {}));
    let link =
        WorkerLink { port: ETH0, queue: 0, mac: OWN, mailbox, counters: Arc::clone(&counters) };
    (link, counters)
}

/// `web` with 11 and 12 up, of which 12 was then removed.
fn without_12() -> (Controller, Arc<Snapshot>, Arc<WorkerCounters>) {
    let mut controller = resolved_all(checked(&[11, 12], FailurePolicy::default()), &[11, 12]);
    tell(&mut controller, health(11, Up));
    tell(&mut controller, health(12, Up));
    let (link, counters) = worker();
    tell(&mut controller, Event::Workers(vec![link]));
    let done = tell(&mut controller, reload(vec![checked(&[11], FailurePolicy::default())]));
    assert_eq!(lines(&done), ["backend web/rs12: UP -> DRAINING: removed from the configuration"]);
    assert!(!done.iter().any(|c| matches!(c, Command::Unwatch(..))), "its MAC is still needed");
    (controller, published(&done), counters)
}

#[test]
fn it_is_drained_until_no_flow_and_no_template_names_it() {
    let (mut controller, snapshot, counters) = without_12();
    let slot = controller.services().next().unwrap().backends[1].slot.unwrap();
    let drained = next_hop(&controller, &snapshot, 12);
    assert!(drained.usable && !drained.eligible && drained.avoid_existing_clients);
    assert_eq!(taking(&snapshot), [11]);
    assert_eq!(state(&controller, 12), BackendState::Draining);

    let reclaim = |controller: &mut Controller, named: bool| {
        controller.reclaim_slots(|other| named && other == slot);
        commands(controller)
    };
    assert!(reclaim(&mut controller, false).is_empty(), "workers may still choose it");
    acknowledge_all(&mut controller);
    counters.backend(slot).active.add(1);
    assert!(reclaim(&mut controller, false).is_empty(), "a flow lives");
    counters.backend(slot).active.add(-1);
    assert!(reclaim(&mut controller, true).is_empty(), "a template names it");
    let done = reclaim(&mut controller, false);
    assert!(done.iter().any(|c| matches!(c, Command::Unwatch(ETH0, gone) if *gone == ip(12))));
    assert_eq!(*published(&done).next_hop(slot), NextHop::NONE);
    assert_eq!(lines(&done), ["backend web/rs12: drained after 0.0 ms, gone"]);
    assert_eq!(controller.services().next().unwrap().backends.len(), 1);
}

#[test]
fn it_may_come_back_before_it_is_gone() {
    let (mut controller, snapshot, _) = without_12();
    let slot = controller.services().next().unwrap().backends[1].slot;
    assert!(next_hop(&controller, &snapshot, 12).usable);
    let both = checked(&[11, 12], FailurePolicy::default());
    let snapshot = published(&tell(&mut controller, reload(vec![both])));
    assert_eq!(taking(&snapshot), [11, 12]);
    assert_eq!(controller.services().next().unwrap().backends[1].slot, slot);
}

#[test]
fn one_that_is_down_keeps_its_fate() {
    let mut controller = resolved_all(checked(&[11, 12], FailurePolicy::default()), &[11, 12]);
    tell(&mut controller, health(12, Up));
    tell(&mut controller, health(12, Down));
    let done = tell(&mut controller, reload(vec![checked(&[11], FailurePolicy::default())]));
    let dead = next_hop(&controller, &published(&done), 12);
    assert!(!dead.usable);
    assert_eq!(dead.when_unusable, UnusableAction::Reset);
}

#[test]
fn the_backends_of_a_service_that_went_do_not_linger() {
    let (mut controller, _, _) = without_12();
    let done = tell(&mut controller, reload(vec![]));
    let unwatched = done.iter().filter(|c| matches!(c, Command::Unwatch(..))).count();
    assert_eq!(unwatched, 2);
    assert!(published(&done).services().is_empty());
}

#[test]
fn a_service_of_another_name_in_the_same_place_is_the_same() {
    let (mut controller, ..) = without_12();
    let slots = |controller: &Controller| -> Vec<_> {
        let service = controller.services().next().unwrap();
        let backends = service.backends.iter().map(|b| (b.slot, b.state));
        std::iter::once((service.slot.map(|s| BackendSlot(s.0)), BackendState::Up))
            .chain(backends)
            .collect()
    };
    let before = slots(&controller);
    let mut renamed = checked(&[11], FailurePolicy::default());
    renamed.name = "www".into();
    let done = tell(&mut controller, reload(vec![renamed]));
    assert_eq!(slots(&controller), before, "slots and states");
    assert_eq!(controller.services().next().unwrap().name, "www");
    assert!(lines(&done).is_empty(), "{:?}", lines(&done));
    assert!(!done.iter().any(|c| matches!(c, Command::RemoveVip(_) | Command::InsertVip(..))));
}
