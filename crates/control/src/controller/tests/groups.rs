//! Services that share their templates, in the packet path's form.

use dataplane::{BackendSlot, Group, HashSeed, MAX_BACKENDS, MAX_SERVICES};

use super::*;

fn persistent(name: &str, vip: u8, backends: &[u8], group: Option<&str>) -> desired::Service {
    let persistence = desired::Persistence {
        timeout: Duration::from_secs(50),
        prefix_v4: 32,
        prefix_v6: 128,
        sticky_when_drained: false,
        group: group.map(ToOwned::to_owned),
    };
    desired::Service { persistence: Some(persistence), ..service(name, vip, backends) }
}

/// The group of a published service, and the slots of its backends.
fn group_of(controller: &Controller, snapshot: &Snapshot, at: usize) -> Option<Arc<Group>> {
    let slot = controller.services().nth(at).unwrap().slot.unwrap();
    let service = snapshot.services().iter().find(|service| service.slot == slot).unwrap();
    service.group.clone()
}

fn slot(controller: &Controller, service: usize, backend: usize) -> BackendSlot {
    controller.services().nth(service).unwrap().backends[backend].slot.unwrap()
}

#[test]
fn backends_with_one_name_are_one_member() {
    let mut controller = linked(vec![
        persistent("http", 100, &[11, 12], Some("shop")),
        persistent("https", 101, &[12, 13], Some("shop")),
        persistent("mail", 102, &[11], None),
    ]);
    let snapshot = published(&tell(&mut controller, resolved(11, RS1)));
    let [http, https] = [0, 1].map(|at| group_of(&controller, &snapshot, at).unwrap());
    assert!(Arc::ptr_eq(&http, &https));
    assert_eq!(group_of(&controller, &snapshot, 2), None);
    assert!(http.slot.index() >= MAX_SERVICES);
    let shared = http.member(slot(&controller, 0, 1)).unwrap();
    assert!(shared.index() >= MAX_BACKENDS);
    assert_eq!(http.member(slot(&controller, 1, 0)), Some(shared));
    assert_eq!(http.backends_of(shared).count(), 2);
    assert_ne!(http.member(slot(&controller, 0, 0)), Some(shared));
    assert_eq!(http.member(slot(&controller, 2, 0)), None);
    let seeds = snapshot.services().iter().map(|service| service.scheduler.seed());
    assert_eq!(seeds.filter(|seed| *seed == HashSeed::Members).count(), 2);
    let status: Vec<_> = controller.services().collect();
    assert_eq!((status[0].group, status[2].group), (Some("shop"), None));
    assert_eq!(status[1].backends[0].named, Some(shared));
    assert_eq!(status[2].backends[0].named, status[2].backends[0].slot);
}

/// A new service of the group changes nothing for the templates that are there.
#[test]
fn members_keep_their_slots_over_a_reload() {
    let first = persistent("http", 100, &[11, 12], Some("shop"));
    let mut controller = linked(vec![first.clone()]);
    let before = published(&tell(&mut controller, resolved(11, RS1)));
    let before = group_of(&controller, &before, 0).unwrap();
    let second = persistent("https", 101, &[12], Some("shop"));
    let after = tell(&mut controller, Event::Desired(Box::new(desired(vec![second, first]))));
    let after = group_of(&controller, &published(&after), 1).unwrap();
    let backend = slot(&controller, 1, 1);
    assert_eq!((before.slot, before.member(backend)), (after.slot, after.member(backend)));
    assert_eq!(after.backends_of(after.member(backend).unwrap()).count(), 2);
}
