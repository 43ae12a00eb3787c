//! Checks that several services ask alike are made once.

use proptest::prelude::*;

use super::*;
use crate::desired::{Backend, Service};

fn host(services: &[Judged]) -> Host {
    let mut host = Host::new(1);
    host.reconfigure(services, START);
    host
}

const START: Tick = Tick::from_nanos(5_000_000_000);

fn judged(service: &str, checks: &[Check]) -> Judged {
    let checks = checks.iter().map(Asked::alone).collect();
    Judged { service: service.to_owned(), checks, damping: UNDAMPED }
}

/// All actions as text, and the running probes.
fn drain(host: &mut Host, running: &mut Vec<Probe>) -> Vec<Action<Verdict>> {
    let mut actions = Vec::new();
    while let Some(action) = host.poll_action() {
        match &action {
            Action::Start { probe, .. } => {
                assert!(running.iter().all(|other| other.check != probe.check), "overlaps");
                running.push(*probe);
            }
            Action::Cancel(probe) => running.retain(|other| other != probe),
            Action::Changed(_) => {}
        }
        actions.push(action);
    }
    actions
}

/// What happens to a host.
#[derive(Clone, Debug)]
enum Happens {
    Wait(u64),
    Ends(&'static str),
    Lost(usize),
    Suspect,
    Restored,
}

fn happens() -> impl Strategy<Value = Happens> {
    let ends =
        prop_oneof![Just("ok"), Just("ok"), Just("refused"), Just("timeout"), Just("status")];
    prop_oneof![
        4 => (1_u64..700).prop_map(Happens::Wait),
        8 => ends.prop_map(Happens::Ends),
        1 => (0_usize..2).prop_map(Happens::Lost),
        1 => Just(Happens::Suspect),
        1 => Just(Happens::Restored),
    ]
}

/// Everything that a host with these services asks for, and says of the first one.
fn play(services: &[Judged], events: &[Happens]) -> (Vec<String>, Vec<Vec<Transition>>) {
    let mut host = host(services);
    let (mut now, mut running) = (START, Vec::new());
    let (mut probes, mut said) = (Vec::new(), vec![Vec::new(); services.len()]);
    let nothing = Happens::Wait(0);
    for event in std::iter::once(&nothing).chain(events) {
        match event {
            Happens::Wait(millis) => {
                now = now + ms(*millis);
                host.handle_timeout(now);
            }
            Happens::Ends(how) if !running.is_empty() => {
                host.probe_ended(running.remove(0), outcome(how), now);
            }
            Happens::Ends(_) => {}
            Happens::Lost(check) => host.sentinel_lost(*check, now),
            Happens::Suspect => _ = host.suspect("s0", now),
            Happens::Restored => host.link_restored(now),
        }
        for action in drain(&mut host, &mut running) {
            match action {
                Action::Changed(verdict) => {
                    let at = services.iter().position(|s| s.service == verdict.service);
                    said[at.expect("a service")].push(verdict.transition);
                }
                other @ (Action::Start { .. } | Action::Cancel(_)) => {
                    probes.push(format!("{now:?} {other:?}"));
                }
            }
        }
    }
    (probes, said)
}

proptest! {
    /// Services with the same checks cost as many probes as one of them, at the same times, and each
    /// is told what it would be told alone.
    #[test]
    fn many_services_are_judged_as_one(
        count in 2_usize..9,
        events in prop::collection::vec(happens(), 1..120),
    ) {
        let checks = [tcp(), Check { fall: 2, ..ping() }];
        let names: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
        let services: Vec<Judged> = names.iter().map(|name| judged(name, &checks)).collect();
        let (alone, said_alone) = play(&services[..1], &events);
        let (together, said) = play(&services, &events);
        prop_assert_eq!(alone, together);
        for one in &said {
            prop_assert_eq!(one, &said_alone[0]);
        }
    }
}

#[test]
fn a_service_is_judged_by_its_own_checks() {
    let (http, alive) = (Check { fall: 1, ..tcp() }, Check { fall: 1, ..ping() });
    let services = [judged("both", &[http, alive.clone()]), judged("one", &[alive])];
    let mut host = host(&services);
    assert_eq!(host.asked().len(), 2, "what both ask is asked once");
    assert_eq!((host.places("both"), host.places("one")), (Some(&[0, 1][..]), Some(&[1][..])));
    let mut running = Vec::new();
    let mut now = START;
    let mut round = |host: &mut Host, outcomes: [&str; 2]| {
        now = now + ms(2000);
        host.handle_timeout(now);
        drain(host, &mut running);
        for probe in std::mem::take(&mut running) {
            host.probe_ended(probe, outcome(outcomes[probe.check]), now);
            let _ = drain(host, &mut running);
        }
        (host.state("both").expect("known"), host.state("one").expect("known"))
    };
    assert_eq!(round(&mut host, ["ok", "ok"]), (State::Up, State::Up));
    assert_eq!(round(&mut host, ["status", "ok"]), (State::Down, State::Up));
    assert_eq!(round(&mut host, ["ok", "timeout"]), (State::Down, State::Down));
}

#[test]
fn a_service_that_comes_later_knows_what_is_known() {
    let one = judged("a", &[tcp()]);
    let mut host = host(std::slice::from_ref(&one));
    let mut running = Vec::new();
    host.handle_timeout(START + ms(200));
    drain(&mut host, &mut running);
    host.probe_ended(running.remove(0), Ok(()), START + ms(201));
    drain(&mut host, &mut running);
    host.reconfigure(&[judged("b", &[tcp()]), one], START + ms(300));
    assert_eq!(host.state("b"), Some(State::Up));
    let actions = drain(&mut host, &mut running);
    assert!(matches!(actions.as_slice(), [Action::Changed(_)]), "no probe for it: {actions:?}");
    host.reconfigure(&[], START + ms(400));
    assert_eq!((host.state("a"), host.asked().len()), (None, 0));
}

/// A service with one backend.
fn service(name: &str, port: u16, check: CheckOverride) -> Service {
    let backend = Backend {
        name: "rs1".into(),
        address: [192, 0, 2, 11].into(),
        weight: 1,
        check,
        drain: None,
    };
    Service {
        name: name.into(),
        vrrp: None,
        vip: [192, 0, 2, if name == "a" { 10 } else { 20 }].into(),
        protocol: dataplane::Protocol::Tcp,
        first_port: port,
        last_port: port,
        closed_ports: crate::ClosedPorts::Reject,
        scheduler: dataplane::SchedulerKind::Maglev,
        hash: None,
        persistence: None,
        backends: vec![backend],
        health: Vec::new(),
        failure: crate::FailurePolicy::default(),
    }
}

/// Whether a check of services with these ports is one.
fn is_same(ports: [u16; 2], checks: [&Check; 2], own: CheckOverride) -> bool {
    let services = [service("a", ports[0], CheckOverride::default()), service("b", ports[1], own)];
    let asked = |at: usize| Asked::new(&services[at], &services[at].backends[0], checks[at]);
    asked(0).is_same(&asked(1))
}

#[test]
fn what_is_the_same() {
    let (check, none) = (tcp(), CheckOverride::default);
    let at_81 = Check { port: Some(81), ..tcp() };
    let port = |port: u16| CheckOverride { port: Some(port), ..CheckOverride::default() };
    assert!(is_same([80, 80], [&check, &check], none()));
    assert!(!is_same([80, 81], [&check, &check], none()), "another port");
    assert!(is_same([81, 82], [&check, &at_81], none()), "the port's origin does not matter");
    assert!(is_same([80, 82], [&check, &check], port(80)), "a backend's own is its port as well");
    assert!(!is_same([80, 80], [&check, &check], port(81)));
    assert!(is_same([80, 81], [&ping(), &ping()], none()), "a ping has no port");
    let others = [
        Check { fall: 4, ..tcp() },
        Check { rise: 1, ..tcp() },
        Check { interval: ms(2000), ..tcp() },
        Check { timeout: ms(200), ..tcp() },
        Check { sentinel: false, ..tcp() },
        Check { source: Some([192, 0, 2, 1].into()), ..tcp() },
        Check { starts_up: true, ..tcp() },
    ];
    for other in &others {
        assert!(!is_same([80, 80], [&check, other], none()), "{other:?}");
    }
    let vip = Check { target: ProbeTarget::Vip, ..tcp() };
    assert!(!is_same([80, 80], [&vip, &vip], none()), "their VIPs differ");
    let script =
        Check { sentinel: false, ..super::check(CheckKind::Script(vec!["/bin/x".into()])) };
    assert!(!is_same([80, 80], [&script, &script], none()), "a script is told the service");
}

#[test]
fn what_a_backend_has_of_its_own() {
    let get = HttpCheck {
        method: "GET".into(),
        path: "/".into(),
        host: Some("a.example".into()),
        headers: Vec::new(),
        status: StatusSet::default(),
        body: None,
        tls: None,
    };
    let check = check(CheckKind::Http(get.clone()));
    let own =
        CheckOverride { port: Some(8081), host: Some("b.example".into()), path: Some("/x".into()) };
    let expected = HttpCheck { path: "/x".into(), host: Some("b.example".into()), ..get };
    let applied = own.applied_to(&check);
    assert_eq!((applied.port, &applied.kind), (Some(8081), &CheckKind::Http(expected)));
    assert_eq!(own.applied_to(&ping()), ping(), "there is nothing to replace");
    assert_eq!(CheckOverride::default().applied_to(&check), check);
}
