//! Fragments that come before the first one of their datagram: where their frames are meanwhile.

use dataplane::WaitingRoom;

use super::*;

const MOST: usize = WaitingRoom::<Frame>::MOST;

/// A piece of a client's segment: with its header, or of what follows.
fn piece(client: u16, id: u8, first: bool) -> Vec<u8> {
    let mut frame = tcp(client, FORGETFUL, SYN);
    frame[18..20].copy_from_slice(&[0, id]);
    // More fragments; else an offset.
    frame[20..22].copy_from_slice(if first { &[0x20, 0] } else { &[0, 5] });
    frame
}

#[test]
fn early_fragments_keep_their_frames_until_the_first_one_comes_on_another_queue() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(0, (0..50).map(|client| piece(client, 7, false)));
    rig.turn(0);
    rig.turn(0);
    assert_eq!((rig.forwarded(0), rig.seats[0].worker.waiting.len()), (0, 50));
    assert!(rig.seats[0].worker.has_waiting());
    rig.inject(1, (0..50).map(|client| piece(client, 7, true)));
    rig.turn(1);
    assert_eq!(rig.forwarded(1), 50);
    // A bounded number in each turn.
    rig.turn(0);
    assert_eq!(rig.forwarded(0), 32);
    rig.turn(0);
    assert_eq!((rig.forwarded(0), rig.seats[0].worker.has_waiting()), (50, false));
    let place = |frames: Vec<Vec<u8>>| -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
        frames.into_iter().map(|frame| (frame[26..30].to_vec(), frame[..6].to_vec())).collect()
    };
    assert_eq!(place(rig.sent(0)), place(rig.sent(1)), "each to where its first one went");
    rig.settle();
}

#[test]
fn fragments_without_a_beginning_give_their_frames_back() {
    let mut rig = Rig::new(Sizes::default());
    let flood = MOST + 60;
    for batch in (0..u16::try_from(flood).unwrap()).collect::<Vec<_>>().chunks(40) {
        rig.inject(0, batch.iter().map(|&client| piece(client, 9, false)));
        rig.turn(0);
    }
    assert_eq!(rig.dropped(0, DropReason::FragmentFull), 60);
    assert_eq!(rig.seats[0].worker.waiting.len(), MOST);
    rig.now = rig.now + WaitingRoom::<Frame>::LONGEST;
    for _ in 0..=MOST / crate::worker::fragments::RELEASED_PER_TURN {
        rig.turn(0);
    }
    assert_eq!(rig.dropped(0, DropReason::Fragment), MOST as u64);
    rig.settle();
}

#[test]
fn what_waits_is_lost_with_its_socket_and_booked() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(0, (0..20).map(|client| piece(client, 9, false)));
    rig.turn(0);
    let Seat { worker, counters, .. } = &mut rig.seats[0];
    worker.forget_fragments();
    assert_eq!(counters.dropped(DropReason::NoPort).value(), 20);
    let (came, went) = counters.equation();
    assert_eq!((came, went), (20, 20));
    assert!(!worker.has_waiting());
}
