//! The verdict as Rust, against the program, for every truncation and very many mutations of the
//! table's frames. `POINTSMAN_LONG=1`: 5 million frames instead of 130,000.

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

use super::frames::OUR_MAC;
use super::rig::*;
use super::table;
use crate::Outcome;
use crate::abi::Octets;

/// What a frame is about; `None` wherever a header is cut off or contradicts itself.
enum About {
    Nothing,
    Packet { to: Octets },
    WhoHas(Octets),
}

fn oracle(frame: &[u8], bound: bool) -> Outcome {
    let (addr, neighbour) = match about(frame) {
        None => return Outcome::Malformed,
        Some(About::Nothing) => return Outcome::Passed,
        Some(About::Packet { to }) => (to, false),
        Some(About::WhoHas(target)) => (target, true),
    };
    let group = frame[0] & 1 == 1;
    let Some((_, vip)) = WORLD.iter().find(|(known, _)| *known == addr) else {
        return Outcome::Passed;
    };
    match (vip.ifindex, vip.instance) {
        (2.., _) => Outcome::OtherInterface,
        _ if group && !neighbour => Outcome::Group,
        _ if !group && frame[..6] != OUR_MAC => Outcome::OtherHost,
        (_, STANDBY) if neighbour => Outcome::NeighbourInactive,
        (_, STANDBY) => Outcome::Inactive,
        _ if !bound => Outcome::Unbound,
        _ if neighbour => Outcome::NeighbourRedirected,
        _ => Outcome::Redirected,
    }
}

fn about(frame: &[u8]) -> Option<About> {
    let (mut kind, mut rest) = (number(frame, 12)?, frame.get(14..)?);
    for _ in 0..2 {
        if kind == 0x8100 || kind == 0x88a8 {
            (kind, rest) = (number(rest, 2)?, rest.get(4..)?);
        }
    }
    match kind {
        0x0800 => {
            let (header, total) = (usize::from(rest.first()? & 15) * 4, number(rest, 2)?);
            let packet = rest.get(..usize::from(total))?;
            let whole = rest[0] >> 4 == 4 && header >= 20 && packet.len() >= header;
            whole.then(|| About::Packet { to: mapped(take(rest, 16).unwrap()) })
        }
        0x86dd => {
            let packet = rest.get(..40 + usize::from(number(rest, 4)?))?;
            (packet[0] >> 4 == 6).then_some(())?;
            about_ipv6(rest, &packet[40..])
        }
        0x0806 => match take::<8>(rest, 0)? {
            [0, 1, 8, 0, 6, 4, 0, 1] => {
                let target = take(rest, 24)?;
                let announces = take(rest, 14) == Some(target);
                Some(if announces { About::Nothing } else { About::WhoHas(mapped(target)) })
            }
            _ => Some(About::Nothing),
        },
        _ => Some(About::Nothing),
    }
}

fn about_ipv6(ip: &[u8], payload: &[u8]) -> Option<About> {
    let on_wire = |addr: Octets| addr[..12] != mapped([0; 4])[..12];
    let to = take(ip, 24)?;
    match (ip[6], ip[7], payload) {
        (58, 255, [135, ..]) if payload.len() < 24 => None,
        (58, 255, [135, 0, ..]) => {
            let target = take(payload, 8)?;
            Some(if on_wire(target) { About::WhoHas(target) } else { About::Nothing })
        }
        (58, _, [133..=137, ..]) => Some(About::Nothing),
        _ if !on_wire(to) => Some(About::Nothing),
        _ => Some(About::Packet { to }),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    take(bytes, at).map(u16::from_be_bytes)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// One change to a frame.
#[derive(Clone, Debug)]
enum Mutation {
    Byte(Index, u8),
    Bit(Index, u8),
    /// As `Byte`, in the part that the program looks at.
    HeaderByte(usize, u8),
    /// Adds to a byte: lengths off by a little.
    Nudge(usize, i8),
    /// A tag behind the MAC addresses.
    Tag(u16),
    Truncate(Index),
    Extend(Vec<u8>),
    /// Overwrites four or sixteen bytes with an address of the world.
    Address(usize, usize),
}

impl Mutation {
    fn apply(&self, frame: &mut Vec<u8>) {
        let len = frame.len();
        match self {
            Self::Byte(at, value) => frame[at.index(len)] = *value,
            Self::Bit(at, bit) => frame[at.index(len)] ^= 1 << bit,
            Self::HeaderByte(at, value) => frame[at % len] = *value,
            Self::Nudge(at, by) => frame[at % len] = frame[at % len].wrapping_add_signed(*by),
            Self::Tag(kind) => {
                let [high, low] = kind.to_be_bytes();
                frame.splice(12..12, [high, low, 0, 1]);
            }
            Self::Truncate(at) => frame.truncate(SHORTEST + at.index(len + 1 - SHORTEST)),
            Self::Extend(bytes) => frame.extend(bytes),
            Self::Address(at, which) => {
                let addr = &WORLD[which % WORLD.len()].0;
                let addr = if addr.starts_with(&[0; 10]) { &addr[12..] } else { &addr[..] };
                let at = at % len;
                let end = len.min(at + addr.len());
                frame[at..end].copy_from_slice(&addr[..end - at]);
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Mutation::Byte(at, value)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Mutation::Bit(at, bit)),
        (0..80usize, any::<u8>()).prop_map(|(at, value)| Mutation::HeaderByte(at, value)),
        (12..62usize, -8..8i8).prop_map(|(at, by)| Mutation::Nudge(at, by)),
        select(vec![0x8100, 0x88a8, 0x0800, 0x9100]).prop_map(Mutation::Tag),
        any::<Index>().prop_map(Mutation::Truncate),
        vec(any::<u8>(), 1..40).prop_map(Mutation::Extend),
        (select(vec![30, 34, 38, 38, 42, 46, 62]), 0..8usize)
            .prop_map(|(at, which)| Mutation::Address(at, which)),
    ]
}

#[test]
fn program_and_oracle_agree_on_the_table_and_all_its_truncations() {
    let rig = Rig::new();
    for (description, frame, expected) in table::all() {
        assert_eq!(oracle(&frame, true), expected, "the oracle itself: {description}");
        for len in SHORTEST..frame.len() {
            let cut = &frame[..len];
            let expected = oracle(cut, true);
            assert_eq!(rig.run(cut), (action_of(expected), expected), "{description}, {len} bytes");
        }
    }
}

#[test]
fn program_and_oracle_agree_on_mutated_frames() {
    let long = std::env::var_os("POINTSMAN_LONG").is_some_and(|value| value == "1");
    let cases = if long { 80_000 } else { 2_000 };
    let rig = Rig::new();
    let frames: Vec<Vec<u8>> = table::all().into_iter().map(|(_, frame, _)| frame).collect();
    let seen: Cell<[u64; Outcome::COUNT]> = Cell::default();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let input = (select(frames), any::<bool>(), vec((mutation(), 0..3u8), 64));

    TestRunner::new(config)
        .run(&input, |(original, bound, mutations)| {
            rig.bind(bound);
            let mut frame = original.clone();
            for (mutation, keep) in mutations {
                // A third of the changes is made to what the former ones left.
                if keep != 0 || frame.len() > LONGEST {
                    frame.clone_from(&original);
                }
                mutation.apply(&mut frame);
                let expected = oracle(&frame, bound);
                prop_assert_eq!(rig.run(&frame), (action_of(expected), expected), "{:02x?}", frame);
                let mut counts = seen.get();
                counts[expected.index()] += 1;
                seen.set(counts);
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));

    let seen = seen.get();
    assert_eq!(seen.iter().sum::<u64>(), u64::from(cases) * 64);
    // What is generated must not be all noise: each outcome comes up. No flow is known here.
    let often = |outcome: &Outcome| seen[outcome.index()] > u64::from(cases) / 4;
    assert!(Outcome::ALL.iter().all(|one| often(one) != (*one == Outcome::Forwarded)), "{seen:?}");
}

/// `BPF_PROG_TEST_RUN` takes no frame without an Ethernet header, and no interface receives one.
const SHORTEST: usize = 14;

/// Frames are not mutated any further beyond this; the program looks at no more than 86 bytes.
const LONGEST: usize = 400;
