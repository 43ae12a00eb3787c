//! Whether the XDP program of an interface forwards the packets of known flows itself, and whether programs
//! send by it.

use std::time::Duration;

use dataplane::Tick;

use crate::desired::FastPath;

/// What is known of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathFacts {
    /// Whether this kernel loaded the program with it.
    pub loaded: bool,
    /// Whether frames that the program sends and the driver drops are counted.
    pub watched: bool,
    /// Whether a queue's socket is zero-copy.
    pub zero_copy: bool,
    /// Whether the program runs in generic mode.
    pub generic: bool,
    /// Whether it is one end of a veth, which takes frames of its own program only while it takes those
    /// of others.
    pub veth: bool,
    /// Whether it takes frames that programs redirect to it.
    pub egress: Egress,
    /// What [`LossWatch`] says.
    pub losing: bool,
}

/// Whether an interface takes frames that programs redirect to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// It does.
    Takes,
    /// It does not: they would be lost.
    Refuses,
    /// The kernel does not say.
    Unknown,
}

/// Whether it does, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathChoice {
    /// Whether it forwards what comes in by the interface.
    pub on: bool,
    /// For an operator.
    pub why: &'static str,
    /// Why frames may be lost that a worker would not lose; only where it was asked for nevertheless.
    pub risk: Option<&'static str>,
    /// Whether programs redirect frames to the interface: those of other interfaces, and its own one if
    /// it [`redirects`](Self::redirects).
    pub egress: bool,
    /// Whether its own program redirects to it what leaves where it came in. `XDP_TX` is cheaper, but a
    /// veth whose other end has GRO and no program does not look at what comes so.
    pub redirects: bool,
}

/// Decides. `auto` is on only where nothing is lost that the worker would not lose.
pub const fn fast_path(wanted: FastPath, facts: FastPathFacts) -> FastPathChoice {
    let (on, why, risk) = match (wanted, reason_against(facts)) {
        (FastPath::Off, _) => (false, "fast_path = \"off\"", None),
        _ if !facts.loaded => {
            (false, "this kernel does not load it: see the log of the start", None)
        }
        _ if is_cut_off(facts) => (false, CUT_OFF, None),
        (FastPath::On, risk) => (true, "fast_path = \"on\"", risk),
        (FastPath::Auto, Some(why)) => (false, why, None),
        (FastPath::Auto, None) => (true, "frames are copied", None),
    };
    let trusted = facts.watched && !facts.losing || matches!(wanted, FastPath::On);
    let takes = matches!(facts.egress, Egress::Takes);
    let egress = facts.loaded && takes && trusted && !matches!(wanted, FastPath::Off);
    let redirects = facts.veth && !matches!(facts.egress, Egress::Unknown);
    FastPathChoice { on, why, risk, egress, redirects }
}

/// Whether a veth loses all that its program sends.
const fn is_cut_off(facts: FastPathFacts) -> bool {
    facts.veth && matches!(facts.egress, Egress::Refuses)
}

const CUT_OFF: &str = "a veth whose other end has neither XDP program nor GRO: the kernel would lose \
                       what is sent to it";

const fn reason_against(facts: FastPathFacts) -> Option<&'static str> {
    match facts {
        FastPathFacts { zero_copy: true, .. } => Some("the socket is zero-copy"),
        FastPathFacts { generic: true, .. } => {
            Some("XDP runs in generic mode: there a full transmit queue would lose frames")
        }
        FastPathFacts { watched: false, .. } => Some(
            "this kernel does not tell which frames a driver drops: it has no BTF or refuses the \
             program that counts them; see the log of the start",
        ),
        FastPathFacts { veth: true, egress: Egress::Unknown, .. } => Some(
            "a veth, and this kernel does not say whether the other end has an XDP program, without \
             which it loses what is sent to it: say fast_path = \"on\" if it has",
        ),
        FastPathFacts { losing: true, .. } => {
            Some("the driver dropped what the program sent: it is tried again later")
        }
        _ => None,
    }
}

/// Finds out that a driver drops what the program sends: most of it, or some of it at a rate that
/// overloads no card. A worker keeps such frames and tries again.
#[derive(Debug, Default)]
pub struct LossWatch {
    /// Where the current window began.
    window: Option<(Tick, LossReading)>,
    paused_until: Option<Tick>,
    pauses: u32,
    last_loss: Option<Tick>,
}

/// Counters of one interface at one moment, which only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossReading {
    /// Frames that programs sent by it.
    pub forwarded: u64,
    /// Of these, frames that the driver dropped.
    pub lost: u64,
}

impl LossWatch {
    /// A reading; returns whether the program must not forward now. It is tried again after a minute,
    /// and after twice as long each time that it fails again, up to an hour.
    pub fn look(&mut self, now: Tick, reading: LossReading) -> bool {
        if let Some(until) = self.paused_until {
            if now < until {
                return true;
            }
            self.paused_until = None;
            self.window = None;
        }
        let (since, before) = *self.window.get_or_insert((now, reading));
        let lost = reading.lost.saturating_sub(before.lost);
        let elapsed = now.saturating_since(since);
        if lost < FEW {
            if elapsed >= WINDOW {
                self.window = Some((now, reading));
            }
            return false;
        }
        self.window = Some((now, reading));
        let forwarded = reading.forwarded.saturating_sub(before.forwarded);
        if !is_fault(forwarded, lost, elapsed) {
            return false;
        }
        if self.last_loss.is_some_and(|last| now.saturating_since(last) >= FORGET) {
            self.pauses = 0;
        }
        let pause = (SHORTEST * 2_u32.saturating_pow(self.pauses)).min(LONGEST);
        self.pauses = (self.pauses + 1).min(MOST_DOUBLINGS);
        self.last_loss = Some(now);
        self.paused_until = Some(now + pause);
        true
    }
}

fn is_fault(forwarded: u64, lost: u64, elapsed: Duration) -> bool {
    let overload = u128::from(forwarded) * 1_000 > u128::from(OVERLOAD) * elapsed.as_millis();
    lost.saturating_mul(2) >= forwarded || (!overload && lost.saturating_mul(100) >= forwarded)
}

/// Fewer lost frames prove nothing.
const FEW: u64 = 16;
const WINDOW: Duration = Duration::from_secs(10);
/// Packets a second; more may be too much for a card.
const OVERLOAD: u64 = 100_000;
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3_600);
/// Enough for the longest pause.
const MOST_DOUBLINGS: u32 = 6;
const FORGET: Duration = Duration::from_secs(3 * 3_600);

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: FastPathFacts = FastPathFacts {
        loaded: true,
        watched: true,
        zero_copy: false,
        generic: false,
        veth: false,
        egress: Egress::Takes,
        losing: false,
    };
    const VETH: FastPathFacts = FastPathFacts { veth: true, ..GOOD };

    #[test]
    fn auto_is_on_where_frames_are_copied_and_none_is_lost_unseen() {
        use FastPath::{Auto, Off, On};
        for (facts, on) in [
            (GOOD, true),
            (FastPathFacts { egress: Egress::Refuses, ..GOOD }, true),
            (FastPathFacts { egress: Egress::Unknown, ..GOOD }, true),
            (VETH, true),
            (FastPathFacts { egress: Egress::Refuses, ..VETH }, false),
            (FastPathFacts { egress: Egress::Unknown, ..VETH }, false),
            (FastPathFacts { loaded: false, ..GOOD }, false),
            (FastPathFacts { watched: false, ..GOOD }, false),
            (FastPathFacts { zero_copy: true, ..GOOD }, false),
            (FastPathFacts { generic: true, ..GOOD }, false),
            (FastPathFacts { losing: true, ..GOOD }, false),
        ] {
            assert_eq!(fast_path(Auto, facts).on, on, "{facts:?}");
            assert_eq!(fast_path(Auto, facts).risk, None, "{facts:?}");
            assert!(!fast_path(Off, facts).on, "{facts:?}");
            let forced = fast_path(On, facts);
            assert_eq!(forced.on, facts.loaded && !is_cut_off(facts), "{facts:?}");
            assert_eq!(forced.risk.is_some(), forced.on && !on, "{facts:?}");
        }
    }

    #[test]
    fn programs_send_by_what_takes_their_frames() {
        use FastPath::{Auto, Off, On};
        for (facts, auto, on) in [
            (GOOD, true, true),
            (VETH, true, true),
            // The other direction is no matter of theirs.
            (FastPathFacts { zero_copy: true, ..GOOD }, true, true),
            (FastPathFacts { losing: true, ..GOOD }, false, true),
            (FastPathFacts { watched: false, ..GOOD }, false, true),
            (FastPathFacts { egress: Egress::Refuses, ..VETH }, false, false),
            (FastPathFacts { egress: Egress::Unknown, ..GOOD }, false, false),
            (FastPathFacts { loaded: false, ..GOOD }, false, false),
        ] {
            assert_eq!(fast_path(Auto, facts).egress, auto, "{facts:?}");
            assert_eq!(fast_path(On, facts).egress, on, "{facts:?}");
            assert!(!fast_path(Off, facts).egress, "{facts:?}");
        }
        assert!(fast_path(Auto, VETH).redirects && !fast_path(Auto, GOOD).redirects);
    }

    /// The seconds, of `seconds`, at which the program must not forward.
    fn pauses(seconds: u64, mut reading: impl FnMut(u64) -> LossReading) -> Vec<u64> {
        let mut watch = LossWatch::default();
        let tick = |second| Tick::from_nanos((100 + second) * 1_000_000_000);
        (0..seconds).filter(|second| watch.look(tick(*second), reading(*second))).collect()
    }

    #[test]
    fn a_driver_that_drops_everything_is_noticed_and_tried_again_less_and_less_often() {
        let pauses =
            pauses(1_000, |second| LossReading { forwarded: second * 50, lost: second * 50 });
        let begins = pauses.iter().filter(|second| !pauses.contains(&(*second - 1)));
        // A second to notice, a minute, two, four, eight.
        assert_eq!(begins.copied().collect::<Vec<_>>(), [1, 62, 183, 424, 905]);
        assert_eq!(pauses[..60], (1..61).collect::<Vec<_>>());
    }

    #[test]
    fn one_queue_of_eight_that_drops_is_noticed_below_overload() {
        let reading = |second| LossReading { forwarded: second * 8_000, lost: second * 1_000 };
        assert_eq!(pauses(3, reading), [1, 2]);
    }

    #[test]
    fn what_overload_loses_is_no_fault() {
        let reading =
            |second| LossReading { forwarded: second * 2_000_000, lost: second * 700_000 };
        assert_eq!(pauses(100, reading), [0; 0]);
    }

    #[test]
    fn a_few_lost_frames_are_no_fault() {
        let reading = |second| LossReading { forwarded: second * 20, lost: second };
        assert_eq!(pauses(9, reading), [0; 0]);
        let rare = |second| LossReading { forwarded: second * 90_000, lost: second * 100 };
        assert_eq!(pauses(100, rare), [0; 0]);
    }

    #[test]
    fn the_pause_never_exceeds_an_hour() {
        let reading = |second| LossReading { forwarded: second * 50, lost: second * 50 };
        let pauses = pauses(40_000, reading);
        let begins: Vec<u64> =
            pauses.iter().copied().filter(|second| !pauses.contains(&(second - 1))).collect();
        let steps: Vec<u64> = begins.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| *step <= 3_601), "{steps:?}");
        assert!(steps.ends_with(&[3_601, 3_601]), "{steps:?}");
    }
}
