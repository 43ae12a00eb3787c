//! What verdicts move: members that are eligible for new sources, or usable at all, among those that
//! are configured.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The members whose bit is set.
fn chosen(members: &[Member], bits: u16) -> Vec<Member> {
    members.iter().zip(0..).filter(|(_, at)| bits >> at & 1 == 1).map(|(one, _)| *one).collect()
}

fn among(members: &[Member]) -> impl Fn(BackendSlot) -> bool {
    move |slot| members.iter().any(|member| member.slot == slot)
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1..6_u32, 2..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A source moves only if the backend that it is on is the one that the verdict is about, when
    /// that goes and when it comes back.
    #[test]
    fn a_verdict_moves_the_sources_of_its_backend_only(
        weights in weights(),
        bits: u16,
        gone in any::<prop::sample::Index>(),
    ) {
        let all = members(&weights);
        let before = chosen(&all, bits);
        prop_assume!(before.len() > 1);
        let lost = before[gone.index(before.len())].slot;
        let after: Vec<Member> =
            before.iter().copied().filter(|member| member.slot != lost).collect();
        let fresh = Scheduler::new(SchedulerKind::Maglev, key(), &all);
        let (with, without) = (fresh.rebuilt(&all, &before), fresh.rebuilt(&all, &after));
        let mut moved = 0;
        for at in 0..3000 {
            let hash = source_hash(source(at));
            let (old, new) = (with.stable(hash).unwrap(), without.stable(hash).unwrap());
            prop_assert!(among(&after)(new));
            let home = fresh.stable(hash).unwrap();
            prop_assert!(new == home || !among(&after)(home), "a source away from home");
            moved += u32::from(old != lost && old != new);
        }
        // Except sources that were moved before, whose second choice is not among the few left.
        prop_assert!(moved <= 30 * u32::try_from(all.len() - after.len()).unwrap(), "{moved}");
    }

    /// Segments without history stay where the hash over the configured members leads, while that
    /// is usable; all nodes with the same verdicts agree on the others.
    #[test]
    fn strays_stay_at_home_and_nodes_agree(
        weights in weights(),
        (usable, eligible) in any::<(u16, u16)>(),
        kind in prop::sample::select(KINDS.to_vec()),
    ) {
        let here = members(&weights);
        let there: Vec<Member> = here
            .iter()
            .rev()
            .zip(0..)
            .map(|(member, slot)| Member { slot: BackendSlot(slot), ..*member })
            .collect();
        let usable = chosen(&here, usable);
        let able = chosen(&usable, eligible);
        let translated = |members: &[Member]| -> Vec<Member> {
            let like = |member: &Member| there.iter().find(|it| it.address == member.address);
            members.iter().filter_map(like).copied().collect()
        };
        let fresh = Scheduler::new(kind, key(), &here);
        let one = fresh.rebuilt(&here, &able);
        // It has seen other verdicts before.
        let two = Scheduler::new(kind, key(), &[]).rebuilt(&there, &there[..1]);
        let two = two.rebuilt(&there, &translated(&able));
        let (names_here, names_there) = (addresses(&here), addresses(&there));
        let usable_there = translated(&usable);
        for at in 0..1000 {
            let hash = source_hash(source(at));
            let stray = one.stray(hash, &among(&usable));
            let home = fresh.stable(hash).unwrap();
            if among(&usable)(home) {
                prop_assert_eq!(stray, Some(home));
            }
            prop_assert_eq!(stray.is_some(), !usable.is_empty());
            let other = two.stray(hash, &among(&usable_there));
            prop_assert_eq!(stray.map(|it| names_here[&it]), other.map(|it| names_there[&it]));
        }
    }
}

/// What the backends that are down leave behind is shared by the others, by weight, also where few
/// are left.
#[test]
fn the_rest_shares_what_is_left_by_weight() {
    let all: Vec<Member> = (0..100).map(|at| member(at, 1 + u32::from(at) % 3)).collect();
    let fresh = Scheduler::new(SchedulerKind::Maglev, key(), &all);
    for left in [1, 3, 9, 50, 99] {
        let rest = &all[..left];
        let scheduler = fresh.rebuilt(&all, rest);
        let mut counts = BTreeMap::<BackendSlot, u32>::new();
        for at in 0..20_000 {
            *counts.entry(scheduler.stable(source_hash(source(at))).unwrap()).or_default() += 1;
        }
        let total: u32 = rest.iter().map(|member| member.weight).sum();
        for member in rest {
            let due = 20_000.0 * f64::from(member.weight) / f64::from(total);
            let count = f64::from(counts[&member.slot]);
            // Four standard deviations, and a tenth.
            let margin = 4.0 * due.sqrt() + 0.1 * due;
            assert!((count - due).abs() <= margin, "{count} for {due} of {left}");
        }
    }
}

/// Weights that grow (`slow_start`) and a fallback are followed, and have no part in what is known
/// of the configuration.
#[test]
fn growing_weights_and_a_fallback_take_new_sources_only() {
    let all = members(&[1; 4]);
    let fresh = Scheduler::new(SchedulerKind::Maglev, key(), &all);
    let mut growing: Vec<Member> =
        all.iter().map(|member| Member { weight: 100, ..*member }).collect();
    growing[0].weight = 1;
    let ramp = fresh.rebuilt(&all, &growing);
    let fallback = fresh.rebuilt(&all, &[member(9, 1)]);
    let mut to_the_first = 0;
    for at in 0..10_000 {
        let hash = source_hash(source(at));
        to_the_first += u32::from(ramp.stable(hash) == Some(all[0].slot));
        assert_eq!(ramp.stray(hash, &|_| true), fresh.stable(hash));
        assert_eq!(fallback.stable(hash), Some(member(9, 1).slot));
        assert_eq!(fallback.stray(hash, &|_| true), fresh.stable(hash));
        let only_fallback = |slot| slot == member(9, 1).slot;
        assert_eq!(fallback.stray(hash, &only_fallback), Some(member(9, 1).slot));
    }
    assert!(to_the_first < 100, "{to_the_first} of 10000 for 1 of 301");
}
