//! By what a frame leaves: out of its own interface, by one that takes what programs send, or by none.

use steer::Action;

use super::frames::{ACK, SYN, Shape};
use super::world::World;
use crate::clock;

#[test]
fn frames_leave_by_what_takes_them() {
    let mut world = World::new(true);
    world.publish(|_, _| {});
    let mut found = Vec::new();
    for client in 0..40 {
        for (flags, number) in [(SYN, 0), (ACK, 1), (ACK, 1000)] {
            world.worker(&Shape::of(client, flags, number).frame(), clock::now());
        }
        let frame = Shape::of(client, ACK, 1).frame();
        let action = world.action(&frame);
        // Left by its own interface; by one that takes frames; left to user space.
        assert!(ALL.contains(&action), "{action:?}");
        found.push((frame, action));
    }
    assert!(ALL.iter().all(|one| found.iter().any(|(_, action)| action == one)), "{found:?}");

    world.set_redirects(true, false);
    for (frame, before) in &found {
        let expected = if *before == TRANSMIT { TO_SOCKET } else { *before };
        assert_eq!(world.action(frame), expected, "its own interface takes nothing");
    }
    world.set_redirects(true, true);
    for (frame, before) in &found {
        let expected = if *before == TRANSMIT { REDIRECT } else { *before };
        assert_eq!(world.action(frame), expected, "its own interface takes frames as well");
    }
}

const TRANSMIT: (Action, bool) = (Action::Transmit, true);
const REDIRECT: (Action, bool) = (Action::Redirect, true);
const TO_SOCKET: (Action, bool) = (Action::Redirect, false);
const ALL: [(Action, bool); 3] = [TRANSMIT, REDIRECT, TO_SOCKET];
