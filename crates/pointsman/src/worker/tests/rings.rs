//! What the kernel does with the rings: it refuses, is late, or was not asked for a while.

use super::*;

#[test]
fn a_burst_is_forwarded_and_answered() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(0, many(20, web).chain(many(3, echo)).chain([who_has(1)]));
    assert_eq!(rig.turn(0), 24);
    assert_eq!((rig.forwarded(0), rig.answered(0)), (20, 4));
    let sent = rig.sent(0);
    for (before, after) in many(20, web).zip(&sent) {
        assert_eq!(before[12..], after[12..]);
        assert!(after.starts_with(&[2, 0xbb]));
    }
    assert!(sent[20..].iter().all(|answer| answer.starts_with(&CLIENT_MAC)));
    rig.settle();
}

#[test]
fn every_errno_of_the_kick_costs_no_frame() {
    for errno in ERRORS {
        let mut rig = Rig::new(Sizes::default());
        rig.seats[0].kernel.fail_next_kicks([errno, errno, errno]);
        rig.inject(0, many(10, web));
        rig.turn(0);
        assert_eq!(rig.forwarded(0), 10, "{errno}: they are on the ring");
        assert_eq!(rig.seats[0].kernel.transmitted(), 0, "{errno}");
        assert!(rig.seats[0].port.kick_pending(), "{errno}: the worker must not sleep long");
        rig.settle();
        assert_eq!(rig.seats[0].kernel.transmitted(), 10, "{errno}");
        assert_eq!(rig.seats[0].port.counters().kick_errors.total(), 3, "{errno}");
    }
}

/// While the link is up, what cannot be sent is left with the kernel, which drops it before any work
/// is done; without a link, where that does not help, it is dropped here.
#[test]
fn a_device_that_does_not_send_fills_its_ring_and_recovers() {
    for errno in ERRORS {
        let mut rig = Rig::new(Sizes { ring: 16, mailbox: 8, ..Sizes::default() });
        rig.seats[0].kernel.fail_kicks(Some(errno));
        let mut accepted = 0;
        for frame in many(160, web) {
            accepted += u64::from(rig.seats[0].kernel.inject(&frame));
            rig.turn(0);
        }
        assert_eq!(rig.forwarded(0), 16, "{errno}: as many as the ring holds");
        let dropped = rig.dropped(0, DropReason::TxFull);
        let link = [Errno::AGAIN, Errno::BUSY, Errno::NOBUFS, Errno::INTR].contains(&errno);
        let expected = if link { (32, 0) } else { (160, 144) };
        assert_eq!((accepted, dropped), expected, "{errno}");
        rig.heal();
        rig.settle();
        assert_eq!(rig.sent(0).len() as u64, accepted - dropped, "{errno}");
        rig.inject(0, many(16, web));
        rig.settle();
        assert_eq!(rig.forwarded(0), accepted - dropped + 16, "{errno}: all is as before");
    }
}

#[test]
fn a_ring_that_takes_nothing_drops_and_recovers() {
    let mut rig = Rig::new(Sizes::default());
    rig.seats[0].kernel.refuse_transmit(true);
    rig.inject(0, many(10, web).chain(many(5, echo)));
    rig.turn(0);
    assert_eq!((rig.forwarded(0), rig.answered(0)), (0, 0));
    assert_eq!(rig.dropped(0, DropReason::TxFull), 15);
    rig.heal();
    rig.inject(0, many(10, web).chain(many(5, echo)));
    rig.turn(0);
    assert_eq!((rig.forwarded(0), rig.answered(0)), (10, 5));
}

/// The ring takes what was sent first.
#[test]
fn refused_answers_are_not_booked_as_forwarded_ones() {
    // How many SYNs and echo requests come after ten frames that fill a ring of 16, which of them
    // come first, and what is booked.
    let cases = [
        ((4, 8), true, (4, 2)),
        ((8, 4), true, (6, 0)),
        ((4, 8), false, (0, 6)),
        ((8, 4), false, (2, 4)),
        ((0, 9), true, (0, 6)),
        ((9, 0), true, (6, 0)),
    ];
    for ((syns, echoes), syns_first, booked) in cases {
        let mut rig = Rig::new(Sizes { ring: 16, mailbox: 8, ..Sizes::default() });
        rig.seats[0].kernel.fail_kicks(Some(Errno::NETDOWN));
        rig.inject(0, many(10, web));
        rig.turn(0);
        if syns_first {
            rig.inject(0, many(syns, web).chain(many(echoes, echo)));
        } else {
            rig.inject(0, many(echoes, echo).chain(many(syns, web)));
        }
        rig.turn(0);
        let what = format!("{syns} SYNs and {echoes} echo requests, SYNs first: {syns_first}");
        assert_eq!((rig.forwarded(0) - 10, rig.answered(0)), booked, "{what}");
        let refused = u64::from(syns + echoes) - 6;
        assert_eq!(rig.dropped(0, DropReason::TxFull), refused, "{what}");
        rig.heal();
        rig.settle();
        let answers = rig.sent(0).iter().filter(|frame| frame.starts_with(&CLIENT_MAC)).count();
        assert_eq!(answers as u64, booked.1, "{what}: it is the truth");
    }
}

/// 64 frames from the RX ring and 32 from the mailbox against a ring of 64.
#[test]
fn a_turn_may_send_more_than_the_ring_holds() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(2, many(32, |client| tcp(client, WEB, SYN)));
    rig.turn(2);
    assert_eq!(rig.total(2, |totals| &totals.handed_over), 32, "for port 0");
    rig.inject(0, many(64, web));
    assert_eq!(rig.turn(0), 96);
    assert_eq!((rig.forwarded(0), rig.dropped(0, DropReason::TxFull)), (96, 0));
    rig.settle();
    assert_eq!(rig.sent(0).len(), 96);
}

#[test]
fn a_bounded_budget_and_late_completion_lose_nothing() {
    let mut rig = Rig::new(Sizes::default());
    rig.seats[0].kernel.budget(Some(8));
    rig.seats[0].kernel.complete_later(true);
    for round in 1..=40 {
        rig.inject(0, many(8, web));
        rig.turn(0);
        assert_eq!(rig.forwarded(0), 8 * round);
        rig.seats[0].kernel.complete(5);
        if round % 2 == 0 {
            rig.seats[0].kernel.complete(6);
        }
    }
    assert_eq!(rig.dropped(0, DropReason::TxFull), 0);
    rig.heal();
    rig.settle();
    assert_eq!(rig.sent(0).len(), 320);
}

/// More frames than the other side takes, for a while: no work is done for frames that cannot be sent.
#[test]
fn after_an_overload_everything_is_forwarded_again() {
    let mut rig = Rig::new(Sizes { frames: 256, mailbox: 8, ..Sizes::default() });
    rig.seats[0].kernel.budget(Some(2));
    let (mut offered, mut accepted) = (0, 0);
    for _ in 0..500 {
        for frame in many(64, web) {
            offered += 1;
            accepted += u64::from(rig.seats[0].kernel.inject(&frame));
        }
        rig.turn(0);
    }
    let lost = rig.dropped(0, DropReason::TxFull);
    assert_eq!(lost, 0, "{accepted} of {offered} were accepted");
    assert!(accepted < offered, "it was no overload");
    let waiting = rig.seats[0].port.accounting().rx;
    assert_eq!(rig.forwarded(0) + waiting, accepted);
    rig.seats[0].kernel.budget(None);
    for _ in 0..3 {
        rig.turn(0);
    }
    let before = rig.forwarded(0);
    for _ in 0..100 {
        rig.inject(0, many(64, web));
        rig.turn(0);
    }
    assert_eq!(rig.forwarded(0) - before, 6400, "all of them");
    assert_eq!(rig.dropped(0, DropReason::TxFull), lost);
    rig.settle();
    let accounting = rig.seats[0].port.accounting();
    assert_eq!(accounting.fill + accounting.free, 256, "no frame is lost: {accounting:?}");
}

/// A process that was stopped wakes up: the frames in its ring are from another time.
#[test]
fn frames_that_waited_for_a_frozen_worker_are_dropped() {
    let mut rig = Rig::new(Sizes::default());
    rig.open(0, 10);
    rig.leases[0].store((rig.now + Duration::from_millis(350)).as_nanos(), Relaxed);
    let waiting = many(20, |client| tcp(client, WEB, ACK)).chain([who_has(1), echo(1)]);
    rig.inject(0, waiting.chain(many(4, |client| tcp(client, FAR, SYN))));
    rig.inject(1, [too_big(1, FORGETFUL)]);
    rig.turn(1);
    rig.now = rig.now + Duration::from_millis(400);
    let forwarded = rig.forwarded(0);
    assert_eq!(rig.turn(0), 26 + 1);
    assert_eq!((rig.forwarded(0), rig.answered(0)), (forwarded, 0));
    assert_eq!(rig.dropped(0, DropReason::Inactive), 26 + 1, "the error of another worker too");
    assert!(rig.sent(0).len() as u64 == forwarded, "nothing was sent");
    assert_eq!(rig.turn(2), 1, "the error, and nothing to relay");
    // With a new lease everything goes on.
    rig.leases[0].store(u64::MAX, Relaxed);
    rig.inject(0, many(10, |client| tcp(client, WEB, ACK)));
    rig.turn(0);
    assert_eq!(rig.forwarded(0), forwarded + 10);
}
