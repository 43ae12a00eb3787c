//! A card that receives while the XDP program sees nothing.

use std::time::Duration;

use dataplane::Tick;

/// Compares what the card received with what the XDP program saw, and says how to go on if it saw
/// nothing at all.
///
/// Drivers count differently: some count frames that a filter of the card discards, some not those
/// that found no buffer. So the numbers are not compared; only a program that sees not one frame
/// for three seconds, in each of which the card received some, is taken for blind. On a network
/// where no more than link-layer protocols speak (one frame in two seconds) nothing is concluded.
/// Until the program has seen its first frame since it was attached, or since the link came back,
/// frames that the card received meanwhile count together: the answers to the first questions for
/// backends' MACs.
#[derive(Debug, Default)]
pub struct ReceiveWatch {
    window: Option<Window>,
    /// The first reading after a lost link, until the program sees a frame.
    link_back: Option<ReceiveReading>,
    link_lost: bool,
    /// The program was attached anew in the only mode that is left, and has seen nothing since.
    reattached: bool,
    /// Windows in a row in which the card received and the program saw nothing.
    blind_windows: u32,
    settled_at: Option<Tick>,
    /// The program has seen no frame since it was attached, and may still be blind.
    doubtful: bool,
    blind: bool,
}

/// How frames get from the card to a worker, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveMode {
    /// XDP in the driver, which writes into the UMEM.
    ZeroCopy,
    /// XDP in the driver; the kernel copies.
    Copy,
    /// XDP in the network stack; the kernel copies.
    Generic,
}

/// The slower modes that the configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallbacks {
    /// [`ReceiveMode::Copy`].
    pub copy: bool,
    /// [`ReceiveMode::Generic`].
    pub generic: bool,
}

/// Counters of one device at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveReading {
    /// Whether it has a link and all its queues are bound.
    pub serving: bool,
    /// How frames are received.
    pub mode: ReceiveMode,
    /// Frames that the card received, or could not receive for want of a buffer.
    pub received: u64,
    /// Of these, those since the program was attached.
    pub since_attach: u64,
    /// Frames that the XDP program saw since then.
    pub seen: u64,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveAction {
    /// Receive in this mode from now on.
    FallBack(ReceiveMode),
    /// Attach the program anew, in the same mode: some drivers forget it when the device was down.
    Reattach,
    /// No mode is left: this node must not be Active on the device.
    Blind,
    /// A device that was [`Self::Blind`] is not any more.
    Seeing,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    begin: Tick,
    first: ReceiveReading,
}

impl ReceiveWatch {
    /// Whether the last word was [`ReceiveAction::Blind`].
    pub const fn is_blind(&self) -> bool {
        self.blind
    }

    /// Whether it is too early to say that the program sees what the card receives: it has seen no
    /// frame yet. On a card that receives nothing the doubt ends three seconds after it serves.
    pub const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Begins anew: the device is another one or was reset.
    pub fn restart(&mut self) {
        let Self { blind, doubtful, reattached, .. } = *self;
        *self = Self { blind, doubtful, reattached, ..Self::default() };
    }

    /// A reading; to be called at least once a second.
    pub fn look(
        &mut self,
        now: Tick,
        reading: ReceiveReading,
        allowed: Fallbacks,
    ) -> Option<ReceiveAction> {
        if !reading.serving {
            self.restart();
            self.link_lost = true;
            return None;
        }
        if std::mem::take(&mut self.link_lost) {
            self.link_back = Some(reading);
        }
        let action = self.judge(now, reading, allowed);
        let settled = self.settled_at.is_some_and(|at| now >= at + WINDOW);
        let idle = settled && self.blind_windows == 0 && reading.since_attach < ENOUGH;
        self.doubtful = reading.seen == 0 && !idle;
        action
    }

    fn judge(
        &mut self,
        now: Tick,
        reading: ReceiveReading,
        allowed: Fallbacks,
    ) -> Option<ReceiveAction> {
        if now < *self.settled_at.get_or_insert(now + SETTLE) {
            return None;
        }
        let Some(Window { begin, first }) = self.window else {
            self.window = Some(Window { begin: now, first: reading });
            return None;
        };
        if reading.seen != first.seen || reading.mode != first.mode {
            self.window = Some(Window { begin: now, first: reading });
            self.blind_windows = 0;
            self.reattached = false;
            let was_blind = std::mem::take(&mut self.blind);
            return was_blind.then_some(ReceiveAction::Seeing);
        }
        if now.saturating_since(begin) < WINDOW {
            return None;
        }
        self.window = Some(Window { begin: now, first: reading });
        let received = match self.link_back {
            _ if reading.seen == 0 => reading.since_attach,
            Some(back) if back.seen == reading.seen => {
                reading.received.saturating_sub(back.received)
            }
            _ => reading.received.saturating_sub(first.received),
        };
        self.blind_windows = if received >= ENOUGH { self.blind_windows + 1 } else { 0 };
        if self.blind_windows < WINDOWS || self.blind {
            return None;
        }
        Some(self.step_down(reading.mode, allowed))
    }

    fn step_down(&mut self, mode: ReceiveMode, allowed: Fallbacks) -> ReceiveAction {
        self.restart();
        match mode {
            ReceiveMode::ZeroCopy if allowed.copy => ReceiveAction::FallBack(ReceiveMode::Copy),
            ReceiveMode::ZeroCopy | ReceiveMode::Copy if allowed.generic => {
                ReceiveAction::FallBack(ReceiveMode::Generic)
            }
            _ if !self.reattached => {
                self.reattached = true;
                ReceiveAction::Reattach
            }
            ReceiveMode::ZeroCopy | ReceiveMode::Copy | ReceiveMode::Generic => {
                self.blind = true;
                ReceiveAction::Blind
            }
        }
    }
}

impl ReceiveMode {
    /// For logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
            Self::Generic => "generic",
        }
    }
}

/// A card that was reset to attach the program or to bind a socket needs a moment.
const SETTLE: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(1);
/// So many windows in a row.
const WINDOWS: u32 = 3;
/// Frames a window: more than the bridges and switches around send by themselves.
const ENOUGH: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Fallbacks = Fallbacks { copy: true, generic: true };

    /// A card that gets `rate` frames a second, looked at ten times a second.
    struct Card {
        watch: ReceiveWatch,
        reading: ReceiveReading,
        now: u64,
    }

    const BEFORE: u64 = 7_000;

    impl Card {
        fn new(mode: ReceiveMode) -> Self {
            let reading = ReceiveReading {
                serving: true,
                mode,
                received: BEFORE,
                since_attach: 0,
                // One was seen: only what comes later counts.
                seen: 1,
            };
            Self { watch: ReceiveWatch::default(), reading, now: 50_000 }
        }

        /// For `ms`; the program sees one in `seen_one_in` frames, 0: none.
        fn run(
            &mut self,
            ms: u64,
            rate: u64,
            seen_one_in: u64,
            allowed: Fallbacks,
        ) -> Vec<(u64, ReceiveAction)> {
            let begin = self.now;
            let mut actions = Vec::new();
            let (received, seen) = (self.reading.received, self.reading.seen);
            while self.now < begin + ms {
                self.now += 100;
                let frames = (self.now - begin) * rate / 1000;
                self.reading.received = received + frames;
                self.reading.since_attach = self.reading.received - BEFORE;
                self.reading.seen = seen + frames.checked_div(seen_one_in).unwrap_or(0);
                let now = Tick::from_nanos(self.now * 1_000_000);
                if let Some(action) = self.watch.look(now, self.reading, allowed) {
                    actions.push((self.now - begin, action));
                    if let ReceiveAction::FallBack(mode) = action {
                        self.reading.mode = mode;
                    }
                }
            }
            actions
        }
    }

    #[test]
    fn a_blind_program_steps_down_to_what_is_left_and_then_gives_up_once() {
        use ReceiveAction::{Blind, FallBack, Reattach};
        use ReceiveMode::{Copy, Generic, ZeroCopy};
        let steps = |mode, allowed| {
            let actions = Card::new(mode).run(60_000, 100, 0, allowed);
            let times: Vec<u64> = actions.iter().map(|(at, _)| *at).collect();
            assert!(times.first().is_some_and(|at| (5_000..=5_500).contains(at)), "{times:?}");
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 5_000), "{times:?}");
            actions.into_iter().map(|(_, action)| action).collect::<Vec<_>>()
        };
        assert_eq!(steps(ZeroCopy, ANY), [FallBack(Copy), FallBack(Generic), Reattach, Blind]);
        assert_eq!(steps(Copy, ANY), [FallBack(Generic), Reattach, Blind]);
        assert_eq!(steps(Generic, ANY), [Reattach, Blind]);
        let native = Fallbacks { copy: true, generic: false };
        assert_eq!(steps(ZeroCopy, native), [FallBack(Copy), Reattach, Blind]);
        let fixed = Fallbacks { copy: false, generic: false };
        assert_eq!(steps(ZeroCopy, fixed), [Reattach, Blind]);
        let zero_copy_or_generic = Fallbacks { copy: false, generic: true };
        assert_eq!(steps(ZeroCopy, zero_copy_or_generic), [FallBack(Generic), Reattach, Blind]);
    }

    #[test]
    fn a_program_that_sees_a_few_of_many_is_not_blind() {
        // Filters of the card, flow rules, drops: whatever the card counts beside.
        for one_in in [1, 10, 100] {
            let mut card = Card::new(ReceiveMode::ZeroCopy);
            assert_eq!(card.run(60_000, 100, one_in, ANY), []);
        }
    }

    #[test]
    fn doubt_ends_with_the_first_frame_or_on_a_quiet_network_after_three_seconds() {
        let unproven = |mode| {
            let mut card = Card::new(mode);
            card.reading.seen = 0;
            card
        };
        let mut card = unproven(ReceiveMode::Copy);
        card.run(100, 0, 0, ANY);
        assert!(card.watch.is_doubtful());
        card.run(2_900, 0, 0, ANY);
        assert!(card.watch.is_doubtful());
        card.run(100, 0, 0, ANY);
        assert!(!card.watch.is_doubtful());
        let mut card = unproven(ReceiveMode::Copy);
        card.run(1_000, 10, 10, ANY);
        assert!(!card.watch.is_doubtful());
        // Neither a flap nor a new binding brings it back.
        card.reading.serving = false;
        card.run(500, 0, 0, ANY);
        card.reading.serving = true;
        card.run(500, 10, 0, ANY);
        assert!(!card.watch.is_doubtful());
        // A blind card stays doubtful in every mode.
        let mut card = unproven(ReceiveMode::ZeroCopy);
        for _ in 0..120 {
            card.run(100, 100, 0, ANY);
            assert!(card.watch.is_doubtful() || card.watch.is_blind());
        }
    }

    /// The answers of the backends come before the queues are bound, and then it is quiet.
    #[test]
    fn a_few_frames_before_the_first_one_is_seen_are_enough() {
        let mut card = Card::new(ReceiveMode::Copy);
        (card.reading.seen, card.reading.received) = (0, BEFORE + 4);
        let actions = card.run(6_000, 0, 0, ANY);
        let to = ReceiveAction::FallBack(ReceiveMode::Generic);
        assert!(matches!(actions[..], [(5_000..=5_500, action)] if action == to), "{actions:?}");
        assert!(card.watch.is_doubtful());
        let mut quiet = Card::new(ReceiveMode::Copy);
        (quiet.reading.seen, quiet.reading.received) = (0, BEFORE + 2);
        assert_eq!(quiet.run(60_000, 0, 0, ANY), []);
        assert!(!quiet.watch.is_doubtful());
    }

    #[test]
    fn a_quiet_network_proves_nothing() {
        for rate in [0, 1, 2] {
            assert_eq!(Card::new(ReceiveMode::Copy).run(600_000, rate, 0, ANY), [], "{rate}");
        }
    }

    #[test]
    fn bursts_with_pauses_prove_nothing() {
        let mut card = Card::new(ReceiveMode::Copy);
        for _ in 0..20 {
            assert_eq!(card.run(1_000, 1_000, 0, ANY), []);
            assert_eq!(card.run(2_000, 0, 0, ANY), []);
        }
    }

    #[test]
    fn a_link_that_flaps_begins_anew() {
        let mut card = Card::new(ReceiveMode::Copy);
        for _ in 0..20 {
            assert_eq!(card.run(4_500, 100, 0, ANY), []);
            card.reading.serving = false;
            assert_eq!(card.run(200, 100, 0, ANY), []);
            card.reading.serving = true;
        }
        assert_eq!(card.run(6_000, 100, 0, ANY).len(), 1);
    }

    #[test]
    fn a_single_frame_ends_the_blindness() {
        let mut card = Card::new(ReceiveMode::Generic);
        assert_eq!(card.run(12_000, 100, 0, ANY).len(), 2);
        assert!(card.watch.is_blind());
        // Rebinding alone does not.
        card.watch.restart();
        assert!(card.watch.is_blind());
        assert_eq!(card.run(10_000, 100, 0, ANY), []);
        let actions = card.run(1_000, 100, 10, ANY);
        assert_eq!(actions.first(), Some(&(100, ReceiveAction::Seeing)));
        assert_eq!(actions.len(), 1);
        assert!(!card.watch.is_blind());
        // It may become blind again.
        assert_eq!(card.run(12_000, 100, 0, ANY).len(), 2);
    }

    /// vmxnet3: three frames in twelve seconds are all that clients and backends send.
    #[test]
    fn a_few_frames_after_the_link_came_back_are_enough() {
        let native = Fallbacks { copy: true, generic: false };
        let mut card = Card::new(ReceiveMode::Copy);
        card.run(10_000, 100, 1, native);
        card.reading.serving = false;
        card.run(1_000, 0, 0, native);
        card.reading.serving = true;
        card.run(3_000, 1, 0, native);
        let actions = card.run(6_000, 0, 0, native);
        assert!(matches!(actions[..], [(_, ReceiveAction::Reattach)]), "{actions:?}");
        // It helped.
        assert_eq!(card.run(60_000, 100, 1, native), []);
    }
}
