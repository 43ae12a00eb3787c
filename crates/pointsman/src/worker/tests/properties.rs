//! Any events in any order.

use proptest::prelude::*;

use super::*;

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
    FailNext(usize, Vec<Errno>),
    Wakeup(usize, bool),
    /// The driver comes by without having been kicked.
    Drive(usize),
    /// The worker has no socket for a moment.
    Unbound(usize),
    Lease(bool),
    /// What a check found out about a backend.
    Check(u16, Option<dataplane::UnusableAction>),
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let at = 0..3_usize;
    let errno = prop::sample::select(ERRORS.to_vec());
    let yes = any::<bool>();
    let when_unusable = prop::option::of(prop::sample::select(vec![
        dataplane::UnusableAction::Reset,
        dataplane::UnusableAction::Reset,
        dataplane::UnusableAction::Discard,
        dataplane::UnusableAction::Unreachable,
    ]));
    let event = prop_oneof![
        12 => (at.clone(), 0..10_u8, 0..40_u16, 1..40_u16)
            .prop_map(|(at, kind, first, count)| Event::Inject(at, kind, first, count)),
        12 => at.clone().prop_map(Event::Turn),
        2 => (at.clone(), 0..64_u32).prop_map(|(at, count)| Event::Complete(at, count)),
        1 => (at.clone(), yes).prop_map(|(at, later)| Event::CompleteLater(at, later)),
        1 => (at.clone(), yes).prop_map(|(at, refuse)| Event::RefuseTransmit(at, refuse)),
        1 => (at.clone(), prop::option::of(0..20_u32))
            .prop_map(|(at, budget)| Event::Budget(at, budget)),
        1 => (at.clone(), prop::option::of(errno.clone()))
            .prop_map(|(at, errno)| Event::FailKicks(at, errno)),
        2 => (at.clone(), prop::collection::vec(errno, 0..4))
            .prop_map(|(at, errors)| Event::FailNext(at, errors)),
        1 => (at.clone(), yes).prop_map(|(at, tx)| Event::Wakeup(at, tx)),
        1 => at.clone().prop_map(Event::Drive),
        1 => at.prop_map(Event::Unbound),
        1 => yes.prop_map(Event::Lease),
        2 => (0..6_u16, when_unusable).prop_map(|(slot, when_unusable)| Event::Check(slot, when_unusable)),
        1 => (1..200_u64).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..120)
}

fn frame(kind: u8, client: u16) -> Vec<u8> {
    match kind {
        0 => tcp(client, WEB, SYN),
        1 => tcp(client, WEB, ACK),
        2 => tcp(client, FAR, SYN),
        3 => tcp(client, LOST, SYN),
        4 => tcp(client, FORGETFUL, ACK),
        5 => too_big(client, FORGETFUL),
        6 => echo(client),
        7 => who_has(client),
        8 => tcp(client, 9, SYN),
        _ => tcp(client, WEB, SYN)[..20 + usize::from(client) % 40].to_vec(),
    }
}

impl Rig {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Inject(at, kind, first, count) => {
                for client in first..first + count {
                    self.offer(at, frame(kind, client));
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
            Event::FailNext(at, errors) => self.seats[at].kernel.fail_next_kicks(errors),
            Event::Wakeup(at, tx) => self.seats[at].kernel.needs_wakeup(tx, false),
            Event::Drive(at) => self.seats[at].kernel.run(),
            Event::Unbound(at) => {
                let Seat { worker, mailbox, .. } = &mut self.seats[at];
                while let Some(message) = mailbox.take() {
                    worker.refuse(message, self.now);
                }
                self.check(at);
            }
            Event::Lease(active) => {
                self.leases[0].store(if active { u64::MAX } else { 0 }, Relaxed);
            }
            Event::Check(slot, when_unusable) => self.health(slot, when_unusable),
            Event::Pass(seconds) => self.now = self.now + Duration::from_secs(seconds),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_books_are_right(
        events in events(),
        frames in prop::sample::select(vec![16, 64, 256]),
        ring in prop::sample::select(vec![8, 16, 64]),
        mailbox in prop::sample::select(vec![1, 4, 64]),
    ) {
        let mut rig = Rig::new(Sizes { frames, ring, mailbox, ..Sizes::default() });
        for event in events {
            rig.apply(event);
        }
        // When the faults are over everything comes to rest, and all is as on the first day.
        rig.heal();
        rig.leases[0].store(u64::MAX, Relaxed);
        rig.settle();
        for at in 0..3 {
            let accounting = rig.seats[at].port.accounting();
            prop_assert_eq!(accounting.fill + accounting.free, u64::from(frames));
            let (before, kernel) = (rig.answered(at), rig.seats[at].kernel.clone());
            rig.inject(at, many(4, echo));
            rig.turn(at);
            prop_assert_eq!(rig.answered(at) - before, 4);
            let sent = rig.forwarded(at) + rig.answered(at) + rig.originated(at);
            prop_assert_eq!(kernel.transmitted(), sent);
        }
    }
}
