//! Messages between workers: frames for another port, and errors of flows that are elsewhere.

use super::*;

#[test]
fn frames_for_another_port_are_sent_there() {
    let mut rig = Rig::new(Sizes { mailbox: 8, ..Sizes::default() });
    rig.inject(0, many(10, |client| tcp(client, FAR, SYN)));
    rig.turn(0);
    assert_eq!(rig.total(0, |totals| &totals.handed_over), 8);
    assert_eq!(rig.dropped(0, DropReason::MailboxFull), 2, "the mailbox has room for eight");
    assert_eq!(rig.forwarded(0), 0);
    rig.turn(2);
    assert_eq!((rig.total(2, |totals| &totals.adopted), rig.forwarded(2)), (8, 8));
    for (before, after) in many(8, |client| tcp(client, FAR, SYN)).zip(rig.sent(2)) {
        assert_eq!(after[..12], [2, 0xbb, 0, 0, 0, 2, 2, 0xaa, 0, 0, 0, 1]);
        assert_eq!(before[12..], after[12..]);
    }
    rig.inject(0, many(3, |client| tcp(client, LOST, SYN)));
    rig.turn(0);
    assert_eq!(rig.dropped(0, DropReason::NoPort), 3);
    rig.settle();
}

#[test]
fn a_frame_for_another_port_goes_to_the_same_queue_there() {
    let mut rig = Rig::new(Sizes::default());
    for client in 0..10 {
        rig.inject(2, [web(client)]);
    }
    rig.turn(2);
    assert_eq!((rig.turn(1), rig.turn(0)), (0, 10), "queue 0 to queue 0");
    assert_eq!(rig.forwarded(0), 10);
}

#[test]
fn an_error_is_handed_to_the_worker_that_holds_its_flow() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(1, many(2, |client| tcp(client, FORGETFUL, SYN)));
    rig.turn(1);
    rig.inject(1, many(2, |client| tcp(client, FORGETFUL, ACK)));
    rig.turn(1);
    let handshakes = rig.sent(1);
    // Their choices, which all workers see, are forgotten.
    rig.now = rig.now + Duration::from_secs(200);
    rig.inject(0, many(3, |client| too_big(client, FORGETFUL)));
    rig.turn(0);
    assert_eq!(rig.total(0, |totals| &totals.handed_over), 3);
    rig.turn(1);
    rig.turn(2);
    // The first that is asked forwards what none knows, too.
    for (at, forwarded, no_flow) in [(1, 3, 0), (2, 0, 3)] {
        assert_eq!(rig.total(at, |totals| &totals.adopted), 3);
        assert_eq!(rig.dropped(at, DropReason::NoFlow), no_flow);
        assert_eq!(rig.forwarded(at), if at == 1 { 4 + forwarded } else { forwarded });
    }
    let errors = rig.sent(1);
    assert_eq!(errors.len(), 3);
    for (error, handshake) in errors.iter().zip(&handshakes[2..]) {
        assert_eq!(error[..12], handshake[..12], "to the backend of the flow");
    }
    rig.settle();
}

#[test]
fn a_flow_that_moved_is_forgotten_where_it_was() {
    let mut rig = Rig::new(Sizes::default());
    rig.open(0, 5);
    assert_eq!(rig.seats[0].worker.forwarder().flow_count(), 5);
    for flags in [ACK, DATA] {
        rig.inject(1, many(5, |client| tcp(client, WEB, flags)));
        rig.turn(1);
    }
    rig.settle();
    let flows = rig.seats.iter().map(|seat| seat.worker.forwarder().flow_count());
    assert_eq!(flows.collect::<Vec<_>>(), [0, 5, 0]);
    rig.seats[1].worker.end_all_flows(rig.now);
    assert_eq!(rig.seats[1].worker.forwarder().flow_count(), 0);
}

#[test]
fn without_a_socket_messages_are_refused_and_booked() {
    let mut rig = Rig::new(Sizes::default());
    rig.inject(0, many(5, |client| tcp(client, FAR, SYN)).chain([too_big(9, FORGETFUL)]));
    rig.turn(0);
    let Seat { worker, mailbox, .. } = &mut rig.seats[2];
    while let Some(message) = mailbox.take() {
        worker.refuse(message, rig.now);
    }
    rig.check(2);
    assert_eq!((rig.total(2, |totals| &totals.adopted), rig.forwarded(2)), (6, 0));
    assert_eq!(rig.dropped(2, DropReason::NoPort), 6);
    // Their buffers are free again.
    rig.inject(0, many(64, |client| tcp(client, FAR, SYN)));
    rig.turn(0);
    assert_eq!(rig.dropped(0, DropReason::MailboxFull), 0);
}

#[test]
fn without_a_free_frame_a_message_is_dropped() {
    let mut rig = Rig::new(Sizes { frames: 64, ..Sizes::default() });
    rig.seats[2].kernel.complete_later(true);
    for _ in 0..6 {
        rig.inject(0, many(24, |client| tcp(client, FAR, SYN)));
        rig.turn(0);
        rig.turn(2);
    }
    assert_eq!(rig.total(2, |totals| &totals.adopted), 144);
    let lost = rig.dropped(2, DropReason::TxFull);
    assert!(lost > 0);
    assert_eq!(rig.forwarded(2), 144 - lost);
    rig.heal();
    rig.settle();
    rig.inject(0, [tcp(1, FAR, SYN)]);
    rig.settle();
    assert_eq!(rig.forwarded(2), 145 - lost);
}

#[test]
fn a_flood_of_messages_leaves_the_ring_its_turn() {
    let mut rig = Rig::new(Sizes { mailbox: 150, ..Sizes::default() });
    for _ in 0..3 {
        rig.inject(0, many(50, |client| tcp(client, FAR, SYN)));
        rig.turn(0);
    }
    rig.inject(2, many(60, echo));
    assert_eq!(rig.turn(2), 96, "frames and messages of a turn");
    assert_eq!((rig.answered(2), rig.forwarded(2)), (60, 36));
    assert_eq!(rig.turn(2), 96, "without frames more messages");
    rig.settle();
    assert_eq!(rig.forwarded(2), 150);
}
