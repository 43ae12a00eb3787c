//! Senders on the same host: checksums are finished where that was asked for, and nowhere else;
//! frames longer than the MTU are booked and leave the rest of the burst alone.

use super::*;

/// The TCP checksum of a frame of [`web`].
const CHECKSUM: std::ops::Range<usize> = 50..52;

/// As a sender with checksum offload leaves it: the folded sum of the pseudo header.
fn unfinished(mut frame: Vec<u8>) -> Vec<u8> {
    let len = u16::from_be_bytes([frame[16], frame[17]]) - 20;
    let words =
        frame[26..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u32>() + 6 + u32::from(len);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[CHECKSUM].copy_from_slice(&u16::try_from(sum).expect("folded").to_be_bytes());
    frame
}

#[test]
fn checksums_are_finished_where_senders_are_local_and_nowhere_else() {
    let mut rig = Rig::new(Sizes::default());
    let finished = |rig: &Rig| rig.total(0, |totals| &totals.checksums_finished);
    rig.inject(0, many(4, web).map(unfinished));
    rig.settle();
    let sent = rig.sent(0);
    assert!(sent.iter().zip(many(4, web)).all(|(sent, whole)| sent[CHECKSUM] != whole[CHECKSUM]));
    assert_eq!(finished(&rig), 0);

    rig.seats[0].worker.set_local_senders(Some(1522));
    rig.inject(0, many(4, web).map(unfinished).chain(many(4, web)));
    rig.settle();
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 8);
    for (sent, whole) in sent.iter().zip(many(4, web).chain(many(4, web))) {
        assert_eq!(sent[12..], whole[12..]);
    }
    assert_eq!(finished(&rig), 4);
}

#[test]
fn frames_longer_than_the_mtu_are_dropped_and_the_rest_keeps_its_order() {
    let mut rig = Rig::new(Sizes::default());
    rig.seats[0].worker.set_local_senders(Some(1522));
    let longer = |mut frame: Vec<u8>| {
        frame.resize(1523, 0);
        frame
    };
    let burst: Vec<Vec<u8>> = many(6, web).collect();
    let mixed = burst.iter().cloned().enumerate();
    rig.inject(0, mixed.map(|(at, frame)| if at % 2 == 0 { frame } else { longer(frame) }));
    rig.settle();
    let sent = rig.sent(0);
    assert_eq!(sent.len(), 3);
    for (sent, whole) in sent.iter().zip(burst.iter().step_by(2)) {
        assert_eq!(sent[12..], whole[12..]);
    }
    assert_eq!((rig.forwarded(0), rig.dropped(0, DropReason::TooLong)), (3, 3));
}
