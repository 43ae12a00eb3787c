use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;
use crate::key::Protocol;

const HALF_OPEN: Duration = Duration::from_secs(60);

fn table(capacity: usize) -> PendingTable {
    PendingTable::new(capacity, 1, HALF_OPEN)
}

fn seconds(s: u64) -> Tick {
    Tick::from_nanos(s * 1_000_000_000)
}

fn source(table: &PendingTable, number: u32) -> PendingKey {
    table.source_key(ServiceSlot(1), Addr::from_v4(number.to_be_bytes()))
}

/// A call that would choose this backend.
fn choose(table: &PendingTable, key: PendingKey, now: Tick, backend: u16) -> Option<Choice> {
    table.choose_or_join(key, now, || Some(BackendSlot(backend)), |_| true)
}

const fn fresh(backend: u16) -> Option<Choice> {
    Some(Choice { backend: BackendSlot(backend), fresh: true })
}

const fn joined(backend: u16) -> Option<Choice> {
    Some(Choice { backend: BackendSlot(backend), fresh: false })
}

#[test]
fn a_choice_is_joined_until_it_is_over() {
    // Also where the coarse clock wraps.
    for start in [0, 8796, 70_000, (1 << 16) * 67] {
        let table = table(64);
        let key = source(&table, 1);
        assert_eq!(table.lookup(key, seconds(start)), None);
        assert_eq!(choose(&table, key, seconds(start), 0), fresh(0));
        assert_eq!(table.lookup(key, seconds(start + 59)), Some(BackendSlot(0)));
        assert_eq!(choose(&table, key, seconds(start + 59), 1), joined(0), "from {start}");
        assert_eq!(choose(&table, key, seconds(start + 118), 2), joined(0), "it was refreshed");
        assert_eq!(table.lookup(key, seconds(start + 179)), None, "from {start}");
        assert_eq!(choose(&table, key, seconds(start + 179), 3), fresh(3));
    }
}

#[test]
fn a_choice_lives_no_shorter_than_asked_for_and_hardly_longer() {
    for half_open in [1, 40, 1000, 3600] {
        let half_open = Duration::from_millis(half_open);
        for start in 0..200 {
            let table = PendingTable::new(7, 1, half_open);
            let start = Tick::from_nanos(start * 1_000_003);
            let key = source(&table, 1);
            choose(&table, key, start, 1);
            let just = Duration::from_nanos(1);
            assert!(table.lookup(key, start + (half_open - just)).is_some());
            assert!(
                table
                    .lookup(key, start + half_open + 2 * Duration::from_nanos(1 << UNIT_SHIFT))
                    .is_none()
            );
        }
    }
}

#[test]
fn a_choice_may_last_longer_than_others() {
    for start in [0, 8796] {
        for (minutes, lasts) in [(0, 60), (5, 300), (60, 3600), (600, 4389)] {
            let table = table(64);
            let key = source(&table, 1).lasting(Duration::from_secs(minutes * 60));
            let there = |at| {
                // Other calls, and the sweep, neither shorten nor prolong it.
                table.sweep(seconds(start + at), table.sets());
                table.lookup(source(&table, 1), seconds(start + at)).is_some()
            };
            choose(&table, key, seconds(start), 1);
            assert!(there(lasts - 1), "{minutes} min");
            choose(&table, key, seconds(start + lasts - 1), 2);
            assert_eq!(choose(&table, source(&table, 1), seconds(start + lasts), 3), joined(1));
            assert!(there(2 * lasts - 2), "{minutes} min: made to last by whoever joins it");
            let half_open_more = if minutes == 0 { 1 } else { 0 };
            assert!(!there(2 * lasts + half_open_more), "{minutes} min");
        }
    }
}

/// A flood of datagrams, whose choices last for minutes, between a client's SYN and its ACK: as
/// much as a flood of SYNs would cost, and no more.
#[test]
fn long_choices_give_way_to_handshakes() {
    let lost = |lasting: Duration| {
        let table = table(1 << 12);
        let mut spoofed = 1 << 24;
        let mut flood = |count: u32, at: u64| {
            for _ in 0..count {
                spoofed += 1;
                choose(&table, source(&table, spoofed).lasting(lasting), seconds(at), 1);
            }
        };
        flood(20_000, 0);
        let handshake = |number: u32| {
            flood(1024, 1);
            choose(&table, source(&table, number), seconds(1), 7);
            flood(1024, 1);
            u32::from(table.lookup(source(&table, number), seconds(1)).is_none())
        };
        (0..500).map(handshake).sum::<u32>()
    };
    let (by_datagrams, by_syns) = (lost(Duration::from_secs(300)), lost(Duration::ZERO));
    assert!(by_datagrams <= by_syns + 20, "{by_datagrams} and {by_syns} of 500 lost");
}

#[test]
fn keys_do_not_share_choices() {
    let table = table(1 << 12);
    let five_tuple = |src_port| FlowKey {
        src: Addr::from_v4([10, 0, 0, 1]),
        dst: Addr::from_v4([192, 0, 2, 1]),
        src_port,
        dst_port: 80,
        protocol: Protocol::Tcp,
    };
    let here = Addr::from_v4([10, 0, 0, 1]);
    let keys = [
        table.source_key(ServiceSlot(1), here),
        table.source_key(ServiceSlot(2), here),
        table.source_key(ServiceSlot(1), Addr::from_v4([10, 0, 0, 2])),
        table.flow_key(&five_tuple(1)),
        table.flow_key(&five_tuple(2)),
    ];
    for (number, &key) in (0..).zip(&keys) {
        assert_eq!(choose(&table, key, seconds(0), number), fresh(number));
    }
    for (number, &key) in (0..).zip(&keys) {
        assert_eq!(choose(&table, key, seconds(1), 99), joined(number));
    }
    assert_ne!(PendingTable::new(7, 2, HALF_OPEN).flow_key(&five_tuple(1)), keys[3]);
}

#[test]
fn an_invalid_choice_is_made_anew() {
    let table = table(64);
    let key = source(&table, 1);
    choose(&table, key, seconds(0), 1);
    let none = table.choose_or_join(key, seconds(1), || None, |_| false);
    assert_eq!(none, None);
    let other = table.choose_or_join(key, seconds(1), || Some(BackendSlot(2)), |b| b.0 != 1);
    assert_eq!(other, fresh(2));
    assert_eq!(choose(&table, key, seconds(2), 3), joined(2));
}

#[test]
fn a_taken_choice_is_gone() {
    let table = table(64);
    let key = source(&table, 1);
    choose(&table, key, seconds(0), 1);
    assert_eq!(table.take(key, seconds(1)), Some(BackendSlot(1)));
    assert_eq!(table.take(key, seconds(1)), None);
    assert_eq!(choose(&table, key, seconds(1), 2), fresh(2));
}

#[test]
fn a_full_set_forgets_the_oldest() {
    let table = table(1);
    assert_eq!((table.capacity(), table.sets()), (7, 1));
    for number in 0..7 {
        choose(&table, source(&table, number), seconds(number.into()), 1);
    }
    // Where a key's home is held by the oldest, that gives way at once; else it is the oldest of
    // the others. Either way the youngest stay.
    choose(&table, source(&table, 7), seconds(7), 1);
    let left: Vec<_> = (0..8)
        .filter(|&number| table.lookup(source(&table, number), seconds(7)).is_some())
        .collect();
    assert_eq!(left, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_flood_of_spoofed_sources_leaves_recent_choices() {
    let table = table(1 << 12);
    let real = |number: u32| source(&table, 1_000_000 + number);
    let (mut lost, mut spoofed) = (0, 0);
    for round in 0..500 {
        choose(&table, real(round), seconds(1), 7);
        // A quarter of the table between a client's SYN and its ACK.
        for _ in 0..1024 {
            choose(&table, source(&table, spoofed), seconds(1), 1);
            spoofed += 1;
        }
        // All of the same age to the coarse clock: only the sets' spread protects.
        lost += u32::from(table.lookup(real(round), seconds(1)).is_none());
    }
    assert!(lost < 150, "{lost} of 500 lost");
}

#[test]
fn a_sweep_clears_what_is_over_before_the_clock_wraps() {
    let table = table(1000);
    for number in 0..500 {
        choose(&table, source(&table, number), seconds(0), 1);
    }
    let used = |table: &PendingTable| {
        table.sets.iter().flat_map(|set| &set.words).filter(|way| way.load(Relaxed) != 0).count()
    };
    assert!(used(&table) > 400);
    table.sweep(seconds(50), table.sets());
    assert!(used(&table) > 400, "nothing is over yet");
    let before = used(&table);
    table.sweep(seconds(61), table.sets() / 2);
    assert!((1..before).contains(&used(&table)));
    table.sweep(seconds(61), table.sets().div_ceil(2));
    assert_eq!(used(&table), 0);
}

#[test]
fn a_new_lifetime_holds_at_once() {
    let table = table(8);
    let key = source(&table, 1);
    choose(&table, key, seconds(0), 1);
    table.set_half_open(Duration::from_secs(5));
    assert_eq!(table.lookup(key, seconds(6)), None);
    assert_eq!(units(Duration::MAX), MAX_UNITS);
}

/// Another worker chooses for the key while this one does.
#[test]
fn a_choice_that_comes_late_is_dropped() {
    let table = table(7);
    for other in 10..30 {
        // In an empty set, in a full one, and where the home word has to give way.
        choose(&table, source(&table, other), seconds(0), 9);
        let key = source(&table, other + 100);
        let mut calls = 0;
        let late = || {
            calls += 1;
            assert_eq!(choose(&table, key, seconds(1), 2), fresh(2));
            Some(BackendSlot(1))
        };
        assert_eq!(table.choose_or_join(key, seconds(1), late, |_| true), joined(2));
        assert_eq!(calls, 1);
        assert_eq!(table.lookup(key, seconds(1)), Some(BackendSlot(2)));
    }
}

/// Several workers meet SYNs of the same sources, in sets that overflow with others' choices.
#[test]
fn of_several_choices_at_once_one_wins() {
    const WORKERS: u16 = 4;
    const ROUNDS: u32 = 3000;
    let table = table(16);
    let barrier = Barrier::new(WORKERS.into());
    let fresh = AtomicU32::new(0);
    let choices: Vec<Vec<BackendSlot>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (table, barrier, fresh) = (&table, &barrier, &fresh);
                scope.spawn(move || {
                    (0..ROUNDS)
                        .map(|round| {
                            barrier.wait();
                            let now = seconds(round.into());
                            let choice = choose(table, source(table, round), now, worker);
                            let choice = choice.expect("chosen");
                            fresh.fetch_add(choice.fresh.into(), Relaxed);
                            choice.backend
                        })
                        .collect()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    for round in 0..ROUNDS as usize {
        let of_round: Vec<_> = choices.iter().map(|of_worker| of_worker[round]).collect();
        assert!(
            of_round.iter().all(|choice| *choice == of_round[0]),
            "round {round}: {of_round:?}"
        );
    }
    assert_eq!(fresh.load(Relaxed), ROUNDS);
}

/// While other workers make choices give way in the same sets all the time, a choice that is young
/// enough to stay is found by every search for it.
#[test]
fn moving_a_choice_never_hides_it() {
    const CHURN: u32 = 300_000;
    let table = table(7);
    let kept = source(&table, 1);
    choose(&table, kept, seconds(1000), 5);
    std::thread::scope(|scope| {
        for worker in 1..3u32 {
            let table = &table;
            scope.spawn(move || {
                for number in 0..CHURN {
                    // Older than the kept choice: these push out each other.
                    choose(table, source(table, worker << 24 | number), seconds(999), 9);
                }
            });
        }
        for _ in 0..CHURN {
            assert_eq!(choose(&table, kept, seconds(1000), 6), joined(5));
            assert_eq!(table.lookup(kept, seconds(1000)), Some(BackendSlot(5)));
        }
    });
}

proptest! {
    /// In a table with room for all, it is a map with a timeout.
    #[test]
    fn agrees_with_a_map(
        events in prop::collection::vec((0..6u32, 0..5u16, 0..70u64, any::<bool>()), 1..200),
    ) {
        let table = PendingTable::new(1 << 12, 1, Duration::from_millis(59_500));
        let mut model: BTreeMap<u32, (u16, u64)> = BTreeMap::new();
        // The coarse clock wraps underway.
        let mut now = 8_700;
        for (number, backend, pause, sweep) in events {
            now += pause;
            if sweep {
                table.sweep(seconds(now), table.sets());
            }
            model.retain(|_, (_, at)| now - *at < 60);
            let (expected, is_fresh) = match model.get(&number) {
                Some(&(backend, _)) => (backend, false),
                None => (backend, true),
            };
            let choice = choose(&table, source(&table, number), seconds(now), backend);
            let expected = Choice { backend: BackendSlot(expected), fresh: is_fresh };
            prop_assert_eq!(choice, Some(expected));
            model.insert(number, (expected.backend.0, now));
            for other in 0..6 {
                let there = table.lookup(source(&table, other), seconds(now));
                prop_assert_eq!(there, model.get(&other).map(|&(backend, _)| BackendSlot(backend)));
            }
        }
    }
}
