//! One mistake, and the list of all of them.

use std::fmt;

use crate::render;
use crate::source::Span;

/// What a mistake means for the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// Allowed, but probably not meant.
    Warning,
}

/// A mistake: what, where, why and how to fix it.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    pub(crate) span: Span,
    pub(crate) label: String,
    pub(crate) also: Vec<(Span, String)>,
    pub(crate) help: Option<String>,
}

impl Diagnostic {
    /// An error. `message` says what is wrong, lower-case and without a full stop.
    pub fn error(span: &Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message.into())
    }

    /// A warning.
    pub fn warning(span: &Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, span, message.into())
    }

    /// Says in a few words, under the marked text, why it is wrong.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Marks a second span that matters, such as the first use of a name.
    #[must_use]
    pub fn with_place(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.also.push((span.clone(), label.into()));
        self
    }

    /// Says how to fix it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Error or warning.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to fix it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Name of the file.
    pub fn file(&self) -> &str {
        self.span.file()
    }

    /// Line, counted from 1.
    pub fn line(&self) -> usize {
        self.span.line()
    }

    /// Column in characters, counted from 1.
    pub fn column(&self) -> usize {
        self.span.column()
    }

    fn new(severity: Severity, span: &Span, message: String) -> Self {
        let span = span.clone();
        Self { severity, message, span, label: String::new(), also: Vec::new(), help: None }
    }
}

/// Mistakes in the order of the text.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    sorted: Vec<Diagnostic>,
}

impl Diagnostics {
    /// One error about a span that only a look at the machine could find, such as an interface
    /// that does not exist. See [`SpanIndex`](crate::SpanIndex).
    pub fn at(span: &Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::from_iter([Diagnostic::error(span, message).with_help(help)])
    }

    /// How many, warnings included.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.iter().any(|diagnostic| diagnostic.severity() == Severity::Error)
    }

    /// All of them in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.sorted.iter()
    }

    /// For people: each with `file:line:column`, the lines concerned, why, and how to fix it.
    /// `color` adds ANSI colours. Ends with a newline unless there is nothing to show.
    pub fn render(&self, color: bool) -> String {
        render::render(self, color)
    }

    /// `"2 errors, 1 warning"`.
    pub fn summary(&self) -> String {
        let count = |severity, noun: &str| {
            let n = self.iter().filter(|diagnostic| diagnostic.severity() == severity).count();
            (n > 0).then(|| format!("{n} {noun}{}", if n == 1 { "" } else { "s" }))
        };
        let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        if counts.is_empty() { "no mistakes".to_owned() } else { counts.join(", ") }
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        self.sorted.extend(more);
        let order = |one: &Diagnostic| (one.span.start(), one.severity);
        self.sorted.sort_by(|one, other| {
            one.file().cmp(other.file()).then_with(|| order(one).cmp(&order(other)))
        });
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(diagnostics: I) -> Self {
        let mut all = Self::default();
        all.extend(diagnostics);
        all
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.sorted.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// [`Diagnostics::render`] without colours.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
