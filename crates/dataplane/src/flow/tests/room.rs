//! Who finds room, and who makes it.

use super::*;

#[test]
fn a_table_takes_its_capacity() {
    for (capacity, seed) in [(64, 1), (1000, 2), (20_000, 3), (300_000, 4)] {
        let mut table = FlowTable::new(capacity, seed, &Timeouts::default());
        let mut refused = 0;
        for number in 0..capacity {
            let key = key(u32::try_from(number).expect("small"));
            let hash = table.hash(&key);
            let new = flow(Origin::Handshake);
            let id = table.insert(hash, &key, &new, millis(0), &mut |gone| panic!("{gone:?}"));
            match id {
                Ok(id) => assert!(table.observe(id, tcp(ACK), millis(0)).is_some()),
                Err(TableFull { .. }) => refused += 1,
            }
        }
        assert!(refused * 10_000 <= capacity, "{refused} of {capacity} refused");
        assert_eq!(table.len(), capacity - refused);
        assert_eq!((table.live(), table.unproven()), (table.len(), 0));
        assert_eq!(table.capacity(), capacity);
    }
}

#[test]
fn memory_stays_what_it_is_under_a_flood() {
    let mut table = table(1000);
    let slots = table.memory.entries();
    let (mut gone, mut refused) = (0, 0);
    for number in 0..50_000 {
        let key = key(number);
        let hash = table.hash(&key);
        let new = flow(if number % 2 == 0 { Origin::PickUp } else { Origin::Handshake });
        match table.insert(hash, &key, &new, millis(0), &mut |_| gone += 1) {
            Ok(id) if new.origin == Origin::Handshake => {
                let proven = table.observe(id, tcp(ACK), millis(0));
                assert_eq!(proven, Some(Transition::Proven { picked_up: false }));
            }
            Ok(_) => {}
            Err(TableFull { .. }) => refused += 1,
        }
    }
    assert_eq!(table.memory.entries(), slots);
    assert_eq!(table.len() + gone + refused, 50_000);
    assert!(table.len() <= slots);
    let confirmed = table.page(0, table.buckets(), None, millis(0));
    let confirmed = confirmed.filter(|(_, flow)| flow.state == FlowState::Established).count();
    assert_eq!(confirmed, slots, "pick-ups gave way to connections, which all stayed");
}

#[test]
fn full_buckets_make_room_in_order() {
    use Origin::{Handshake, PickUp};
    let mut table = table(1);
    let slots = u32::try_from(table.memory.entries()).expect("small");
    // Two of each kind, and connections.
    for number in 0..slots {
        let (origin, segments) = match number / 2 {
            0 => (Handshake, &[ACK, FIN][..]),
            1 => (Handshake, &[][..]),
            2 => (PickUp, &[][..]),
            3 => (Handshake, &[ACK, RST][..]),
            _ => (Handshake, &[ACK][..]),
        };
        let now = millis(u64::from(number));
        let id = insert(&mut table, &key(number), &flow(origin), now);
        for &flags in segments {
            table.observe(id, tcp(flags), now);
        }
    }
    let mut put = |origin: Origin, number: u32, now: u64| {
        let mut gone = Vec::new();
        let (key, new) = (key(number), flow(origin));
        let hash = table.hash(&key);
        let done = table.insert(hash, &key, &new, millis(now), &mut |flow| gone.push(flow));
        if let Ok(id) = done {
            table.observe(id, tcp(ACK), millis(now));
        }
        let gone: Vec<_> = gone.iter().map(|flow| (flow.key, flow.evicted)).collect();
        (done.is_ok(), gone)
    };
    let pushed = |number| (true, vec![(key(number), true)]);
    assert_eq!(put(Handshake, 100, 50), pushed(6), "the older one that was reset");
    assert_eq!(put(PickUp, 101, 50), pushed(7), "the other one");
    assert_eq!(put(PickUp, 102, 50), pushed(4), "the older pick-up");
    assert_eq!(put(Handshake, 103, 50), pushed(5), "the other pick-up");
    assert_eq!(put(PickUp, 104, 50), (false, vec![]), "a pick-up does not push out a handshake");
    assert_eq!(put(Handshake, 105, 50), pushed(2), "the older handshake");
    assert_eq!(put(Handshake, 106, 2000), pushed(0), "the one that closed and was quiet");
    assert_eq!(put(Handshake, 107, 2000), pushed(3), "a handshake");
    assert_eq!(put(Handshake, 108, 2000), pushed(1), "one that closed just now");
    assert_eq!(put(Handshake, 109, 2000), (false, vec![]), "connections stay");
    assert_eq!(put(Handshake, 10, 2000), (true, vec![(key(10), false)]), "the same 5-tuple");
    assert_eq!(put(PickUp, 110, 900_008), (true, vec![(key(8), false)]), "an expired one");
}

#[test]
fn room_is_sought_once_a_second() {
    let mut table = table(1);
    for number in 0..u32::try_from(table.memory.entries()).expect("small") {
        let id = insert(&mut table, &key(number), &flow(Origin::Handshake), millis(0));
        table.observe(id, tcp(ACK), millis(0));
    }
    let refused = |table: &mut FlowTable, number: u32, now: u64| {
        let hash = table.hash(&key(number));
        let new = flow(Origin::Handshake);
        table.insert(hash, &key(number), &new, millis(now), &mut |gone| panic!("{gone:?}"))
    };
    let again = |again| Err(TableFull { again });
    for second in [5, 6, 9] {
        assert_eq!(refused(&mut table, 100, second * 1000), again(false));
        assert_eq!(refused(&mut table, 100, second * 1000 + 999), again(true));
        assert_eq!(refused(&mut table, 101, second * 1000 + 999), again(false), "another one");
    }
    let id = find(&table, &key(7), millis(9999)).expect("in use");
    table.remove(id, millis(9999));
    assert_eq!(refused(&mut table, 100, 9999), again(true));
    assert!(refused(&mut table, 100, 10_000).is_ok(), "within a second");
}

/// Two datagrams from a forged address make a flow of UDP: it makes room when it has been quiet.
#[test]
fn quiet_flows_of_udp_make_room() {
    let mut table = table(16);
    let mut gone = Vec::new();
    let mut number = 0;
    let mut fill = |table: &mut FlowTable, at, gone: &mut Vec<EndedFlow>| loop {
        number += 1;
        let key = FlowKey { protocol: Protocol::Udp, ..key(number) };
        let hash = table.hash(&key);
        if table.insert(hash, &key, &flow(Origin::Udp), at, &mut |flow| gone.push(flow)).is_err() {
            return;
        }
    };
    fill(&mut table, millis(0), &mut gone);
    assert!(gone.is_empty());
    let full = table.len();
    let busy = key(1_000_000);
    let hash = table.hash(&busy);
    let new = flow(Origin::Handshake);
    let at = millis(29_000);
    assert!(table.insert(hash, &busy, &new, at, &mut |flow| gone.push(flow)).is_err());
    let at = millis(31_000);
    assert!(table.insert(hash, &busy, &new, at, &mut |flow| gone.push(flow)).is_ok());
    assert_eq!((gone.len(), table.len()), (1, full));
    assert!(gone[0].evicted && gone[0].state == FlowState::Udp);
    // What came of late stays.
    fill(&mut table, millis(31_000), &mut gone);
    let gone_by_now = gone.len();
    fill(&mut table, millis(32_000), &mut gone);
    assert_eq!(gone.len(), gone_by_now);
}
