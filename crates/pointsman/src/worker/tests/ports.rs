//! Several ports on one thread: what comes in by one leaves by another in the same turn, and a port that
//! goes away takes nothing with it.

use proptest::prelude::*;

use super::*;

/// Worker 0 and 2 share a thread; worker 1 has its own.
fn rig(sizes: Sizes) -> Rig {
    Rig { threads: true, ..Rig::new(sizes) }
}

impl Rig {
    /// The socket goes, and its memory with it.
    fn close(&mut self, at: usize) {
        let Seat { worker, port, kernel, config, bound, sent_before, .. } = &mut self.seats[at];
        if std::mem::take(bound) {
            worker.forget_fragments();
            *sent_before += port.counters().transmitted;
            (*port, *kernel) = memory_port(*config);
        }
    }

    fn reopen(&mut self, at: usize) {
        self.close(at);
        self.seats[at].bound = true;
    }
}

#[test]
fn a_burst_leaves_by_the_other_port_in_the_same_turn_and_in_order() {
    let mut rig = rig(Sizes { mailbox: 1, frames: 1024, ring: 256, ..Sizes::default() });
    for round in 0..20 {
        let frames: Vec<_> = (0..64).map(|n| tcp(round * 64 + n, FAR, SYN)).collect();
        rig.inject(0, frames.clone());
        assert_eq!(rig.turn(0), 64);
        let sent = rig.sent(2);
        assert_eq!(sent.len(), 64);
        for (before, after) in frames.iter().zip(sent) {
            assert_eq!(after[..12], [2, 0xbb, 0, 0, 0, 2, 2, 0xaa, 0, 0, 0, 1]);
            assert_eq!(before[12..], after[12..]);
        }
        // Takes back what was sent.
        rig.turn(2);
    }
    assert_eq!(rig.total(0, |totals| &totals.handed_over), 20 * 64);
    assert_eq!((rig.total(2, |totals| &totals.adopted), rig.forwarded(2)), (20 * 64, 20 * 64));
    assert_eq!(rig.dropped(0, DropReason::MailboxFull), 0);
    let accounting = rig.seats[0].port.accounting();
    assert_eq!(accounting.fill + accounting.free, 1024, "all of its frames are back");
    rig.settle();
}

#[test]
fn one_kick_sends_what_a_turn_leaves_for_the_other_port() {
    let mut rig = rig(Sizes::default());
    rig.inject(0, many(60, |client| tcp(client, FAR, SYN)));
    rig.turn(0);
    assert_eq!((rig.seats[2].kernel.kicks(), rig.seats[0].kernel.kicks()), (1, 0));
    assert_eq!(rig.sent(2).len(), 60);
}

#[test]
fn a_queue_that_the_other_port_does_not_have_goes_by_the_mailbox() {
    let mut rig = rig(Sizes::default());
    rig.inject(1, many(10, |client| tcp(client, FAR, SYN)));
    rig.turn(1);
    assert_eq!((rig.total(1, |totals| &totals.handed_over), rig.forwarded(2)), (10, 0));
    rig.turn(2);
    assert_eq!(rig.forwarded(2), 10);
    rig.settle();
}

#[test]
fn a_port_without_a_socket_refuses_and_the_rest_goes_on() {
    let mut rig = rig(Sizes::default());
    rig.close(2);
    rig.inject(0, many(5, |client| tcp(client, FAR, SYN)).chain(many(7, echo)));
    rig.turn(0);
    assert_eq!((rig.dropped(0, DropReason::NoPort), rig.answered(0)), (5, 7));
    assert_eq!(rig.turn(2), 0);
    rig.reopen(2);
    rig.inject(0, many(5, |client| tcp(client, FAR, SYN)));
    rig.turn(0);
    assert_eq!((rig.dropped(0, DropReason::NoPort), rig.forwarded(2)), (5, 5));
    rig.settle();
}

#[test]
fn without_room_on_the_other_port_only_what_leaves_there_is_lost() {
    let mut rig = rig(Sizes { ring: 16, frames: 64, ..Sizes::default() });
    rig.seats[2].kernel.refuse_transmit(true);
    for _ in 0..10 {
        rig.inject(0, many(8, |client| tcp(client, FAR, SYN)).chain(many(8, echo)));
        rig.turn(0);
    }
    assert_eq!(rig.answered(0), 80);
    assert_eq!((rig.dropped(2, DropReason::TxFull), rig.forwarded(2)), (80, 0));
    rig.heal();
    rig.inject(0, many(8, |client| tcp(client, FAR, SYN)));
    rig.turn(0);
    assert_eq!(rig.forwarded(2), 8);
    rig.settle();
}

#[derive(Clone, Debug)]
enum Event {
    /// Worker, kind, first client, how many.
    Inject(usize, u8, u16, u16),
    Turn(usize),
    Complete(usize, u32),
    CompleteLater(usize, bool),
    RefuseTransmit(usize, bool),
    Budget(usize, Option<u32>),
    FailKicks(usize, Option<Errno>),
    Close(usize),
    Reopen(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let at = 0..3_usize;
    let errno = prop::option::of(prop::sample::select(ERRORS.to_vec()));
    let event = prop_oneof![
        12 => (at.clone(), 0..4_u8, 0..40_u16, 1..70_u16)
            .prop_map(|(at, kind, first, count)| Event::Inject(at, kind, first, count)),
        12 => at.clone().prop_map(Event::Turn),
        2 => (at.clone(), 0..64_u32).prop_map(|(at, count)| Event::Complete(at, count)),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, later)| Event::CompleteLater(at, later)),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, no)| Event::RefuseTransmit(at, no)),
        1 => (at.clone(), prop::option::of(0..20_u32)).prop_map(|(at, n)| Event::Budget(at, n)),
        1 => (at.clone(), errno).prop_map(|(at, errno)| Event::FailKicks(at, errno)),
        2 => at.clone().prop_map(Event::Close),
        3 => at.prop_map(Event::Reopen),
    ];
    prop::collection::vec(event, 1..150)
}

impl Rig {
    fn come(&mut self, event: Event) {
        match event {
            Event::Inject(at, kind, first, count) => {
                let port = [FAR, WEB, FORGETFUL, LOST][usize::from(kind)];
                for client in first..first + count {
                    self.offer(at, tcp(client, port, SYN));
                }
            }
            Event::Turn(at) => {
                self.turn(at);
            }
            Event::Complete(at, count) => {
                self.seats[at].kernel.complete(count);
            }
            Event::CompleteLater(at, later) => self.seats[at].kernel.complete_later(later),
            Event::RefuseTransmit(at, refuse) => self.seats[at].kernel.refuse_transmit(refuse),
            Event::Budget(at, budget) => self.seats[at].kernel.budget(budget),
            Event::FailKicks(at, errno) => self.seats[at].kernel.fail_kicks(errno),
            Event::Close(at) => self.close(at),
            Event::Reopen(at) => self.reopen(at),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Each turn ends with a look at the books of all ports of the thread (see [`Rig::check`]): every frame
    /// in one place, every packet booked once.
    #[test]
    fn whatever_opens_and_closes_no_frame_is_lost_or_used_twice(
        events in events(),
        // The rings take a part of the frames only, as the kernel's do.
        ring in prop::sample::select(vec![8, 16, 64]),
    ) {
        let frames = 4 * ring;
        let mut rig = rig(Sizes { frames, ring, mailbox: 4, ..Sizes::default() });
        for event in events {
            rig.come(event);
        }
        for at in 0..3 {
            if !rig.seats[at].bound {
                rig.reopen(at);
            }
        }
        rig.heal();
        rig.settle();
        for at in 0..3 {
            let accounting = rig.seats[at].port.accounting();
            prop_assert_eq!(accounting.fill + accounting.free, u64::from(frames));
        }
        let before = rig.forwarded(2);
        for client in 0..4 {
            rig.inject(0, [tcp(client, FAR, SYN)]);
            rig.turn(0);
        }
        prop_assert_eq!(rig.forwarded(2) - before, 4);
    }
}
