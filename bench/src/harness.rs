//! Interleaved rounds and their statistics.

use std::time::Duration;

use serde::Serialize;

/// Something that is measured.
pub trait Subject {
    /// Prepares and runs one block: how long the measured part took, for how many packets.
    fn block(&mut self) -> (Duration, usize);

    /// After a round, outside of the measured time: checks, and cleans up.
    fn rest(&mut self) {}
}

/// A subject with its name.
pub struct Contestant {
    name: &'static str,
    versus: Option<Versus>,
    blocks: usize,
    subject: Box<dyn Subject>,
}

/// What a contestant is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Versus {
    name: &'static str,
    /// What the ratio should not exceed.
    goal: Option<f64>,
    /// Of the rounds' means instead of their medians: for a cost that few blocks bear.
    means: bool,
}

impl Contestant {
    /// A contestant that is compared with no other.
    pub fn new(name: &'static str, subject: impl Subject + 'static) -> Self {
        Self { name, versus: None, blocks: BLOCKS, subject: Box::new(subject) }
    }

    /// Its ratio to another one, of that name, is reported.
    #[must_use]
    pub fn versus(self, name: &'static str) -> Self {
        Self { versus: Some(Versus { name, goal: None, means: false }), ..self }
    }

    /// The same with a goal for the ratio.
    #[must_use]
    pub fn at_most(self, goal: f64, name: &'static str) -> Self {
        Self { versus: Some(Versus { name, goal: Some(goal), means: false }), ..self }
    }

    /// Compares the rounds' means, not their medians: what few blocks pay for counts.
    #[must_use]
    pub fn in_the_mean(mut self) -> Self {
        self.versus = self.versus.map(|versus| Versus { means: true, ..versus });
        self
    }

    /// With shorter rounds: its state grows while it runs.
    #[must_use]
    pub fn short(self) -> Self {
        self.blocks(SHORT_BLOCKS)
    }

    /// With so many blocks in a round (at least one).
    #[must_use]
    pub fn blocks(self, count: usize) -> Self {
        Self { blocks: count.max(1), ..self }
    }

    /// One round, after a warm-up that brings its memory back into the caches.
    fn round(&mut self) -> Round {
        for _ in 0..self.blocks / 8 {
            self.subject.block();
        }
        let mut blocks = Vec::with_capacity(self.blocks);
        let (mut time, mut packets) = (Duration::ZERO, 0);
        for _ in 0..self.blocks {
            let (block, count) = self.subject.block();
            blocks.push(per_packet(block, count));
            time += block;
            packets += count;
        }
        self.subject.rest();
        Round { median: Quartiles::of(blocks).median, mean: per_packet(time, packets) }
    }
}

impl std::fmt::Debug for Contestant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contestant").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What one round found, in nanoseconds per packet.
#[derive(Clone, Copy, Debug)]
struct Round {
    median: f64,
    mean: f64,
}

/// What all rounds found, in nanoseconds per packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Who.
    pub name: &'static str,
    /// Over the rounds' medians: an interruption hits few blocks of a round, so these are the cost
    /// of the code.
    pub ns: Quartiles,
    /// Median over the rounds' means: interruptions by other processes included.
    pub mean_ns: f64,
    /// None if it is compared with no other, or that one did not run.
    pub ratio: Option<Ratio>,
}

/// A contestant's time as a multiple of another one's in the same round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The other one.
    pub to: &'static str,
    /// Over the rounds.
    pub times: Quartiles,
    /// What the median should not exceed.
    pub goal: Option<f64>,
}

impl Ratio {
    /// Whether the goal is met; none without a goal.
    pub fn is_met(&self) -> Option<bool> {
        self.goal.map(|goal| self.times.median <= goal)
    }
}

/// Order statistics.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quartiles {
    /// The smallest.
    pub min: f64,
    /// A quarter is not above it.
    pub q1: f64,
    /// Half is not above it.
    pub median: f64,
    /// Three quarters are not above it.
    pub q3: f64,
}

impl Quartiles {
    /// Of at least one sample.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |quarter| samples[(samples.len() - 1) * quarter / 4];
        Self { min: at(0), q1: at(1), median: at(2), q3: at(3) }
    }
}

/// Runs all contestants, one round each, in turn, so many times (at least once).
pub fn run(contestants: &mut [Contestant], rounds: usize) -> Vec<Outcome> {
    let mut found: Vec<Vec<Round>> = vec![Vec::new(); contestants.len()];
    for _ in 0..rounds.max(1) {
        for (contestant, found) in contestants.iter_mut().zip(&mut found) {
            found.push(contestant.round());
        }
    }
    let outcome = |(contestant, rounds): (&Contestant, &Vec<Round>)| {
        let ratio = contestant.versus.and_then(|versus| {
            let other = contestants.iter().position(|other| other.name == versus.name)?;
            Some(ratio(versus, rounds, &found[other]))
        });
        Outcome {
            name: contestant.name,
            ns: Quartiles::of(rounds.iter().map(|round| round.median).collect()),
            mean_ns: Quartiles::of(rounds.iter().map(|round| round.mean).collect()).median,
            ratio,
        }
    };
    contestants.iter().zip(&found).map(outcome).collect()
}

fn ratio(versus: Versus, own: &[Round], others: &[Round]) -> Ratio {
    let Versus { name, goal, means } = versus;
    let time = |round: &Round| if means { round.mean } else { round.median };
    let ratios = own.iter().zip(others).map(|(own, other)| time(own) / time(other));
    Ratio { to: name, times: Quartiles::of(ratios.collect()), goal }
}

fn per_packet(time: Duration, packets: usize) -> f64 {
    time.as_secs_f64() * 1e9 / packets as f64
}

/// Blocks of a round.
const BLOCKS: usize = 400;
const SHORT_BLOCKS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_an_odd_number() {
        let expected = Quartiles { min: 1.0, q1: 2.0, median: 3.0, q3: 4.0 };
        assert_eq!(Quartiles::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]), expected);
    }

    /// Takes ten nanoseconds a packet, and much longer once.
    struct Once(bool);

    impl Subject for Once {
        fn block(&mut self) -> (Duration, usize) {
            let interrupted = std::mem::take(&mut self.0);
            (Duration::from_nanos(if interrupted { 1_000_000 } else { 640 }), 64)
        }
    }

    #[test]
    fn one_interruption_does_not_move_the_median() {
        let mut contestants = [Contestant::new("once", Once(true))];
        let outcome = run(&mut contestants, 3).remove(0);
        assert!((outcome.ns.median - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_is_to_the_contestant_of_that_name() {
        struct Twice;
        impl Subject for Twice {
            fn block(&mut self) -> (Duration, usize) {
                (Duration::from_nanos(1280), 64)
            }
        }
        let mut contestants = [
            Contestant::new("once", Once(false)),
            Contestant::new("twice", Twice).at_most(1.5, "once"),
            Contestant::new("alone", Twice).versus("nobody"),
        ];
        let outcomes = run(&mut contestants, 3);
        let ratio = outcomes[1].ratio.as_ref().expect("a ratio");
        assert!((ratio.times.median - 2.0).abs() < 1e-9);
        assert_eq!(ratio.is_met(), Some(false));
        assert_eq!(outcomes[2].ratio, None);
    }
}
