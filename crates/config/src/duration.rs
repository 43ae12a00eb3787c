//! Durations: strings with a unit, `"50s"` or `"1m 30s"`.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use crate::value::{Checked, Value};

/// A duration within `range`. A number without a unit is refused: seconds here are milliseconds
/// elsewhere.
pub(crate) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Value<'_>) -> Checked<Duration> {
    move |value| {
        let key = value.key;
        if let DeValue::Integer(_) | DeValue::Float(_) = value.value {
            let error = value.error(format!("`{key}` has no unit")).with_label("seconds? minutes?");
            return Err(vec![error.with_help(format!("write `\"{}s\"`", value.written()))]);
        }
        let written = value.str("a duration", "\"5s\"")?;
        let duration = humantime::parse_duration(written).map_err(|error| {
            let what = value.error(format!("`{key}` is not a duration: `{written}`"));
            let help = "write a number and a unit: `\"500ms\"`, `\"5s\"`, `\"1m 30s\"`, `\"2h\"`";
            vec![what.with_label(error.to_string()).with_help(help)]
        })?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let low = humantime::format_duration(*range.start());
        let high = humantime::format_duration(*range.end());
        let error = value.error(format!("`{key}` is out of range: {written}"));
        let help = format!("write a duration from {low} to {high}");
        Err(vec![error.with_label(format!("must be {low} to {high}")).with_help(help)])
    }
}

/// Of everything that expires. The packet path keeps milliseconds in 32 bits.
pub(crate) const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(7 * 24 * 60 * 60);

/// Of what is done again and again, and of one such thing: scripts, probes.
pub(crate) const PERIOD: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60 * 60);
