//! `min_healthy` and its hysteresis: weights, or percentages of all weights.

use std::ops::RangeInclusive;

use control::MinHealthy;

use crate::diagnostic::Diagnostic;
use crate::section::Section;
use crate::source::{Span, Written};
use crate::value::{self, Checked, Value};

/// The two keys as far as they could be read.
#[derive(Debug)]
pub(crate) struct RawMinHealthy {
    min: Written<Amount>,
    hysteresis: Written<Amount>,
}

/// A number with its unit.
#[derive(Clone, Copy, Debug)]
enum Amount {
    Weight(u32),
    Percent(u8),
}

impl RawMinHealthy {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let both = Self {
            min: section.optional("min_healthy", |value| amount(value, 1)),
            hysteresis: section.optional("min_healthy_hysteresis", |value| amount(value, 0)),
        };
        if let Some(mistake) = both.check() {
            section.report(mistake);
        }
        both
    }

    /// `None`: reported.
    pub(crate) fn build(&self) -> Option<MinHealthy> {
        let (min, hysteresis) = self.amounts()?;
        match (min, hysteresis) {
            (Amount::Weight(min), Amount::Weight(hysteresis)) => {
                Some(MinHealthy::Weight { min, hysteresis })
            }
            (Amount::Percent(min), Amount::Percent(hysteresis)) => {
                Some(MinHealthy::Percent { min, hysteresis })
            }
            (Amount::Weight(_), Amount::Percent(_)) | (Amount::Percent(_), Amount::Weight(_)) => {
                None
            }
        }
    }

    /// More than all backends together can give; `sum` is that of their weights, not 0.
    pub(crate) fn out_of_reach(&self, sum: u64) -> Option<Diagnostic> {
        let Some(MinHealthy::Weight { min, hysteresis }) = self.build() else { return None };
        let regained = u64::from(min) + u64::from(hysteresis);
        let (span, message, label) = if u64::from(min) > sum {
            let message = format!("`min_healthy` is {min}, but all backends together weigh {sum}");
            (self.span()?, message, "cannot be reached")
        } else if regained > sum {
            let message =
                format!("once lost, `min_healthy` cannot be regained: it takes {regained}");
            (&self.hysteresis.at()?.span, message, "too much")
        } else {
            return None;
        };
        let help = format!(
            "together they may be at most {sum}, the weight of all backends; or write percentages"
        );
        Some(Diagnostic::warning(span, message).with_label(label).with_help(help))
    }

    fn span(&self) -> Option<&Span> {
        self.min.at().map(|min| &min.span)
    }

    /// The two amounts. Without a hysteresis, or with 0 of whatever, none of the same unit.
    fn amounts(&self) -> Option<(Amount, Amount)> {
        let min = self.min.or(Amount::Weight(1))?;
        let hysteresis = self.hysteresis.or(Amount::Weight(0))?;
        let none = matches!(hysteresis, Amount::Weight(0) | Amount::Percent(0));
        Some((min, if none { min.zero() } else { hysteresis }))
    }

    fn check(&self) -> Option<Diagnostic> {
        let (min, hysteresis) = self.amounts()?;
        let span = &self.hysteresis.at()?.span;
        let (message, label, help) = match (min, hysteresis) {
            (Amount::Percent(min), Amount::Percent(more)) if min + more > 100 => (
                format!("`min_healthy` and its hysteresis are {}% together", min + more),
                "once lost, it could not be regained",
                format!("write at most `\"{}%\"`", 100 - min),
            ),
            (Amount::Weight(_), Amount::Weight(_)) | (Amount::Percent(_), Amount::Percent(_)) => {
                return None;
            }
            (min, _) => (
                format!("`min_healthy` is {}, its hysteresis is not", min.unit()),
                "of another unit",
                "write numbers in both, or percentages such as `\"10%\"` in both".to_owned(),
            ),
        };
        let error = Diagnostic::error(span, message).with_label(label).with_help(help);
        Some(match self.span() {
            Some(min) => error.with_place(min, "`min_healthy`"),
            None => error,
        })
    }
}

impl Amount {
    const fn zero(self) -> Self {
        match self {
            Self::Weight(_) => Self::Weight(0),
            Self::Percent(_) => Self::Percent(0),
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Weight(_) => "a weight",
            Self::Percent(_) => "a percentage",
        }
    }
}

/// A weight, or a string such as `"50%"`.
fn amount(value: &Value<'_>, low: u8) -> Checked<Amount> {
    if value.value.is_integer() {
        let range: RangeInclusive<u32> = low.into()..=WEIGHT_MAX;
        return value::number(range)(value).map(Amount::Weight);
    }
    let key = value.key;
    let shapes =
        format!("write `{key} = 2` for a weight, `{key} = \"20%\"` for a part of all weights");
    let Some(written) = value.value.as_str() else {
        return Err(value.wrong_type("a weight or a percentage", &shapes));
    };
    let refuse = |label: String| {
        let error =
            value.error(format!("`{key}` is not a percentage: `{}`", written.escape_debug()));
        Err(vec![error.with_label(label).with_help(shapes.as_str())])
    };
    let Some(percent) = written.strip_suffix('%') else {
        return refuse("no `%` at its end".to_owned());
    };
    match percent.trim().parse::<u8>() {
        Ok(percent) if (low..=100).contains(&percent) => Ok(Amount::Percent(percent)),
        Ok(_) | Err(_) => refuse(format!("must be a whole number from {low} to 100")),
    }
}

/// Far above what the backends of a service can weigh together.
const WEIGHT_MAX: u32 = 1_000_000_000;
