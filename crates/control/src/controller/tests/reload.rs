//! However a configuration came to be in force, it is as if the node had been started with it.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::failure::mac;
use super::*;

const BACKENDS: [u8; 4] = [11, 12, 13, 14];

/// Services of different names and places, in any order.
fn configurations() -> impl Strategy<Value = Vec<desired::Service>> {
    let names = subsequence(vec!["a", "b", "c", "d"], 1..=3).prop_shuffle();
    names.prop_flat_map(|names| {
        let places = subsequence(vec![100u8, 101, 102, 103], names.len()).prop_shuffle();
        let details = prop::collection::vec(details(), names.len());
        (Just(names), places, details).prop_map(|(names, places, details)| {
            let services = names.into_iter().zip(places).zip(details);
            services
                .map(|((name, vip), (scheduler, timeout, backends, fallback))| desired::Service {
                    scheduler,
                    persistence: timeout.map(persistence),
                    backends,
                    failure: desired::FailurePolicy {
                        fallback: fallback.then(|| backend(19, 1)),
                        ..desired::FailurePolicy::default()
                    },
                    ..service(name, vip, &[])
                })
                .collect()
        })
    })
}

type Details = (SchedulerKind, Option<u64>, Vec<Backend>, bool);

fn details() -> impl Strategy<Value = Details> {
    let scheduler = select(SchedulerKind::ALL.to_vec());
    let backends = subsequence(BACKENDS.to_vec(), 1..=4).prop_shuffle();
    let backends = backends.prop_flat_map(|hosts| {
        let weights = prop::collection::vec(0..4u32, hosts.len());
        (Just(hosts), weights).prop_map(|(hosts, weights)| {
            hosts.into_iter().zip(weights).map(|(last, weight)| backend(last, weight)).collect()
        })
    });
    (scheduler, prop::option::of(1..100u64), backends, any::<bool>())
}

fn backend(last: u8, weight: u32) -> Backend {
    Backend {
        name: format!("rs{last}"),
        address: ip(last),
        weight,
        check: crate::health::CheckOverride::default(),
        drain: None,
    }
}

fn persistence(seconds: u64) -> desired::Persistence {
    desired::Persistence {
        timeout: Duration::from_secs(seconds),
        prefix_v4: 32,
        prefix_v6: 128,
        sticky_when_drained: false,
        group: None,
    }
}

/// Everything that the packet path reads, but for the numbers of slots.
fn described(controller: &Controller, snapshot: &Snapshot) -> Vec<String> {
    let mut lines: Vec<String> = snapshot
        .services()
        .iter()
        .map(|service| {
            let members = service.scheduler.members().iter();
            let members: Vec<_> = members.map(|m| (m.address.ip(), m.weight)).collect();
            let hops: Vec<_> = service
                .scheduler
                .members()
                .iter()
                .map(|member| {
                    let hop = snapshot.next_hop(member.slot);
                    (hop.usable, hop.eligible, hop.avoid_existing_clients, hop.macs)
                })
                .collect();
            let (key, persistence, reject) = (service.key, service.persistence, service.reject);
            format!("{key:?} {persistence:?} {:?} {reject} {members:?} {hops:?}", service.hash)
        })
        .collect();
    lines.extend(snapshot.vips().iter().map(|vip| format!("{vip:?}")));
    lines.extend(controller.services().flat_map(|service| {
        let name = service.name.to_owned();
        let backends = service.backends.into_iter();
        let stays = backends.filter(|backend| backend.why != "removed from the configuration");
        stays.map(move |b| format!("{name}: {} {} {:?} {}", b.name, b.weight, b.state, b.fallback))
    }));
    lines
}

fn last(commands: &[Command]) -> Option<Arc<Snapshot>> {
    commands.iter().rev().find_map(|command| {
        if let Command::Publish(snapshot) = command { Some(Arc::clone(snapshot)) } else { None }
    })
}

/// Tells all that a node finds out by itself; returns what the packet path reads then.
fn settle(controller: &mut Controller) -> Arc<Snapshot> {
    controller.handle(routes(controller), T0);
    for last in BACKENDS.into_iter().chain([19]) {
        controller.handle(resolved(last, mac(last)), T0);
    }
    // Everything is worked out anew.
    controller.handle(Event::Link(ETH0, Some(link(7, true))), T0);
    let done = commands(controller);
    acknowledge_all(controller);
    last(&done).expect("a snapshot")
}

proptest! {
    #[test]
    fn a_reload_ends_where_a_start_begins(
        steps in prop::collection::vec(configurations(), 2..6),
    ) {
        let mut reloaded = linked(steps[0].clone());
        settle(&mut reloaded);
        for step in &steps[1..] {
            tell(&mut reloaded, reload(step.clone()));
            settle(&mut reloaded);
        }
        let wanted = steps[steps.len() - 1].clone();
        let mut started = linked(wanted);
        let (expected, found) = (settle(&mut started), settle(&mut reloaded));
        prop_assert_eq!(described(&reloaded, &found), described(&started, &expected));
        let vips = |controller: &Controller| controller.steered().collect::<Vec<_>>();
        prop_assert_eq!(vips(&reloaded), vips(&started));
    }

    #[test]
    fn a_reload_of_the_same_file_changes_nothing(wanted in configurations()) {
        let mut controller = linked(wanted.clone());
        let before = settle(&mut controller);
        let slots = |controller: &Controller| -> Vec<_> {
            let services = controller.services();
            services.flat_map(|s| s.backends.into_iter().map(|b| (b.slot, b.since)).collect::<Vec<_>>()).collect()
        };
        let kept = slots(&controller);
        let done = tell(&mut controller, reload(wanted));
        prop_assert!(!done.iter().any(|c| matches!(c, Command::RemoveVip(_) | Command::Report(_))));
        let after = last(&done).expect("a snapshot");
        for (one, other) in before.services().iter().zip(after.services()) {
            prop_assert!(Arc::ptr_eq(one, other), "a service was built anew");
        }
        prop_assert_eq!(slots(&controller), kept);
    }
}
