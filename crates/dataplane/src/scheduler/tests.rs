//! Every scheduler: spread, weights, agreement between nodes, and what a change costs.

mod verdicts;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::thread;

use super::*;
use crate::key::{FlowKey, Protocol};

const KINDS: [SchedulerKind; 5] = [
    SchedulerKind::Maglev,
    SchedulerKind::Rr,
    SchedulerKind::Wrr,
    SchedulerKind::Lc,
    SchedulerKind::Wlc,
];

fn key() -> ServiceKey {
    ServiceKey { vip: address(250), protocol: Protocol::Tcp, first_port: 80, last_port: 80 }
}

fn address(at: u16) -> Addr {
    let [high, low] = at.to_be_bytes();
    Addr::from(IpAddr::from(Ipv4Addr::new(10, 0, high, low)))
}

fn source(at: u32) -> Addr {
    Addr::from(IpAddr::from(Ipv4Addr::from(0xc633_0000 + at)))
}

/// Slots are neither in order nor dense.
fn member(at: u16, weight: u32) -> Member {
    Member { slot: BackendSlot(1000 - 7 * at), address: address(at), weight }
}

fn members(weights: &[u32]) -> Vec<Member> {
    weights.iter().zip(0..).map(|(&weight, at)| member(at, weight)).collect()
}

fn addresses(members: &[Member]) -> BTreeMap<BackendSlot, Addr> {
    members.iter().map(|member| (member.slot, member.address)).collect()
}

fn idle(_: BackendSlot) -> Load {
    Load::default()
}

/// How often each member is chosen for as many addresses, all of which stay connected.
fn spread(kind: SchedulerKind, members: &[Member], sources: u32) -> Vec<u32> {
    let scheduler = Scheduler::new(kind, key(), members);
    let chosen = RefCell::new(BTreeMap::<BackendSlot, u32>::new());
    let load = |slot| Load {
        active: chosen.borrow().get(&slot).copied().unwrap_or_default(),
        inactive: 0,
    };
    for at in 0..sources {
        let slot = scheduler.choose(source_hash(source(at)), &load).expect("no choice");
        *chosen.borrow_mut().entry(slot).or_default() += 1;
    }
    let chosen = chosen.into_inner();
    assert_eq!(chosen.values().sum::<u32>(), sources);
    members.iter().map(|member| chosen.get(&member.slot).copied().unwrap_or_default()).collect()
}

#[test]
fn equal_backends_get_equal_shares() {
    for kind in KINDS {
        for count in spread(kind, &members(&[1; 4]), 1000) {
            assert!((200..=300).contains(&count), "{kind:?}: {count} of 250");
        }
    }
}

/// `rr` and `lc` know of weights only whether they are zero.
#[test]
fn shares_follow_the_weights() {
    for weights in [[1, 2, 3, 4], [10, 1, 5, 4], [100, 100, 0, 50], [7, 0, 0, 0]] {
        for kind in KINDS {
            let effective = match kind {
                SchedulerKind::Rr | SchedulerKind::Lc => weights.map(|weight| weight.min(1)),
                SchedulerKind::Maglev | SchedulerKind::Wrr | SchedulerKind::Wlc => weights,
            };
            let total = f64::from(effective.iter().sum::<u32>());
            for (count, weight) in spread(kind, &members(&weights), 10_000).iter().zip(effective) {
                let due = 10_000.0 * f64::from(weight) / total;
                let error = (f64::from(*count) - due).abs();
                assert!(error <= due * 0.1, "{kind:?} {weights:?}: {count} for {due}");
            }
        }
    }
}

#[test]
fn without_members_there_is_no_choice() {
    for kind in KINDS {
        for members in [vec![], members(&[0, 0, 0])] {
            let scheduler = Scheduler::new(kind, key(), &members);
            assert_eq!(scheduler.choose(1, &idle), None);
            assert_eq!(scheduler.stable(1), None);
        }
    }
}

#[test]
fn weight_zero_is_never_chosen() {
    for kind in KINDS {
        let scheduler = Scheduler::new(kind, key(), &members(&[1, 0, 3, 0]));
        let banned = [member(1, 0).slot, member(3, 0).slot];
        for at in 0..10_000 {
            let hash = source_hash(source(at));
            for slot in [scheduler.choose(hash, &idle), scheduler.stable(hash)] {
                assert!(slot.is_some_and(|slot| !banned.contains(&slot)), "{kind:?}");
            }
        }
    }
}

/// Another node: other slots, another order, and a drained backend that only it knows of.
#[test]
fn two_nodes_choose_the_same_backend() {
    let here: Vec<Member> = (0..10).map(|at| member(at, 1 + u32::from(at) % 3)).collect();
    let mut there: Vec<Member> = here
        .iter()
        .rev()
        .zip(0u16..)
        .map(|(member, slot)| Member { slot: BackendSlot(slot), ..*member })
        .collect();
    there.rotate_left(3);
    there.push(Member { slot: BackendSlot(99), address: address(99), weight: 0 });

    for kind in KINDS {
        let (one, two) = (Scheduler::new(kind, key(), &here), Scheduler::new(kind, key(), &there));
        let (names_here, names_there) = (addresses(&here), addresses(&there));
        for at in 0..10_000 {
            let hash = source_hash(source(at));
            let (one, two) = (one.stable(hash).unwrap(), two.stable(hash).unwrap());
            assert_eq!(names_here[&one], names_there[&two]);
        }
    }
}

#[test]
fn two_builds_are_identical_in_any_order() {
    let mut members = members(&[3, 1, 4, 0, 5, 9, 2, 6]);
    let table = MaglevTable::build(key(), &members);
    assert_eq!(MaglevTable::build(key(), &members), table);
    members.reverse();
    assert_eq!(MaglevTable::build(key(), &members), table);
    members.retain(|member| member.weight > 0);
    assert_eq!(MaglevTable::build(key(), &members), table);
}

#[test]
fn services_are_permuted_differently() {
    let members = members(&[1; 4]);
    let other = ServiceKey { first_port: 81, last_port: 81, ..key() };
    let (one, two) = (MaglevTable::build(key(), &members), MaglevTable::build(other, &members));
    let same = (0..10_000).filter(|&at| one.lookup(source(at)) == two.lookup(source(at))).count();
    assert!((2000..3000).contains(&same), "{same} of 10000 for one in four");
}

/// Of the sources that were not on the backend that goes, or do not go to the one that comes.
#[test]
fn one_backend_of_ten_moves_few_others() {
    for gone in 0..10 {
        let all = members(&[1; 10]);
        let rest: Vec<Member> =
            all.iter().copied().filter(|member| member.address != address(gone)).collect();
        let (with, without) = (MaglevTable::build(key(), &all), MaglevTable::build(key(), &rest));
        let lost = member(gone, 1).slot;
        let (mut stayed, mut moved) = (0, 0);
        for at in 0..100_000 {
            let (before, after) =
                (with.lookup(source(at)).unwrap(), without.lookup(source(at)).unwrap());
            assert_ne!(after, lost);
            match before {
                slot if slot == lost => {}
                slot if slot == after => stayed += 1,
                _ => moved += 1,
            }
        }
        assert!(moved * 100 <= stayed + moved, "{moved} moved, {stayed} stayed");
    }
}

#[test]
fn a_changed_weight_moves_about_its_share() {
    let (before, mut after) = (members(&[10; 10]), members(&[10; 10]));
    after[4].weight = 5;
    let (before, after) = (MaglevTable::build(key(), &before), MaglevTable::build(key(), &after));
    let moved =
        (0..100_000).filter(|&at| before.lookup(source(at)) != after.lookup(source(at))).count();
    // Half of a tenth has to move, and it is a twentieth of the new total more.
    assert!((4_000..9_000).contains(&moved), "{moved} of 100000");
}

#[test]
fn every_member_has_its_share_of_the_table() {
    let linear = |at| 1 + u32::from(at);
    let steep = |at| if at == 0 { 65_535 } else { 1 };
    for weight in [&linear as &dyn Fn(u16) -> u32, &steep] {
        let all: Vec<Member> = (0..1000)
            .map(|at| Member { slot: BackendSlot(at), address: address(at), weight: weight(at) })
            .collect();
        let total: f64 = all.iter().map(|member| f64::from(member.weight)).sum();
        for (count, member) in entries(&all).into_iter().zip(all) {
            let share = f64::from(member.weight) / total;
            let error = (f64::from(count) - share * MaglevTable::SIZE as f64).abs();
            assert!(count > 0 && error <= 1.0 + 1000.0 * share, "{count} for {member:?}");
        }
    }
}

/// How many entries each member has; slots are indices.
fn entries(members: &[Member]) -> Vec<u32> {
    let table = MaglevTable::build(key(), members);
    assert!(table.lookup_hash(u64::MAX).is_some(), "the last entry");
    let mut entries = vec![0u32; members.len()];
    for position in 0..MaglevTable::SIZE as u64 {
        // The smallest hash that belongs to the entry.
        let hash = (position << 32).div_ceil(MaglevTable::SIZE as u64) << 32;
        entries[table.lookup_hash(hash).unwrap().index()] += 1;
    }
    entries
}

#[test]
fn workers_share_one_cursor() {
    const WORKERS: u32 = 4;
    const CHOICES: u32 = 10_000;
    let weights = [1, 3, 2, 4];
    let members = members(&weights);
    for (kind, due) in
        [(SchedulerKind::Rr, [10_000; 4]), (SchedulerKind::Wrr, [4_000, 12_000, 8_000, 16_000])]
    {
        let scheduler = Scheduler::new(kind, key(), &members);
        let start = Barrier::new(WORKERS as usize);
        let worker = || {
            start.wait();
            let choices = (0..CHOICES).filter_map(|_| scheduler.choose(0, &idle));
            choices.fold(BTreeMap::new(), |mut counts, slot| {
                *counts.entry(slot).or_insert(0u32) += 1;
                counts
            })
        };
        let mut total = BTreeMap::new();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
            for worker in workers {
                for (slot, count) in worker.join().unwrap() {
                    *total.entry(slot).or_insert(0) += count;
                }
            }
        });
        for (member, due) in members.iter().zip(due) {
            assert_eq!(total[&member.slot], due, "{kind:?}");
        }
    }
}

#[test]
fn a_rebuilt_scheduler_goes_on_where_it_was() {
    let (one, two, three) = (member(1, 1), member(2, 1), member(3, 1));
    let before = Scheduler::new(SchedulerKind::Rr, key(), &[one, two, three]);
    assert_eq!(before.choose(0, &idle), Some(one.slot));
    let after = before.rebuilt(&[two, one], &[two, one]);
    assert_eq!(after.choose(0, &idle), Some(two.slot));
    assert_eq!(before.choose(0, &idle), Some(three.slot));
    assert_eq!(after.choose(0, &idle), Some(two.slot));
    assert_eq!(after.kind(), SchedulerKind::Rr);
    assert_eq!(after.members(), [one, two]);
}

#[test]
fn an_unchanged_scheduler_shares_its_tables() {
    let [mut one, two] = [member(1, 1), member(2, 1)];
    let before = Scheduler::new(SchedulerKind::Maglev, key(), &[one, two]);
    let same = before.rebuilt(&[two, one, member(3, 0)], &[two, one]);
    assert!(before.stable.is_same(&same.stable));
    one.weight = 2;
    assert!(!before.rebuilt(&[one, two], &[one, two]).stable.is_same(&before.stable));
}

#[test]
fn least_connections_weigh_active_ones() {
    let members = members(&[1, 2, 4]);
    let slots: Vec<_> = members.iter().map(|member| member.slot).collect();
    let choose = |kind, loads: [(u32, u32); 3]| {
        let load = |slot| {
            let at = slots.iter().position(|&known| known == slot).unwrap();
            let (active, inactive) = loads[at];
            Load { active, inactive }
        };
        let scheduler = Scheduler::new(kind, key(), &members);
        // Wherever the scan starts.
        let chosen: Vec<_> = (0..3).map(|_| scheduler.choose(0, &load).unwrap()).collect();
        assert!(chosen.iter().all(|slot| *slot == chosen[0]), "{chosen:?}");
        slots.iter().position(|slot| *slot == chosen[0]).unwrap()
    };
    assert_eq!(choose(SchedulerKind::Lc, [(5, 0), (4, 255), (5, 1)]), 1);
    assert_eq!(choose(SchedulerKind::Lc, [(0, 256), (1, 1), (0, 255)]), 2);
    assert_eq!(choose(SchedulerKind::Wlc, [(2, 0), (3, 255), (8, 1)]), 1);
    assert_eq!(choose(SchedulerKind::Wlc, [(10, 0), (21, 0), (41, 1)]), 0);
    assert_eq!(
        choose(SchedulerKind::Wlc, [(u32::MAX, u32::MAX), (u32::MAX, u32::MAX), (u32::MAX, 0)]),
        2
    );
}

/// Connections per member that a choice leaves, and how many loads it asks for.
struct Loads {
    active: RefCell<Vec<u32>>,
    asked: RefCell<usize>,
}

impl Loads {
    fn new(active: Vec<u32>) -> Self {
        Self { active: RefCell::new(active), asked: RefCell::new(0) }
    }

    /// A connection more. Slots are indices.
    fn connect(&self, scheduler: &Scheduler) -> usize {
        let load = |slot: BackendSlot| {
            *self.asked.borrow_mut() += 1;
            Load { active: self.active.borrow()[slot.index()], inactive: 0 }
        };
        let chosen = scheduler.choose(0, &load).unwrap().index();
        self.active.borrow_mut()[chosen] += 1;
        chosen
    }
}

fn crowd(count: u16, weight: impl Fn(u16) -> u32) -> Vec<Member> {
    (0..count)
        .map(|at| Member { slot: BackendSlot(at), address: address(at), weight: weight(at) })
        .collect()
}

#[test]
fn a_choice_looks_at_few_of_many_backends() {
    for kind in [SchedulerKind::Lc, SchedulerKind::Wlc] {
        for count in [4, 8, 20, 100, 1000] {
            let scheduler = Scheduler::new(kind, key(), &crowd(count, |_| 1));
            let loads = Loads::new(vec![0; count.into()]);
            for _ in 0..1000 {
                loads.connect(&scheduler);
            }
            assert!(*loads.asked.borrow() <= 9 * 1000, "{kind:?}, {count} backends");
        }
    }
}

#[test]
fn many_backends_are_loaded_evenly_all_the_same() {
    for count in [9, 20, 100, 1000] {
        let total = u32::from(count) * 50;
        let scheduler = Scheduler::new(SchedulerKind::Lc, key(), &crowd(count, |_| 1));
        // One in ten was busy before.
        let busy: Vec<u32> = (0..count).map(|at| if at % 10 == 0 { 40 } else { 0 }).collect();
        let loads = Loads::new(busy);
        for _ in 0..total {
            loads.connect(&scheduler);
        }
        let active = loads.active.into_inner();
        let (least, most) = (active.iter().min().unwrap(), active.iter().max().unwrap());
        assert!(most - least <= 3, "{count} backends: {least} to {most}");

        let weight = |at| 1 + u32::from(at) % 4;
        let scheduler = Scheduler::new(SchedulerKind::Wlc, key(), &crowd(count, weight));
        let loads = Loads::new(vec![0; count.into()]);
        for _ in 0..total {
            loads.connect(&scheduler);
        }
        let sum: u32 = (0..count).map(weight).sum();
        for (at, &active) in (0..).zip(loads.active.borrow().iter()) {
            let due = f64::from(total) * f64::from(weight(at)) / f64::from(sum);
            assert!((f64::from(active) - due).abs() <= 4.0 + due * 0.05, "{active} for {due}");
        }
    }
}

/// A backend that comes back empty among many busy ones.
#[test]
fn an_idle_backend_is_found_soon_and_filled() {
    let count = 200;
    let scheduler = Scheduler::new(SchedulerKind::Lc, key(), &crowd(count, |_| 1));
    let loads = Loads::new((0..count).map(|at| if at == 77 { 0 } else { 50 }).collect());
    let chosen: Vec<usize> = (0..100).map(|_| loads.connect(&scheduler)).collect();
    let found = chosen.iter().position(|&at| at == 77).expect("it is found");
    assert!(found <= usize::from(count) / 8, "only after {found} choices");
    assert!(chosen[found..found + 50].iter().all(|&at| at == 77), "{chosen:?}");
}

#[test]
fn equals_take_turns() {
    for kind in [SchedulerKind::Lc, SchedulerKind::Wlc] {
        let members = members(&[1; 3]);
        let scheduler = Scheduler::new(kind, key(), &members);
        let chosen: Vec<_> = (0..6).map(|_| scheduler.choose(0, &idle).unwrap()).collect();
        let slots: Vec<_> = members.iter().map(|member| member.slot).collect();
        assert_eq!(chosen, [&slots[..], &slots].concat());
    }
}

#[test]
fn flows_of_one_source_spread_without_persistence() {
    let scheduler = Scheduler::new(SchedulerKind::Maglev, key(), &members(&[1; 4]));
    let mut counts = BTreeMap::new();
    for src_port in 1024..=65_535 {
        let flow = FlowKey {
            src: source(1),
            dst: key().vip,
            src_port,
            dst_port: 80,
            protocol: Protocol::Tcp,
        };
        *counts.entry(scheduler.choose(flow_hash(&flow), &idle)).or_insert(0u32) += 1;
    }
    assert_eq!(counts.len(), 4);
    for count in counts.into_values() {
        assert!((15_000..17_500).contains(&count), "{count} of 16128");
    }
}
