//! What checks say, and what follows for the packet path.

use dataplane::{NextHop, UnusableAction};

use super::*;
use crate::desired::{FailurePolicy, MinHealthy, OnAllDown, OnDown};
use crate::health::{
    Check, CheckKind, Condition, Failure, ProbeTarget, Reason, State, TcpCheck, Transition, Trouble,
};

use Condition::{Down, Suspected, Up};

pub(super) fn tcp_check() -> Check {
    Check {
        kind: CheckKind::Tcp(TcpCheck::default()),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 3,
        fast_interval: Duration::from_millis(100),
        down_interval: Duration::from_secs(1),
        jitter_percent: 10,
        starts_up: false,
        port: None,
        target: ProbeTarget::Backend,
        source: None,
        sentinel: true,
    }
}

/// A service `web` with checks.
pub(super) fn checked(backends: &[u8], failure: FailurePolicy) -> desired::Service {
    desired::Service { health: vec![tcp_check()], failure, ..service("web", 100, backends) }
}

pub(super) fn fallback(last: u8) -> Option<Backend> {
    Some(Backend {
        name: "sorry".into(),
        address: ip(last),
        weight: 1,
        check: crate::health::CheckOverride::default(),
        drain: None,
    })
}

pub(super) fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, last])
}

/// A verdict of the checks of `web`.
pub(super) fn health(last: u8, condition: Condition) -> Event {
    let to = match condition {
        Up => State::Up,
        Suspected => State::Suspected,
        Down => State::Down,
    };
    let reason = match condition {
        Up => Reason::Passing { successes: 2, held: None },
        Suspected | Down => Reason::Failing(vec![Trouble {
            check: None,
            sentinel: true,
            unanswered: false,
            failure: Some(Failure::Refused),
            failures: 2,
        }]),
    };
    // The controller has its own idea of what was before.
    let from = State::Checking;
    let after = Duration::from_micros(2100);
    Event::Health("web".into(), ip(last), Transition { from, to, reason, after, failures: 0 })
}

/// With all of these neighbours resolved, and nothing heard of their health.
pub(super) fn resolved_all(wanted: desired::Service, neighbours: &[u8]) -> Controller {
    let mut controller = linked(vec![wanted]);
    for last in neighbours {
        tell(&mut controller, resolved(*last, mac(*last)));
    }
    controller
}

pub(super) fn next_hop(controller: &Controller, snapshot: &Snapshot, last: u8) -> NextHop {
    let services: Vec<_> = controller.services().collect();
    let mut backends = services.iter().flat_map(|service| &service.backends);
    let backend = backends.find(|backend| backend.address == ip(last)).expect("no such backend");
    *snapshot.next_hop(backend.slot.expect("no slot"))
}

pub(super) fn state(controller: &Controller, last: u8) -> BackendState {
    let service = controller.services().next().unwrap();
    service.backends.iter().find(|backend| backend.address == ip(last)).unwrap().state
}

/// Last bytes of the addresses that take new sources, and their weights.
pub(super) fn members(snapshot: &Snapshot) -> Vec<(u8, u32)> {
    let members = snapshot.services()[0].scheduler.members();
    members.iter().map(|member| (member.address.octets()[15], member.weight)).collect()
}

pub(super) fn taking(snapshot: &Snapshot) -> Vec<u8> {
    members(snapshot).into_iter().map(|(last, _)| last).collect()
}

pub(super) fn lines(commands: &[Command]) -> Vec<String> {
    let reports = commands.iter().filter_map(|command| {
        if let Command::Report(report) = command { Some(report.to_string()) } else { None }
    });
    reports.collect()
}

fn last_published(commands: &[Command]) -> Option<Arc<Snapshot>> {
    commands.iter().rev().find_map(|command| {
        if let Command::Publish(snapshot) = command { Some(Arc::clone(snapshot)) } else { None }
    })
}

pub(super) fn policy(on_down: OnDown) -> FailurePolicy {
    FailurePolicy { on_down, ..FailurePolicy::default() }
}

#[test]
fn what_is_not_checked_yet_takes_nobody_and_resets_nobody() {
    let mut controller = linked(vec![checked(&[11], FailurePolicy::default())]);
    let snapshot = published(&tell(&mut controller, resolved(11, RS1)));
    let unchecked = next_hop(&controller, &snapshot, 11);
    assert!(!unchecked.eligible && !unchecked.usable);
    assert_eq!(unchecked.when_unusable, UnusableAction::Unreachable);
    assert!(!snapshot.services()[0].reject, "it may be up in a moment");
    assert_eq!(state(&controller, 11), BackendState::Checking);
    let snapshot = published(&tell(&mut controller, health(11, Down)));
    assert_eq!(
        next_hop(&controller, &snapshot, 11).when_unusable,
        UnusableAction::Unreachable,
        "it was never up"
    );
    assert!(snapshot.services()[0].reject);
    assert_eq!(state(&controller, 11), BackendState::Down);
}

#[test]
fn start_up_takes_clients_before_the_first_result() {
    let mut web = checked(&[11], FailurePolicy::default());
    web.health[0].starts_up = true;
    let mut controller = linked(vec![web]);
    let snapshot = published(&tell(&mut controller, resolved(11, RS1)));
    assert!(next_hop(&controller, &snapshot, 11).eligible);
    assert_eq!(state(&controller, 11), BackendState::Up);
}

/// Policy, events, `u`sable, `e`ligible and `a`void_existing_clients, when_unusable.
type NextHopCase<'a> = (&'a str, &'a FailurePolicy, Vec<Event>, &'a str, UnusableAction);

/// The next hop of a backend that was up, for each of what may be known of it.
#[test]
fn hops_follow_health_and_neighbour() {
    let (reset, keep, drop) = (policy(OnDown::Reset), policy(OnDown::Keep), policy(OnDown::Drop));
    let inhibit = FailurePolicy { inhibit: true, ..FailurePolicy::default() };
    let failed = Event::Neighbour(ip(11), Neighbour::Failed);
    let missing = Event::Neighbour(ip(11), Neighbour::Missing);
    let cases: [NextHopCase<'_>; 13] = [
        ("up", &reset, vec![], "ue", UnusableAction::Unreachable),
        ("suspected", &reset, vec![health(11, Suspected)], "us", UnusableAction::Unreachable),
        ("down", &reset, vec![health(11, Down)], "", UnusableAction::Reset),
        ("down, drop", &drop, vec![health(11, Down)], "", UnusableAction::Discard),
        ("down, keep", &keep, vec![health(11, Down)], "us", UnusableAction::Unreachable),
        ("down, inhibit", &inhibit, vec![health(11, Down)], "u", UnusableAction::Unreachable),
        ("silent host", &reset, vec![failed.clone()], "", UnusableAction::Reset),
        ("silent host, drop", &drop, vec![failed.clone()], "", UnusableAction::Discard),
        ("silent host, inhibit", &inhibit, vec![failed.clone()], "", UnusableAction::Unreachable),
        ("asked anew", &reset, vec![missing], "ue", UnusableAction::Unreachable),
        (
            "silent, then down: down wins",
            &reset,
            vec![failed.clone(), health(11, Down)],
            "",
            UnusableAction::Reset,
        ),
        (
            "down and silent cannot be kept",
            &keep,
            vec![health(11, Down), failed],
            "",
            UnusableAction::Unreachable,
        ),
        ("back", &reset, vec![health(11, Down), health(11, Up)], "ue", UnusableAction::Unreachable),
    ];
    for (name, failure, events, flags, when_unusable) in cases {
        let mut controller = resolved_all(checked(&[11, 12], failure.clone()), &[11, 12]);
        tell(&mut controller, health(12, Up));
        let mut snapshot = published(&tell(&mut controller, health(11, Up)));
        for event in events {
            let done = believed(&mut controller, event);
            snapshot = last_published(&done).unwrap_or(snapshot);
        }
        let next_hop = next_hop(&controller, &snapshot, 11);
        let set = [
            (next_hop.usable, 'u'),
            (next_hop.eligible, 'e'),
            (next_hop.avoid_existing_clients, 's'),
        ];
        let set: String = set.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
        assert_eq!((&*set, next_hop.when_unusable), (flags, when_unusable), "{name}");
        let expected: &[u8] = if next_hop.eligible { &[11, 12] } else { &[12] };
        assert_eq!(taking(&snapshot), expected, "{name}");
    }
}

/// Without checks, too: of one that was up, ARP may be the first to tell.
#[test]
fn silence_behind_a_lost_link_resets_no_flow() {
    let failed = || Event::Neighbour(ip(11), Neighbour::Failed);
    let missing = || Event::Neighbour(ip(11), Neighbour::Missing);
    let cut = || Event::Link(ETH0, Some(link(7, false)));
    let back = || Event::Link(ETH0, Some(link(7, true)));
    let asking = Event::Neighbour(ip(11), Neighbour::Asking(None));
    let silent = (false, UnusableAction::Reset);
    let stays = (true, UnusableAction::Unreachable);
    let courses = [
        ("silent", vec![failed()], silent),
        ("silent, asked again", vec![failed(), asking.clone()], silent),
        ("silent, then cut off", vec![failed(), cut(), back(), asking.clone()], silent),
        ("cut off", vec![cut(), failed()], stays),
        ("back again", vec![cut(), failed(), back()], stays),
        ("back, and a resolution that began without a link", vec![cut(), back(), failed()], stays),
        ("forgotten", vec![missing(), asking], stays),
    ];
    for (name, events, expected) in courses {
        let mut controller = linked(vec![service("web", 100, &[11])]);
        let mut snapshot = published(&tell(&mut controller, resolved(11, RS1)));
        assert!(next_hop(&controller, &snapshot, 11).eligible);
        for event in events {
            let done = believed(&mut controller, event);
            snapshot = last_published(&done).unwrap_or(snapshot);
        }
        let next_hop = next_hop(&controller, &snapshot, 11);
        assert_eq!((next_hop.usable, next_hop.when_unusable), expected, "{name}");
    }
    let mut controller = linked(vec![service("web", 100, &[11])]);
    let snapshot = published(&believed(&mut controller, failed()));
    assert_eq!(
        next_hop(&controller, &snapshot, 11).when_unusable,
        UnusableAction::Unreachable,
        "it was never up"
    );
}

/// An event, and as much time as makes a failed resolution believed.
fn believed(controller: &mut Controller, event: Event) -> Vec<Command> {
    let mut done = tell(controller, event);
    controller.handle_timeout(controller.now + CONFIRM);
    done.extend(commands(controller));
    done
}

#[test]
fn suspicion_is_better_than_nobody() {
    let mut controller = resolved_all(checked(&[11, 12, 13], FailurePolicy::default()), &[11, 12]);
    let course: [(u8, Condition, &[u8]); 7] = [
        (11, Up, &[11]),
        (12, Up, &[11, 12]),
        (11, Suspected, &[12]),
        (12, Suspected, &[11, 12]),
        (12, Down, &[11]),
        (12, Up, &[12]),
        (11, Up, &[11, 12]),
    ];
    for (at, (last, condition, expected)) in course.into_iter().enumerate() {
        let snapshot = published(&tell(&mut controller, health(last, condition)));
        assert_eq!(taking(&snapshot), expected, "step {at}");
        for backend in [11, 12] {
            let eligible = next_hop(&controller, &snapshot, backend).eligible;
            assert_eq!(eligible, expected.contains(&backend), "step {at}, rs{backend}");
        }
    }
}

#[test]
fn below_the_quorum_the_fallback_takes_new_sources_alone() {
    let failure = FailurePolicy {
        min_healthy: MinHealthy::Weight { min: 2, hysteresis: 0 },
        fallback: fallback(99),
        ..FailurePolicy::default()
    };
    let neighbours = [11, 12, 13, 99];
    let mut controller = resolved_all(checked(&neighbours[..3], failure), &neighbours);
    tell(&mut controller, health(11, Up));
    tell(&mut controller, health(12, Up));
    let done = tell(&mut controller, health(13, Up));
    assert_eq!(taking(&published(&done)), [11, 12, 13], "not the fallback");
    tell(&mut controller, health(13, Down));

    let done = tell(&mut controller, health(12, Down));
    let snapshot = published(&done);
    assert_eq!(members(&snapshot), [(99, 1)]);
    let alive = next_hop(&controller, &snapshot, 11);
    assert!(alive.usable && !alive.eligible, "its flows go on");
    assert!(next_hop(&controller, &snapshot, 99).eligible);
    assert_eq!(
        lines(&done),
        [
            "backend web/rs12: UP -> DOWN after 2.1 ms: sentinel closed, connect refused",
            "service web: quorum lost: 1 of 3 weight up, fallback sorry takes new sources",
        ]
    );
    let status = controller.services().next().unwrap();
    assert!(status.fallback_active && !status.quorum);
    assert_eq!((status.healthy_weight, status.total_weight), (1, 3));

    let done = tell(&mut controller, health(12, Up));
    let snapshot = published(&done);
    assert_eq!(taking(&snapshot), [11, 12]);
    let sorry = next_hop(&controller, &snapshot, 99);
    assert!(
        sorry.usable && !sorry.eligible && sorry.avoid_existing_clients,
        "its clients may only finish"
    );
    assert_eq!(lines(&done).pop().unwrap(), "service web: quorum regained: 2 of 3 weight up");
}

#[test]
fn without_a_reachable_fallback_the_rest_goes_on() {
    let failure = FailurePolicy {
        min_healthy: MinHealthy::Percent { min: 100, hysteresis: 0 },
        fallback: fallback(99),
        ..FailurePolicy::default()
    };
    let mut controller = resolved_all(checked(&[11, 12], failure), &[11, 12]);
    tell(&mut controller, health(11, Up));
    tell(&mut controller, health(12, Up));
    assert_eq!(controller.quorums().collect::<Vec<_>>(), [("web", true)]);
    let snapshot = published(&tell(&mut controller, health(12, Down)));
    assert_eq!(taking(&snapshot), [11]);
    assert_eq!(controller.quorums().collect::<Vec<_>>(), [("web", false)]);
    let snapshot = published(&tell(&mut controller, resolved(99, mac(99))));
    assert_eq!(taking(&snapshot), [99]);
}

/// Policy, events after 11 and 12 are up, who takes new sources, whether others are refused.
type LastCase<'a> = (&'a str, FailurePolicy, Vec<Event>, &'a [u8], bool);

#[test]
fn when_nobody_is_left_clients_are_refused_or_the_last_ones_go_on() {
    let last = FailurePolicy { on_all_down: OnAllDown::KeepLast, ..FailurePolicy::default() };
    let failed = Event::Neighbour(ip(12), Neighbour::Failed);
    let (down11, down12) = (health(11, Down), health(12, Down));
    let cases: [LastCase<'_>; 5] = [
        ("refused", FailurePolicy::default(), vec![down11.clone(), down12.clone()], &[], true),
        ("all were", last.clone(), vec![down11.clone(), down12.clone()], &[11, 12], false),
        (
            "until one is up",
            last.clone(),
            vec![down11.clone(), down12.clone(), health(11, Up)],
            &[11],
            false,
        ),
        ("not a silent host", last, vec![down11.clone(), down12, failed.clone()], &[11], false),
        ("silence counts as well", FailurePolicy::default(), vec![down11, failed], &[], true),
    ];
    for (name, failure, events, expected, reject) in cases {
        let mut controller = resolved_all(checked(&[11, 12], failure), &[11, 12]);
        tell(&mut controller, health(11, Up));
        let mut snapshot = published(&tell(&mut controller, health(12, Up)));
        for event in events {
            let done = believed(&mut controller, event);
            snapshot = last_published(&done).unwrap_or(snapshot);
        }
        assert_eq!(taking(&snapshot), expected, "{name}");
        assert_eq!(snapshot.services()[0].reject, reject, "{name}");
        for kept in expected {
            let next_hop = next_hop(&controller, &snapshot, *kept);
            assert!(next_hop.usable && next_hop.eligible, "{name}");
        }
    }
}

/// The checks of [`checked`] have found a common failure everywhere after 2.6 s. Seconds at which
/// something happens, and who takes new sources then.
type Course<'a> = (&'a str, &'a [(f64, u8, Condition, &'a [u8])]);

#[test]
fn the_last_ones_are_all_that_one_failure_may_have_taken() {
    let courses: [Course<'_>; 5] = [
        ("at once", &[(0.0, 11, Down, &[12]), (0.0, 12, Down, &[11, 12])]),
        ("over an interval", &[(0.0, 12, Down, &[11]), (1.2, 11, Down, &[11, 12])]),
        ("one long before", &[(0.0, 11, Down, &[12]), (3.0, 12, Down, &[12])]),
        (
            "one that comes back for a moment does not push the others out",
            &[
                (0.0, 11, Down, &[12]),
                (1.0, 12, Down, &[11, 12]),
                (60.0, 12, Up, &[12]),
                (61.0, 12, Down, &[11, 12]),
            ],
        ),
        (
            "one that comes back for good does",
            &[
                (0.0, 11, Down, &[12]),
                (1.0, 12, Down, &[11, 12]),
                (60.0, 12, Up, &[12]),
                (64.0, 12, Suspected, &[12]),
                (64.1, 12, Down, &[12]),
            ],
        ),
    ];
    for (name, course) in courses {
        let failure =
            FailurePolicy { on_all_down: OnAllDown::KeepLast, ..FailurePolicy::default() };
        let mut controller = resolved_all(checked(&[11, 12], failure), &[11, 12]);
        tell(&mut controller, health(11, Up));
        tell(&mut controller, health(12, Up));
        for (at, last, condition, expected) in course {
            controller.handle(health(*last, *condition), T0 + Duration::from_secs_f64(*at));
            let snapshot = published(&commands(&mut controller));
            assert_eq!(taking(&snapshot), *expected, "{name}, at {at} s");
        }
    }
}

#[test]
fn several_events_make_one_snapshot() {
    let mut controller = resolved_all(checked(&[11, 12], FailurePolicy::default()), &[11, 12]);
    controller.handle(health(11, Up), T0);
    let done = tell(&mut controller, health(12, Up));
    assert_eq!(taking(&published(&done)), [11, 12]);
    let publishes = done.iter().filter(|c| matches!(c, Command::Publish(_))).count();
    assert_eq!(publishes, 1);
}

#[test]
fn a_verdict_rebuilds_its_service_alone_and_is_published_before_it_is_told() {
    let mut services = vec![checked(&[11, 12], FailurePolicy::default())];
    services.push(service("dns", 101, &[11, 12]));
    let mut controller = linked(services);
    for last in [11, 12] {
        tell(&mut controller, resolved(last, mac(last)));
        tell(&mut controller, health(last, Up));
    }
    let before = published(&tell(&mut controller, Event::Workers(vec![])));
    let done = tell(&mut controller, health(12, Down));
    let after = published(&done);
    assert!(matches!(done.first(), Some(Command::Publish(_))), "{done:?}");
    let changed: Vec<bool> = before
        .services()
        .iter()
        .zip(after.services())
        .map(|(before, after)| !Arc::ptr_eq(before, after))
        .collect();
    assert_eq!(changed, [true, false]);
    assert_eq!(
        lines(&done),
        ["backend web/rs12: UP -> DOWN after 2.1 ms: sentinel closed, connect refused"]
    );
}

#[test]
fn health_survives_a_reload_and_ends_with_its_checks() {
    let web = checked(&[11, 12], FailurePolicy::default());
    let mut controller = resolved_all(web.clone(), &[11, 12]);
    tell(&mut controller, health(11, Up));
    tell(&mut controller, health(12, Down));
    let mut heavier = web.clone();
    heavier.backends[0].weight = 7;
    tell(&mut controller, reload(vec![heavier]));
    assert_eq!(state(&controller, 11), BackendState::Up);
    assert_eq!(state(&controller, 12), BackendState::Down);
    let unchecked = desired::Service { health: vec![], ..web.clone() };
    tell(&mut controller, reload(vec![unchecked]));
    assert_eq!(state(&controller, 12), BackendState::Up);
    let snapshot = published(&tell(&mut controller, reload(vec![web])));
    assert_eq!(taking(&snapshot), [11, 12], "a new check takes nobody out before it failed");
}

#[test]
fn what_is_known_in_parts_is_not_told_in_parts() {
    let wanted = desired(vec![checked(&[11], FailurePolicy::default())]);
    let mut controller = Controller::new(wanted, T0);
    controller.handle(routes(&controller), T0);
    controller.handle(Event::Link(ETH0, Some(link(7, true))), T0);
    controller.handle(resolved(11, RS1), T0);
    let done = tell(&mut controller, health(11, Up));
    let expected = [
        "backend web/rs11: RESOLVING -> UP after 2.1 ms: 2 successes",
        "service web: quorum reached: 1 of 1 weight up",
    ];
    assert_eq!(lines(&done), expected);
}

#[test]
fn one_line_tells_of_suspicion_and_death() {
    let mut controller = resolved_all(checked(&[11, 12], FailurePolicy::default()), &[11, 12]);
    tell(&mut controller, health(12, Up));
    tell(&mut controller, health(11, Up));
    let line =
        |to| format!("backend web/rs11: {to} after 2.1 ms: sentinel closed, connect refused");
    let done = tell(&mut controller, health(11, Suspected));
    assert_eq!(lines(&done), [line("UP -> SUSPECTED")]);
    let done = tell(&mut controller, health(11, Down));
    assert_eq!(lines(&done), [line("UP -> DOWN")]);
}

#[test]
fn transitions_count_what_clients_feel() {
    let mut controller = resolved_all(checked(&[11], FailurePolicy::default()), &[11]);
    let count =
        |controller: &Controller| controller.services().next().unwrap().backends[0].transitions;
    let course = [(Up, 1), (Suspected, 1), (Up, 1), (Down, 2), (Down, 2), (Up, 3)];
    for (condition, expected) in course {
        tell(&mut controller, health(11, condition));
        assert_eq!(count(&controller), expected, "{condition:?}");
    }
}
