//! Text that is not TOML: what the TOML parser says, with help for the slips that people make.

use std::ops::Range;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::source::{Source, Span};

/// The mistakes of one file that stand on their own: the first of each line, and none that follows from an
/// earlier one.
pub(crate) fn explain(
    source: &Arc<Source>,
    file: Range<usize>,
    errors: &[toml::de::Error],
) -> Diagnostics {
    let mut errors: Vec<&toml::de::Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    errors.truncate(LOOKED_AT);
    let mut slips: Vec<Slip<'_>> =
        errors.into_iter().map(|error| Slip::new(source, &file, error)).collect();
    slips.dedup_by_key(|slip| slip.span.line());
    if let Some(open) = slips.iter().position(Slip::leaves_list_open) {
        slips.truncate(open + 1);
    }
    slips.dedup_by(|later, earlier| earlier.repeats_section_of(later));
    slips.truncate(REPORTED);
    slips.iter().map(Slip::explain).collect()
}

/// A mistake as the TOML parser reports it.
struct Slip<'a> {
    span: Span,
    what: &'a str,
    expected: &'a str,
    /// The whole line, trimmed.
    line: &'a str,
}

impl<'a> Slip<'a> {
    fn new(source: &'a Arc<Source>, file: &Range<usize>, error: &'a toml::de::Error) -> Self {
        let span = match error.span() {
            Some(span) => Span::new(source, file.start + span.start..file.start + span.end),
            None => Span::whole_file(source),
        };
        let (what, expected) = error
            .message()
            .split_once(", expected ")
            .unwrap_or_else(|| (error.message(), "nothing"));
        let (what, expected) = match what {
            UNQUOTED if span.text().is_empty() => ("a value is missing", "nothing"),
            what => (what, expected),
        };
        let text = source.text.get(file.clone()).unwrap_or_default();
        let line = text.lines().nth(span.line() - 1).unwrap_or_default().trim();
        Self { span, what, expected, line }
    }

    /// Whether all that follows was read as part of a list or table that does not end.
    fn leaves_list_open(&self) -> bool {
        self.what.contains("array") || self.what.contains("inline table")
    }

    /// Whether this is a section's second header and `later` a key below it that the first has.
    fn repeats_section_of(&self, later: &Self) -> bool {
        let duplicate = self.what == DUPLICATE && later.what == DUPLICATE;
        duplicate && self.line.starts_with('[') && !later.line.starts_with('[')
    }

    fn explain(&self) -> Diagnostic {
        let label = match self.expected {
            _ if self.what == DUPLICATE => "already set above".to_owned(),
            "nothing" => String::new(),
            expected => format!("expected {expected}"),
        };
        let error = Diagnostic::error(&self.span, format!("not TOML: {}", self.what));
        error.with_label(label).with_help(self.help())
    }

    fn help(&self) -> String {
        let marked = self.span.text();
        if self.what == DUPLICATE {
            return match self.line.starts_with('[') {
                true => format!("write `{marked}` once; only lists such as `[[service]]` repeat"),
                false => format!("remove one of the two `{marked}`"),
            };
        }
        if self.leaves_list_open() {
            return "separate the items by commas and close the list with `]`".to_owned();
        }
        if self.what == UNQUOTED {
            return format!("put it in quotes: `\"{marked}\"`");
        }
        if self.line.starts_with('#') {
            return "remove the control character from the comment".to_owned();
        }
        match (self.line.split_once('='), self.line.split_once(':')) {
            (Some((key, value)), _) => self.help_with_value(key.trim(), value),
            (None, _) if self.line.ends_with('{') => {
                "write sections as `[name]` or `[[name]]`, without braces".to_owned()
            }
            (None, Some((section, ""))) => format!("write `[{section}]`"),
            (None, Some((key, value))) => format!("write `{key} = {}`", quoted(value.trim())),
            (None, None) => SHAPE.to_owned(),
        }
    }

    fn help_with_value(&self, key: &str, value: &str) -> String {
        let value = value.split('#').next().unwrap_or_default().trim();
        if value.is_empty() {
            format!("write a value after `{key} =`, or remove the line")
        } else if self.what.contains("escape") {
            "write `\\\\` for a backslash, or use single quotes".to_owned()
        } else if self.what.contains("string") {
            "close the string with the quote that opened it".to_owned()
        } else if self.what == "invalid boolean" {
            "write `true` or `false`".to_owned()
        } else if value.contains(char::is_whitespace) || quoted(value) == value {
            SHAPE.to_owned()
        } else {
            format!("put it in quotes: `{key} = \"{value}\"`")
        }
    }
}

/// The value as it must be written: text in quotes.
fn quoted(value: &str) -> String {
    let written = value.starts_with(['"', '\'', '[', '{']);
    if written || value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok() {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    }
}

// Messages of the `toml` crate that get help of their own; each has a snapshot in `tests/bad`.
const DUPLICATE: &str = "duplicate key";
const UNQUOTED: &str = "string values must be quoted";

const SHAPE: &str = "write one `key = value` per line below `[section]` headers, text in quotes";

/// A file of another kind is wrong on every line.
const REPORTED: usize = 10;

/// To know the line of a mistake costs a walk through the text.
const LOOKED_AT: usize = 100;
