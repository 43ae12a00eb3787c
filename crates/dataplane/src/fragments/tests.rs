//! The table and the waiting room alone.

use super::*;
use crate::addr::Addr;
use crate::key::Protocol;

fn key(id: u32) -> FragmentKey {
    let (src, dst) = (Addr::from_v4([10, 0, 0, 1]), Addr::from_v4([192, 0, 2, 10]));
    FragmentKey { src, dst, id, protocol: Protocol::Udp }
}

fn at(micros: u64) -> Tick {
    Tick::from_nanos((1 << 40) + micros * 1000)
}

#[test]
fn every_field_of_the_key_counts() {
    let table = FragmentTable::new(1 << 10, 3);
    table.publish(&key(5), Some(BackendSlot(7)), at(0));
    assert_eq!(table.find(&key(5), at(1)), Some(FirstWent::To(BackendSlot(7))));
    let others = [
        FragmentKey { src: Addr::from_v4([10, 0, 0, 2]), ..key(5) },
        FragmentKey { dst: Addr::from_v4([192, 0, 2, 11]), ..key(5) },
        FragmentKey { protocol: Protocol::Tcp, ..key(5) },
        key(6),
        key(5 << 16),
        key(5 | 1 << 31),
    ];
    for other in others {
        assert_eq!(table.find(&other, at(1)), None, "{other:?}");
    }
    table.publish(&key(6), None, at(1));
    assert_eq!(table.find(&key(6), at(2)), Some(FirstWent::Nowhere));
    assert_eq!(table.find(&key(5), at(2_000_000)), None, "forgotten");
}

/// The first one may be published between the look-up and the wait, and by another worker.
#[test]
fn what_was_published_before_the_fragment_waits_is_found() {
    let table = FragmentTable::new(1 << 10, 3);
    let mut room = WaitingRoom::default();
    table.publish(&key(1), None, at(0));
    assert_eq!(room.wait(&table, &key(1), 'a', at(1)), None);
    assert_eq!(room.release(&table, at(2)), Some(Released { frame: 'a', late: false }));
    assert_eq!((room.release(&table, at(3)), room.len()), (None, 0));
}

#[test]
fn looks_are_bounded_in_rate_and_go_on_where_they_were() {
    let table = FragmentTable::new(1 << 10, 3);
    let mut room = WaitingRoom::default();
    for id in 0..10 {
        room.wait(&table, &key(id), id, at(0));
    }
    assert_eq!(room.release(&table, at(1)), None);
    for id in [2, 5, 9] {
        table.publish(&key(id), None, at(2));
    }
    assert_eq!(room.release(&table, at(3)), None, "it has just looked");
    for id in [2, 5] {
        let released = room.release(&table, at(300));
        assert_eq!(released, Some(Released { frame: id, late: false }));
    }
    // One that comes in the middle of a look, and one that is known by then.
    room.wait(&table, &key(9), 90, at(301));
    table.publish(&key(0), None, at(301));
    for frame in [9, 90] {
        assert_eq!(room.release(&table, at(302)), Some(Released { frame, late: false }));
    }
    assert_eq!(room.release(&table, at(303)), None);
    assert_eq!(room.release(&table, at(600)), Some(Released { frame: 0, late: false }));
    assert_eq!(room.release(&table, at(601)), None);
    for frame in [1, 3, 4, 6, 7, 8] {
        assert_eq!(room.release(&table, at(100_000)), Some(Released { frame, late: true }));
    }
    assert!(room.is_empty());
}

#[test]
fn the_oldest_makes_room() {
    let table = FragmentTable::new(1 << 10, 3);
    let mut room = WaitingRoom::default();
    let most = u32::try_from(WaitingRoom::<u32>::MOST).unwrap();
    for id in 0..most {
        assert_eq!(room.wait(&table, &key(id), id, at(0)), None);
    }
    assert_eq!(room.wait(&table, &key(most), most, at(1)), Some(0));
    assert_eq!(room.len(), WaitingRoom::<u32>::MOST);
    assert_eq!(room.drain().count(), WaitingRoom::<u32>::MOST);
    assert_eq!(room.release(&table, at(2)), None);
}
