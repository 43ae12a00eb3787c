//! Readers of single values. Each takes what stands after `key =` and gives the checked value or
//! says what is wrong with it.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span, WithSpan};
use crate::suggest;

/// What a reader gives: the value or its mistakes.
pub(crate) type Checked<T> = Result<T, Vec<Diagnostic>>;

/// A value of the document, its key and its span.
#[derive(Debug)]
pub(crate) struct Value<'d> {
    pub(crate) key: &'d str,
    pub(crate) value: &'d DeValue<'d>,
    pub(crate) span: Span,
    source: &'d Arc<Source>,
}

impl<'d> Value<'d> {
    pub(crate) fn new(
        source: &'d Arc<Source>,
        key: &'d str,
        value: &'d Spanned<DeValue<'d>>,
    ) -> Self {
        Self { key, value: value.get_ref(), span: Span::new(source, value.span()), source }
    }

    /// An error about this value.
    pub(crate) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.span, message)
    }

    /// The error for a value of another type; `expected` with its article.
    pub(crate) fn wrong_type(&self, expected: &str, help: &str) -> Vec<Diagnostic> {
        let message = format!("`{}` must be {expected}, not {}", self.key, type_name(self.value));
        vec![self.error(message).with_label(format!("expected {expected}")).with_help(help)]
    }

    /// A string; `expected` says with its article what else it could be.
    pub(crate) fn str(&self, expected: &str, example: &str) -> Checked<&'d str> {
        let scalar = !matches!(self.value, DeValue::Array(_) | DeValue::Table(_));
        self.value.as_str().ok_or_else(|| {
            let help = if scalar && expected == "a string" {
                format!("put it in quotes: `{} = \"{}\"`", self.key, self.span.text())
            } else {
                format!("write for example `{} = {example}`", self.key)
            };
            self.wrong_type(expected, &help)
        })
    }

    /// The tables in it, if it is a list.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &'d Spanned<DeValue<'d>>> {
        let list = self.value.as_array().into_iter().flat_map(|list| list.iter());
        list.filter(|item| item.get_ref().is_table())
    }

    /// The keys of a table and their values, in the order of the text.
    pub(crate) fn entries(&self) -> Vec<(Span, Self)> {
        let table = self.value.as_table().into_iter().flatten();
        let entry = |(key, value): (&'d Spanned<DeString<'d>>, &'d Spanned<DeValue<'d>>)| {
            let span = Span::new(self.source, key.span());
            (span, Value::new(self.source, key.get_ref(), value))
        };
        let mut entries: Vec<_> = table.map(entry).collect();
        entries.sort_by_key(|(span, _)| span.start());
        entries
    }

    /// The integer, if it is one that fits 64 bits.
    pub(crate) fn integer(&self) -> Option<i64> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// What is written, for messages.
    pub(crate) fn written(&self) -> &str {
        self.span.text()
    }
}

/// An integer within `range`.
pub(crate) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&Value<'_>) -> Checked<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |value| {
        let (key, low, high) = (value.key, range.start(), range.end());
        if !value.value.is_integer() {
            let help = match value.value.as_str().and_then(|quoted| quoted.parse::<i64>().ok()) {
                Some(number) => format!("write `{number}`, without quotes"),
                None => format!("write a whole number from {low} to {high}"),
            };
            return Err(value.wrong_type("an integer", &help));
        }
        let number = value.integer().and_then(|number| T::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let message = format!("`{key}` is out of range: {}", value.written());
            let error = value.error(message).with_label(format!("must be {low} to {high}"));
            vec![error.with_help(format!("write a number from {low} to {high}"))]
        })
    }
}

/// `true` or `false`.
pub(crate) fn boolean(value: &Value<'_>) -> Checked<bool> {
    value.value.as_bool().ok_or_else(|| {
        let help = "write `true` or `false`, without quotes";
        value.wrong_type("a boolean", help)
    })
}

/// One word out of a list. Several words may mean the same.
pub(crate) fn choice<T: Copy>(words: &'static [(&str, T)]) -> impl Fn(&Value<'_>) -> Checked<T> {
    move |value| {
        let names = || words.iter().map(|(name, _)| *name);
        let known = suggest::list(names());
        let help = format!("one of {known}");
        let Some(typed) = value.value.as_str() else {
            return Err(value.wrong_type("a string", &format!("{help}, in quotes")));
        };
        let found = words.iter().find(|(name, _)| *name == typed);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let label = match suggest::closest(typed, names()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "not known".to_owned(),
            };
            let error = value.error(format!("unknown value `{typed}` for `{}`", value.key));
            vec![error.with_label(label).with_help(help)]
        })
    }
}

/// A name that people and metrics use: 1–63 bytes, no control characters.
pub(crate) fn name(value: &Value<'_>) -> Checked<String> {
    let name = value.str("a string", "\"web\"")?;
    let refuse = |message: &str, label: String| {
        let help = "write a short name such as `web`: it is shown in logs and metrics";
        Err(vec![value.error(message).with_label(label).with_help(help)])
    };
    if name.trim().is_empty() {
        return refuse("a name must not be empty", "empty".to_owned());
    }
    if let Some(control) = name.chars().find(|c| c.is_control()) {
        let label = format!("contains `{}`", control.escape_unicode());
        return refuse("a name must not contain control characters", label);
    }
    if name.len() > NAME_MAX {
        let label = format!("{} bytes", name.len());
        return refuse(&format!("a name must not be longer than {NAME_MAX} bytes"), label);
    }
    Ok(name.to_owned())
}

/// `word` for all of them (`None`), or a list of different numbers up to `max`, not empty.
pub(crate) fn numbers_or(
    word: &'static str,
    max: u32,
) -> impl Fn(&Value<'_>) -> Checked<Option<Vec<u32>>> {
    move |value| {
        let key = value.key;
        let help = format!("write `{key} = \"{word}\"` or a list such as `{key} = [0, 1]`");
        if let Some(typed) = value.value.as_str() {
            if typed == word {
                return Ok(None);
            }
            let error = value.error(format!("unknown value `{typed}` for `{key}`"));
            return Err(vec![error.with_label("not known").with_help(help)]);
        }
        let Some(list) = value.value.as_array() else {
            return Err(value.wrong_type(&format!("a list or \"{word}\""), &help));
        };
        if list.is_empty() {
            let error = value.error(format!("`{key}` is an empty list"));
            return Err(vec![error.with_label("nothing would be served").with_help(help)]);
        }
        let mut mistakes = Vec::new();
        let mut numbers = Vec::with_capacity(list.len());
        for item in list.iter() {
            let item = Value::new(value.source, key, item);
            match number(0..=max)(&item) {
                Ok(checked) => numbers.push(WithSpan { value: checked, span: item.span }),
                Err(more) => mistakes.extend(more),
            }
        }
        mistakes.extend(repeated(&format!("number in `{key}`"), &numbers));
        if mistakes.is_empty() {
            Ok(Some(numbers.into_iter().map(|number| number.value).collect()))
        } else {
            Err(mistakes)
        }
    }
}

/// A list whose items `reader` takes; `example` is one that would be right.
pub(crate) fn list<T>(
    example: &'static str,
    reader: impl Fn(&Value<'_>) -> Checked<T>,
) -> impl Fn(&Value<'_>) -> Checked<Vec<WithSpan<T>>> {
    move |value| {
        let Some(list) = value.value.as_array() else {
            let help = format!("write for example `{} = {example}`", value.key);
            return Err(value.wrong_type("a list", &help));
        };
        let mut mistakes = Vec::new();
        let mut items = Vec::with_capacity(list.len());
        for item in list.iter() {
            let item = Value::new(value.source, value.key, item);
            match reader(&item) {
                Ok(checked) => items.push(WithSpan { value: checked, span: item.span }),
                Err(more) => mistakes.extend(more),
            }
        }
        if mistakes.is_empty() { Ok(items) } else { Err(mistakes) }
    }
}

/// A program and its arguments: a list of strings, the first an absolute path.
pub(crate) fn argv(value: &Value<'_>) -> Checked<Vec<String>> {
    const EXAMPLE: &str = "[\"/usr/local/bin/check\", \"--quick\"]";
    let words =
        list(EXAMPLE, |item| item.str("a string", "\"--quick\"").map(str::to_owned))(value)?;
    let refuse = |message: String, label: &str| {
        let help = format!("write for example `{} = {EXAMPLE}`", value.key);
        Err(vec![value.error(message).with_label(label).with_help(help)])
    };
    if let Some(word) = words.iter().find(|word| word.value.contains('\0')) {
        return refuse(
            format!("a zero byte in `{}`", word.value.escape_debug()),
            "not an argument",
        );
    }
    match words.first() {
        None => refuse(format!("`{}` is an empty list", value.key), "no program"),
        Some(program) if !program.value.starts_with('/') => {
            let message = format!("`{}` is not an absolute path", program.value);
            refuse(message, "no search path and no shell")
        }
        Some(_) => Ok(words.into_iter().map(|word| word.value).collect()),
    }
}

/// An absolute path; `example` is one that would be right.
pub(crate) fn absolute_path(example: &'static str) -> impl Fn(&Value<'_>) -> Checked<PathBuf> {
    move |value| {
        let written = value.str("a string", &format!("\"{example}\""))?;
        if written.starts_with('/') && !written.contains('\0') {
            return Ok(PathBuf::from(written));
        }
        let error = value.error(format!("`{}` is not an absolute path: `{written}`", value.key));
        let error = error.with_label("must begin with `/`");
        Err(vec![error.with_help(format!("write `{} = \"{example}\"`", value.key))])
    }
}

/// One error for each value that was there before.
pub(crate) fn repeated<'a, T: Ord + Display + 'a>(
    what: &str,
    values: impl IntoIterator<Item = &'a WithSpan<T>>,
) -> Vec<Diagnostic> {
    let mut first = std::collections::BTreeMap::new();
    let mut mistakes = Vec::new();
    for at in values {
        let Some(earlier) = first.insert(&at.value, &at.span) else {
            continue;
        };
        first.insert(&at.value, earlier);
        let message = format!("the same {what} twice: `{}`", at.value);
        let error = Diagnostic::error(&at.span, message).with_label("used again here");
        let error = error.with_place(earlier, "first used here");
        mistakes.push(error.with_help(format!("each {what} must be different")));
    }
    mistakes
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

const NAME_MAX: usize = 63;
