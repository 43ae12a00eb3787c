//! A backend that came up gets its share step by step.

use super::failure::{checked, health, members, resolved_all};
use super::*;
use crate::desired::FailurePolicy;
use crate::health::Condition::{Down, Up};

fn slowly() -> desired::Service {
    let slow_start = Duration::from_secs(10);
    let mut web = checked(&[11, 12], FailurePolicy { slow_start, ..FailurePolicy::default() });
    web.backends[1].weight = 3;
    web
}

/// `slowly()` with both backends up.
fn both_up() -> Controller {
    let mut controller = resolved_all(slowly(), &[11, 12]);
    tell(&mut controller, health(11, Up));
    let snapshot = published(&tell(&mut controller, health(12, Up)));
    assert_eq!(members(&snapshot), [(11, 1), (12, 3)], "nobody is late at start");
    assert_eq!(controller.next_deadline(), None);
    controller
}

/// Lets time pass to the next deadline.
fn step(controller: &mut Controller) -> (Tick, Arc<Snapshot>) {
    let at = controller.next_deadline().expect("nothing is under way");
    controller.handle_timeout(at);
    (at, published(&commands(controller)))
}

#[test]
fn ten_steps_to_the_full_weight() {
    let mut controller = both_up();
    tell(&mut controller, health(12, Down));
    let snapshot = published(&tell(&mut controller, health(12, Up)));
    assert_eq!(members(&snapshot), [(11, 10), (12, 3)]);
    let status = |controller: &Controller| {
        controller.services().next().unwrap().backends[1].effective_weight
    };
    assert!((status(&controller) - 0.3).abs() < 1e-9);
    for share in 2..10 {
        let (at, snapshot) = step(&mut controller);
        assert_eq!(members(&snapshot), [(11, 10), (12, 3 * share)]);
        let since = at.saturating_since(T0).as_secs_f64();
        assert!((since - f64::from(share)).abs() < 0.001, "{since}");
    }
    let (_, snapshot) = step(&mut controller);
    assert_eq!(members(&snapshot), [(11, 1), (12, 3)], "as if nothing had been");
    assert_eq!(controller.next_deadline(), None);
    assert!((status(&controller) - 3.0).abs() < 1e-9);
}

#[test]
fn a_step_that_was_slept_through_is_made_up_for() {
    let mut controller = both_up();
    tell(&mut controller, health(12, Down));
    tell(&mut controller, health(12, Up));
    let late = T0 + Duration::from_secs(60);
    controller.handle(Event::Workers(vec![]), late);
    commands(&mut controller);
    assert!(controller.next_deadline().is_some_and(|at| at <= late));
    controller.handle_timeout(late);
    assert_eq!(members(&published(&commands(&mut controller))), [(11, 1), (12, 3)]);
    assert_eq!(controller.next_deadline(), None);
}

#[test]
fn down_ends_it_and_a_newcomer_is_late() {
    let mut controller = both_up();
    tell(&mut controller, health(12, Down));
    tell(&mut controller, health(12, Up));
    let snapshot = published(&tell(&mut controller, health(12, Down)));
    assert_eq!(members(&snapshot), [(11, 1)]);
    assert_eq!(controller.next_deadline(), None);

    let mut web = slowly();
    web.backends.push(Backend {
        name: "rs13".into(),
        address: ip(13),
        weight: 5,
        check: crate::health::CheckOverride::default(),
        drain: None,
    });
    tell(&mut controller, reload(vec![web]));
    tell(&mut controller, resolved(13, Mac([2, 0, 0, 0, 1, 13])));
    let snapshot = published(&tell(&mut controller, health(13, Up)));
    assert_eq!(members(&snapshot), [(11, 10), (13, 5)]);
}

#[test]
fn schedulers_that_do_not_weigh_know_no_slow_start() {
    let web = desired::Service { scheduler: SchedulerKind::Rr, ..slowly() };
    let mut controller = resolved_all(web, &[11, 12]);
    tell(&mut controller, health(11, Up));
    tell(&mut controller, health(12, Up));
    tell(&mut controller, health(12, Down));
    let snapshot = published(&tell(&mut controller, health(12, Up)));
    assert_eq!(members(&snapshot), [(11, 1), (12, 3)]);
    assert_eq!(controller.next_deadline(), None);
}
