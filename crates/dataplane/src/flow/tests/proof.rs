//! What makes a flow a connection, and what becomes of other flows.

use super::*;

/// What is sent (acknowledgment number and end of the payload, from those of the first segment), and
/// whether the last segment proves the flow.
type Case = (&'static str, &'static [(u32, u32)], bool);

/// A segment that only repeats what was seen proves nothing, nor does one with numbers of any kind.
#[test]
fn numbers_that_advance_prove_a_flow() {
    const FAR: u32 = 1 << 30;
    let cases: [Case; 8] = [
        ("the same segment", &[(0, 0), (0, 0)], false),
        ("data", &[(0, 1)], true),
        ("acknowledges data", &[(1, 0)], true),
        ("a keep-alive probe", &[(0, u32::MAX), (0, u32::MAX)], false),
        ("an older segment", &[(u32::MAX - 4999, 0)], false),
        ("numbers from nowhere", &[(FAR, FAR)], false),
        ("which go on from there", &[(FAR, FAR), (FAR, FAR + 1)], true),
        ("and others from nowhere", &[(FAR, FAR), (2 * FAR, 0), (FAR, 3 * FAR)], false),
    ];
    for (what, segments, proves) in cases {
        for (origin, start) in
            [Origin::Handshake, Origin::PickUp].into_iter().flat_map(|o| [(o, 7), (o, u32::MAX)])
        {
            let at = |(ack, next): (u32, u32)| TcpFields {
                flags: ACK,
                ack: start.wrapping_add(ack),
                next: start.wrapping_add(next),
            };
            let mut table = table(16);
            let new = NewFlow { tcp: Some(at((0, 0))), ..flow(origin) };
            let id = insert(&mut table, &key(1), &new, millis(0));
            let mut seen = None;
            for &segment in segments {
                seen = table.observe(id, Some(at(segment)), millis(0));
            }
            let picked_up = origin == Origin::PickUp;
            assert_eq!(seen, proves.then_some(Transition::Proven { picked_up }), "{what}");
            assert_eq!((table.live(), table.unproven()), (proves.into(), (!proves).into()));
        }
    }
}

/// A flood of handshakes that lead to nothing.
#[test]
fn many_unproven_flows_stay_for_a_short_time_only() {
    for (count, lasts) in [(60, 900_000), (70, 60_000)] {
        let mut table = table(1024);
        for number in 0..count {
            insert(&mut table, &key(number), &flow(Origin::Handshake), millis(0));
        }
        assert!(find(&table, &key(5), millis(lasts - 1)).is_some(), "{count}");
        assert!(find(&table, &key(5), millis(lasts)).is_none(), "{count}");
        let (mut gone, all) = (0, table.buckets());
        table.sweep(millis(lasts), all, &mut |flow| gone += u32::from(flow.template.is_none()));
        // Once they are few again, the rest may stay.
        assert!(gone > 0 && table.unproven() <= 64, "{count}: {gone}");
    }
}

/// What would end a flow and cannot be the client's changes nothing (RFC 5961).
#[test]
fn forged_ends_change_nothing() {
    const FIN: u8 = 1;
    const RST: u8 = 4;
    let far = [1 << 30, 1 << 31, 0_u32.wrapping_sub(70_000)];
    let near = [0, 1, 1 << 20, 0_u32.wrapping_sub(60_000)];
    for start in [100_000, 7, u32::MAX] {
        let mut table = table(16);
        let new = flow(Origin::Handshake);
        let first = TcpFields { flags: ACK, ack: start, next: 0 };
        let new = NewFlow { tcp: Some(first), ..new };
        let mut number = 0;
        let mut end = |flags: u8, ack: u32| {
            number += 1;
            let id = insert(&mut table, &key(number), &new, millis(0));
            let data = TcpFields { next: 1, ..first };
            assert!(table.observe(id, Some(data), millis(0)).is_some(), "proven");
            let end = TcpFields { flags, ack: start.wrapping_add(ack), next: 1 };
            let seen = table.observe(id, Some(end), millis(1));
            let flow = table.remove(id, millis(2)).expect("it is there");
            assert_eq!(seen.is_none(), flow.state == FlowState::Established);
            seen
        };
        for flags in [FIN | ACK, RST | ACK] {
            assert!(far.iter().all(|&ack| end(flags, ack).is_none()), "{flags:#x}");
            assert!(near.iter().all(|&ack| end(flags, ack) == Some(Transition::Ended)));
        }
        assert_eq!(end(FIN, 0), None, "no host takes it");
        assert_eq!(end(RST, 0), Some(Transition::Ended), "it acknowledges nothing by right");
    }
}
