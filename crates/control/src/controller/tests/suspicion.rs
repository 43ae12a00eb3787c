//! What the packet path learns of a suspicion.

use Condition::{Down, Suspected, Up};
use dataplane::Suspicion;

use super::failure::{checked, health, next_hop, policy, resolved_all};
use super::*;
use crate::controller::Event;
use crate::desired::OnDown;
use crate::health::{Condition, Reason, Transition, Trouble};

/// What the packet path may do about a suspicion depends on where it comes from.
#[test]
fn a_suspicion_from_syns_alone_is_told_apart() {
    let by_syns = |last| {
        let Event::Health(service, address, transition) = health(last, Suspected) else { panic!() };
        let trouble =
            Trouble { check: None, sentinel: false, unanswered: true, failure: None, failures: 1 };
        let reason = Reason::Failing(vec![trouble]);
        Event::Health(service, address, Transition { reason, ..transition })
    };
    let cases = [
        ("up", vec![], Suspicion::None),
        ("by SYNs", vec![by_syns(11)], Suspicion::Syns),
        ("by a check", vec![health(11, Suspected)], Suspicion::Checks),
        ("it was false", vec![by_syns(11), health(11, Up)], Suspicion::None),
        ("it was true", vec![by_syns(11), health(11, Down)], Suspicion::None),
        ("all are suspected: it is eligible", vec![by_syns(11), by_syns(12)], Suspicion::None),
    ];
    for (name, events, expected) in cases {
        let mut controller = resolved_all(checked(&[11, 12], policy(OnDown::Reset)), &[11, 12]);
        tell(&mut controller, health(12, Up));
        let mut snapshot = published(&tell(&mut controller, health(11, Up)));
        for event in events {
            snapshot = published(&tell(&mut controller, event));
        }
        assert_eq!(next_hop(&controller, &snapshot, 11).suspicion, expected, "{name}");
    }
}
