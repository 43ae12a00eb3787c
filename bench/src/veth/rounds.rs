//! Interleaved rounds, medians and ratios.

use std::fmt::Write as _;

use anyhow::Result;

use super::contestant::Contestant;

/// What all rounds found of one contestant.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    name: String,
    /// Packets a second at saturation, by round.
    saturated: Vec<f64>,
    /// And without loss.
    lossless: Vec<f64>,
}

/// Runs all contestants, one round each, in turn, so many times.
///
/// # Errors
/// When a program ends.
pub fn run(contestants: &[Contestant], rounds: usize) -> Result<Vec<Outcome>> {
    let named = |one: &Contestant| Outcome { name: one.name.clone(), ..Outcome::default() };
    let mut outcomes: Vec<Outcome> = contestants.iter().map(named).collect();
    for _ in 0..rounds {
        for (contestant, outcome) in contestants.iter().zip(&mut outcomes) {
            let found = contestant.saturate()?;
            outcome.saturated.push(found.rate);
            outcome.lossless.push(contestant.without_loss(found.rate)?);
        }
    }
    Ok(outcomes)
}

/// As a Markdown table; ratios are medians of the rounds' ratios to the first two contestants.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| contestant | kpps, saturated | kpps, nothing lost | × first | × second |\n|:--|--:|--:|--:|--:|\n",
    );
    for outcome in outcomes {
        let ratio = |to: usize| outcomes.get(to).map_or(f64::NAN, |to| ratio(outcome, to));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} |",
            outcome.name,
            median(&outcome.saturated) / 1e3,
            median(&outcome.lossless) / 1e3,
            ratio(0),
            ratio(1)
        );
    }
    text
}

fn ratio(outcome: &Outcome, to: &Outcome) -> f64 {
    let ratios: Vec<f64> =
        outcome.saturated.iter().zip(&to.saturated).map(|(one, base)| one / base).collect();
    median(&ratios)
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let outcome = |name: &str, rates: &[f64]| Outcome {
            name: name.to_owned(),
            saturated: rates.to_vec(),
            lossless: rates.to_vec(),
        };
        // A machine that is half as fast in one round is that for both.
        let all = [outcome("a", &[10.0, 5.0, 10.0]), outcome("b", &[8.0, 4.0, 8.0])];
        assert!((ratio(&all[1], &all[0]) - 0.8).abs() < 1e-9);
        assert!(table(&all).contains("| b | 0 | 0 | 0.80 | 1.00 |"), "{}", table(&all));
    }
}
