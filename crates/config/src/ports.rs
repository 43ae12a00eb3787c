//! `port = 80`, `"8000-8100"` or `"any"`.

use std::fmt;

use crate::value::{Checked, Value};

/// The ports of a service. "Any" is 0–65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) first: u16,
    /// Inclusive.
    pub(crate) last: u16,
}

impl Ports {
    /// Every port, port 0 included.
    pub(crate) const ANY: Self = Self { first: 0, last: u16::MAX };
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (0, u16::MAX) => f.write_str("any port"),
            (first, last) if first == last => write!(f, "port {first}"),
            (first, last) => write!(f, "ports {first}-{last}"),
        }
    }
}

/// Reads `port`.
pub(crate) fn ports(value: &Value<'_>) -> Checked<Ports> {
    let key = value.key;
    let refuse = |message: String, label: &str, help: &str| {
        Err(vec![value.error(message).with_label(label).with_help(help)])
    };
    if value.value.is_integer() {
        let port = value.integer().and_then(|port| u16::try_from(port).ok());
        return match port.filter(|port| *port != 0) {
            Some(port) => Ok(Ports { first: port, last: port }),
            None => {
                let message = format!("`{key}` is out of range: {}", value.written());
                refuse(message, "must be 1 to 65535", ANY_PORT)
            }
        };
    }
    let Some(written) = value.value.as_str() else {
        return Err(value.wrong_type("a port, a range or \"any\"", SHAPES));
    };
    if written == "any" {
        return Ok(Ports::ANY);
    }
    if let Ok(port) = written.trim().parse::<u16>() {
        let message = format!("`{key}` is a string: `\"{written}\"`");
        return refuse(
            message,
            "a single port is a number",
            &format!("write `{key} = {port}`, without quotes"),
        );
    }
    let range = written.split_once('-').or_else(|| written.split_once(':'));
    let bounds = range.map(|(first, last)| (first.trim().parse(), last.trim().parse()));
    let (first, last): (u16, u16) = match bounds {
        Some((Ok(first), Ok(last))) if written.contains('-') => (first, last),
        Some(_) | None => {
            let message = format!("`{key}` is not a port or a range: `{written}`");
            return refuse(message, "must be within 1-65535", SHAPES);
        }
    };
    if first == 0 {
        let message = format!("`{key}` begins at port 0: `{written}`");
        return refuse(message, "must be within 1-65535", ANY_PORT);
    }
    if first > last {
        let message = format!("`{key}` ends before it begins: `{written}`");
        let help = format!("write `{key} = \"{last}-{first}\"`");
        return refuse(message, "reversed", &help);
    }
    Ok(Ports { first, last })
}

const SHAPES: &str = "write `port = 80`, `port = \"8000-8100\"` or `port = \"any\"`";
const ANY_PORT: &str = "write a port from 1 to 65535, or `port = \"any\"` for every port";
