//! `status = 204`, `"200-299"` or a list of both.

use std::fmt;

use control::health::StatusSet;

use crate::value::{self, Checked, Value, repeated};

/// Status codes of HTTP, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Codes {
    first: u16,
    last: u16,
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

pub(super) fn set(value: &Value<'_>) -> Checked<StatusSet> {
    if !value.value.is_array() {
        let one = codes(value)?;
        return Ok(StatusSet(vec![(one.first, one.last)]));
    }
    let list = value::list(EXAMPLE, codes)(value)?;
    let mistakes = repeated("status", &list);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    if list.is_empty() {
        let error = value.error(format!("`{}` is an empty list", value.key));
        return Err(vec![error.with_label("no answer would pass").with_help(SHAPES)]);
    }
    Ok(StatusSet(list.into_iter().map(|codes| (codes.value.first, codes.value.last)).collect()))
}

fn codes(value: &Value<'_>) -> Checked<Codes> {
    if value.value.is_integer() {
        let code = value::number(LOW..=HIGH)(value)?;
        return Ok(Codes { first: code, last: code });
    }
    let Some(written) = value.value.as_str() else {
        return Err(value.wrong_type("a status code, a range or a list", SHAPES));
    };
    let refuse = |label: &str, help: &str| {
        let error = value.error(format!(
            "`{}` is not a range of codes: `{}`",
            value.key,
            written.escape_debug()
        ));
        Err(vec![error.with_label(label).with_help(help)])
    };
    if let Ok(code) = written.trim().parse::<u16>() {
        return refuse("a single code is a number", &format!("write `{code}`, without quotes"));
    }
    let class = written.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
    if let Some(class @ 1..=5) = class {
        return refuse("not a range", &format!("write `\"{class}00-{class}99\"`"));
    }
    let bounds = written.split_once('-').map(|(first, last)| (first.trim(), last.trim()));
    match bounds.map(|(first, last)| (first.parse(), last.parse())) {
        Some((Ok(first), Ok(last))) if first < LOW || last > HIGH || first > HIGH || last < LOW => {
            refuse("must be within 100-599", SHAPES)
        }
        Some((Ok(first), Ok(last))) if first > last => {
            refuse("reversed", &format!("write `\"{last}-{first}\"`"))
        }
        Some((Ok(first), Ok(last))) => Ok(Codes { first, last }),
        Some(_) | None => refuse("not two codes", SHAPES),
    }
}

const LOW: u16 = 100;
const HIGH: u16 = 599;

const EXAMPLE: &str = "[200, \"300-399\"]";
const SHAPES: &str = "write `status = 204`, `\"200-299\"` or `[200, \"300-399\"]`";
