use std::time::Duration;

use super::table::Budget;
use super::*;
use crate::addr::Addr;
use crate::slots::{BackendSlot, ServiceSlot};
use crate::tick::Tick;

const TIMEOUT: Duration = Duration::from_secs(50);

fn key(number: u32) -> TemplateKey {
    TemplateKey::new(ServiceSlot(1), Addr::from_v4(number.to_be_bytes()), 128)
}

fn seconds(s: u64) -> Tick {
    Tick::from_nanos(s * 1_000_000_000)
}

fn join(table: &PersistenceTable, number: u32, backend: u16, at: u64) -> Joined {
    table.join(&key(number), BackendSlot(backend), TIMEOUT, false, seconds(at))
}

fn epoch(joined: Joined) -> Epoch {
    joined.epoch().unwrap_or_else(|| panic!("{joined:?} is no member"))
}

fn sweep_all(table: &PersistenceTable, at: u64) -> usize {
    table.sweep(seconds(at), table.maps())
}

/// What may happen to the template of one source, which the first member makes at 0 s.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A handshake completes.
    Join,
    /// A flow is picked up from its middle.
    Attach,
    /// A member's life ends; its end may be reported late, after later events.
    End,
    /// A packet trails an end.
    Touch,
}

/// What happens when (seconds), and when the template expires.
type Case = (&'static str, &'static [(u64, Event)], Option<u64>);

#[test]
fn life_cycle() {
    use Event::{Attach, End, Join, Touch};
    let cases: &[Case] = &[
        ("it does not expire while its flow lives", &[], None),
        ("the end of the last flow", &[(10, End)], Some(60)),
        ("a flow that lived for long", &[(5000, End)], Some(5050)),
        ("a second handshake", &[(10, End), (40, Join), (41, End)], Some(91)),
        ("one of two flows ended", &[(10, Join), (20, End)], None),
        ("the later of two ends", &[(10, Join), (20, End), (30, End)], Some(80)),
        ("ends noticed out of order", &[(10, Join), (30, End), (20, End)], Some(80)),
        ("a trailing packet", &[(10, End), (45, Touch)], Some(95)),
        ("a touch does not shorten", &[(10, End), (5, Touch)], Some(60)),
        ("a picked-up flow holds it", &[(5, Attach), (10, End)], None),
        ("a pick-up refreshes only at its end", &[(10, End), (50, Attach)], None),
        ("and then does", &[(10, End), (50, Attach), (200, End)], Some(250)),
    ];
    for &(what, events, expected) in cases {
        let table = PersistenceTable::new(10, 1);
        let template = TemplateRef { key: key(1), epoch: epoch(join(&table, 1, 3, 0)) };
        for &(at, event) in events {
            match event {
                Join => assert_eq!(join(&table, 1, 3, at), Joined::Refreshed(template.epoch)),
                Attach => {
                    let attached = table.attach(&key(1), BackendSlot(3), seconds(at));
                    assert_eq!(attached, Some(template.epoch), "{what}");
                }
                End => table.end(&template, seconds(at)),
                Touch => table.touch(&template, seconds(at)),
            }
        }
        let there = |at| table.get(&key(1), seconds(at)).is_some();
        match expected {
            Some(deadline) => {
                assert!(there(deadline - 1), "{what}");
                assert!(!there(deadline), "{what}");
                assert_eq!(sweep_all(&table, deadline - 1), 0, "{what}");
                assert_eq!(sweep_all(&table, deadline), 1, "{what}");
            }
            None => assert!(there(1_000_000) && sweep_all(&table, 1_000_000) == 0, "{what}"),
        }
    }
}

#[test]
fn an_expired_template_is_made_anew() {
    let table = PersistenceTable::new(10, 1);
    let first = epoch(join(&table, 1, 3, 0));
    table.end(&TemplateRef { key: key(1), epoch: first }, seconds(0));
    assert_eq!(table.attach(&key(1), BackendSlot(3), seconds(50)), None);
    let Joined::Created(second) = join(&table, 1, 4, 50) else { panic!("it was expired") };
    assert_ne!(first, second);
    assert_eq!((table.templates_of(BackendSlot(3)), table.templates_of(BackendSlot(4))), (0, 1));
    assert_eq!(table.len(), 1);
    table.end(&TemplateRef { key: key(1), epoch: first }, seconds(60));
    assert!(table.get(&key(1), seconds(1000)).is_some(), "an end of the old one does not count");
    let stats = table.stats();
    assert_eq!((stats.created, stats.expired), (2, 1));
}

#[test]
fn a_replaced_template_ignores_its_members() {
    let table = PersistenceTable::new(10, 1);
    let old = TemplateRef { key: key(1), epoch: epoch(join(&table, 1, 3, 0)) };
    let kept = Template { backend: BackendSlot(3), epoch: old.epoch };
    assert_eq!(join(&table, 1, 4, 1), Joined::Kept(kept));
    assert_eq!(table.attach(&key(1), BackendSlot(4), seconds(1)), None, "another backend");
    let joined = table.join(&key(1), BackendSlot(4), TIMEOUT, true, seconds(2));
    let Joined::Replaced(new) = joined else { panic!("{joined:?}") };
    table.end(&old, seconds(30));
    table.touch(&old, seconds(40));
    assert_eq!(
        table.get(&key(1), seconds(1000)),
        Some(Template { backend: BackendSlot(4), epoch: new })
    );
    table.end(&TemplateRef { epoch: new, ..old }, seconds(3));
    assert!(table.get(&key(1), seconds(52)).is_some());
    assert_eq!(table.get(&key(1), seconds(53)), None);
    assert_eq!((table.templates_of(BackendSlot(3)), table.templates_of(BackendSlot(4))), (0, 1));
    assert_eq!((table.stats().created, table.stats().replaced), (1, 1));
}

#[test]
fn a_new_timeout_holds_from_the_next_handshake() {
    let table = PersistenceTable::new(10, 1);
    let template = TemplateRef { key: key(1), epoch: epoch(join(&table, 1, 3, 0)) };
    table.end(&template, seconds(0));
    table.join(&key(1), BackendSlot(3), Duration::from_secs(5), false, seconds(10));
    table.end(&template, seconds(10));
    assert!(table.get(&key(1), seconds(14)).is_some());
    assert_eq!(table.get(&key(1), seconds(15)), None);
}

#[test]
fn a_full_table_refuses_and_recovers() {
    let table = PersistenceTable::new(100, 1);
    let epochs: Vec<_> = (0..100).map(|number| epoch(join(&table, number, 1, 0))).collect();
    for number in 100..10_000 {
        assert_eq!(join(&table, number, 1, 0), Joined::Full);
    }
    assert_eq!((table.len(), table.capacity(), table.stats().refused), (100, 100, 9900));
    assert!(matches!(join(&table, 5, 1, 0), Joined::Refreshed(_)), "who is there stays");
    table.end(&TemplateRef { key: key(7), epoch: epochs[7] }, seconds(0));
    assert_eq!(sweep_all(&table, 50), 1);
    assert!(matches!(join(&table, 100, 1, 50), Joined::Created(_)));
    assert_eq!(
        PersistenceTable::new(0, 1).join(&key(1), BackendSlot(1), TIMEOUT, false, seconds(0)),
        Joined::Full
    );
}

/// However late the sweep comes by.
#[test]
fn expired_templates_take_no_room() {
    let table = PersistenceTable::new(100, 1);
    for number in 0..100 {
        let template = TemplateRef { key: key(number), epoch: epoch(join(&table, number, 1, 0)) };
        if number < 60 {
            table.end(&template, seconds(0));
        }
    }
    assert!(!table.has_room(seconds(49)));
    assert_eq!(join(&table, 1000, 1, 49), Joined::Full);
    for number in 1000..1060 {
        assert!(matches!(join(&table, number, 1, 50), Joined::Created(_)), "template {number}");
    }
    assert_eq!((join(&table, 2000, 1, 50), table.len()), (Joined::Full, 100));
    assert_eq!(table.templates_of(BackendSlot(1)), 100);
}

/// A handshake that finds a large table full of templates that are in use looks at few of them.
#[test]
fn room_is_sought_within_a_budget() {
    let budget = Budget::default();
    let looked = |now: Tick| (0..100_000).filter(|_| budget.allow(100, now)).count() * 100;
    assert!((4096..4200).contains(&looked(seconds(1))), "of one millisecond");
    assert_eq!(looked(seconds(1)), 0, "and no more in that millisecond");
    let half = seconds(1) + Duration::from_micros(500);
    assert!((2000..2200).contains(&looked(half)));
    assert!((4096..4200).contains(&looked(seconds(9))), "it does not accumulate");
}

#[test]
fn a_sweep_goes_round_in_equal_steps() {
    let table = PersistenceTable::new(1_000_000, 1);
    for number in 0..20_000 {
        let template = TemplateRef { key: key(number), epoch: epoch(join(&table, number, 1, 0)) };
        table.end(&template, seconds(0));
    }
    let steps = 200;
    let share = table.maps().div_ceil(steps);
    let swept = (0..steps).map(|_| table.sweep(seconds(50), share)).sum::<usize>();
    assert_eq!((swept, table.len()), (20_000, 0));
}

#[test]
fn a_backend_is_forgotten() {
    let table = PersistenceTable::new(1000, 1);
    for number in 0..300 {
        join(&table, number, u16::from(number % 3 == 0), 0);
    }
    assert_eq!(table.templates_of(BackendSlot(1)), 100);
    assert_eq!(table.forget(BackendSlot(1)), 100);
    assert_eq!((table.templates_of(BackendSlot(1)), table.templates_of(BackendSlot(0))), (0, 200));
    assert_eq!((table.len(), table.stats().forgotten), (200, 100));
    assert_eq!(table.get(&key(3), seconds(0)), None);
    assert!(table.get(&key(4), seconds(0)).is_some());
}

#[test]
fn pages_cover_the_table_once() {
    let table = PersistenceTable::new(1000, 1);
    for number in 0..500 {
        let template = TemplateRef { key: key(number), epoch: epoch(join(&table, number, 1, 0)) };
        if number < 100 {
            table.end(&template, seconds(0));
        }
    }
    for limit in [1, 7, 1000] {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = table.page(after, limit, seconds(50));
            assert!(page.entries.len() <= limit);
            keys.extend(page.entries.iter().map(|entry| entry.key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        keys.sort_unstable();
        let expected: Vec<_> = (100..500).map(key).collect();
        assert_eq!(keys, expected, "limit {limit}");
    }
    let entry = table.page(None, 1, seconds(0)).entries[0];
    assert_eq!((entry.backend, entry.live_flows.max(1)), (BackendSlot(1), 1));
    assert_eq!(entry.deadline, seconds(50));
}

#[test]
fn a_dump_asked_for_nothing_ends() {
    let table = PersistenceTable::new(10, 1);
    join(&table, 1, 1, 0);
    assert_eq!(table.page(None, 0, seconds(0)), PersistencePage { entries: vec![], next: None });
}

#[test]
fn large_tables_have_short_locks() {
    assert_eq!(PersistenceTable::new(1_000_000, 1).maps(), 256);
    assert_eq!(PersistenceTable::new(0, 1).maps(), 64);
}

#[test]
fn prefixes_share_a_template() {
    let client = |last| Addr::from_v4([198, 51, 100, last]);
    let of = |last, len| TemplateKey::new(ServiceSlot(1), client(last), len);
    assert_eq!(of(1, 120), of(200, 120));
    assert_ne!(of(1, 128), of(200, 128));
}

/// Workers make, refresh, end and sweep the same templates; what is left adds up.
#[test]
fn counts_add_up_under_contention() {
    let table = PersistenceTable::new(50, 1);
    std::thread::scope(|scope| {
        for worker in 0..3u16 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..20_000u32 {
                    let (number, at) = (round * 7 % 80, u64::from(round / 100));
                    let replace = round % 13 == 0;
                    let backend = BackendSlot(worker % 2);
                    let timeout = Duration::from_secs(3);
                    let joined = table.join(&key(number), backend, timeout, replace, seconds(at));
                    if let Some(epoch) = joined.epoch() {
                        table.end(&TemplateRef { key: key(number), epoch }, seconds(at));
                    }
                    table.sweep(seconds(at), 1);
                    assert!(table.len() <= 50);
                }
            });
        }
    });
    let left = table.page(None, usize::MAX, seconds(0)).entries;
    assert!(left.iter().all(|entry| entry.live_flows == 0), "every member left");
    let of = |backend| left.iter().filter(|entry| entry.backend == BackendSlot(backend)).count();
    for backend in [0, 1] {
        assert_eq!(table.templates_of(BackendSlot(backend)) as usize, of(backend));
    }
    let stats = table.stats();
    assert_eq!(table.len() as u64, stats.created - stats.expired - stats.forgotten);
    assert_eq!(table.len(), left.len());
    sweep_all(&table, 1_000_000);
    assert!(table.is_empty());
}
