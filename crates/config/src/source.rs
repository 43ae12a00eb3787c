//! The text of a configuration file and spans in it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A configuration file's name and text.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned() }
    }
}

/// Without the text, which every span would repeat.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.name).finish()
    }
}

/// A stretch of a configuration file, or the file as a whole. Cheap to clone; keeps the text alive.
#[derive(Clone, Debug)]
pub struct Span {
    source: Arc<Source>,
    /// Byte range on character boundaries within the text. `None`: the file as a whole.
    range: Option<Range<usize>>,
}

impl Span {
    /// A stretch of the text. A range that leaves the text or cuts a character is corrected; the
    /// end of the text is shown behind the last thing written.
    pub(crate) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let text = &source.text;
        let boundary = |index: usize| {
            let index = index.min(text.len());
            (0..=index).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
        };
        let start = boundary(span.start);
        let span = if start == text.len() {
            let written = text.trim_end().len();
            written..written
        } else {
            start..boundary(span.end).max(start)
        };
        Self { source: Arc::clone(source), range: Some(span) }
    }

    /// The file as a whole: for what is nowhere in it.
    pub(crate) fn whole_file(source: &Arc<Source>) -> Self {
        Self { source: Arc::clone(source), range: None }
    }

    /// Name of the file, as given to [`parse`](crate::parse).
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// Line, counted from 1.
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// Column in characters, counted from 1.
    pub fn column(&self) -> usize {
        let before = self.before();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        before.get(line_start..).unwrap_or_default().chars().count() + 1
    }

    /// What stands there; empty for the file as a whole.
    pub(crate) fn text(&self) -> &str {
        self.range.clone().and_then(|span| self.source.text.get(span)).unwrap_or_default()
    }

    pub(crate) fn range(&self) -> Option<Range<usize>> {
        self.range.clone()
    }

    pub(crate) fn start(&self) -> usize {
        self.range.as_ref().map_or(0, |span| span.start)
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    fn before(&self) -> &str {
        self.source.text.get(..self.start()).unwrap_or_default()
    }
}

/// A checked value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct WithSpan<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// An optional value as far as it could be read.
#[derive(Clone, Debug)]
pub(crate) enum Written<T> {
    /// The default counts.
    Absent,
    /// Reported; nothing that depends on it can be checked.
    Wrong,
    /// Read.
    Is(WithSpan<T>),
}

impl<T> Written<T> {
    /// The value where it is written and right.
    pub(crate) fn at(&self) -> Option<&WithSpan<T>> {
        match self {
            Self::Is(at) => Some(at),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// Whether it is not written.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value if it is written; `None` if it is wrong.
    pub(crate) fn if_right(&self) -> Option<Option<T>>
    where
        T: Clone,
    {
        match self {
            Self::Absent => Some(None),
            Self::Wrong => None,
            Self::Is(at) => Some(Some(at.value.clone())),
        }
    }

    /// The value that counts, `None` if it is wrong.
    pub(crate) fn or(&self, default: T) -> Option<T>
    where
        T: Clone,
    {
        Some(self.if_right()?.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str, span: Range<usize>) -> Span {
        Span::new(&Arc::new(Source::new("a.toml", text)), span)
    }

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let here = span("a = 1\nµ = 2\n", 9..10);
        assert_eq!((here.line(), here.column(), here.text()), (2, 3, "="));
    }

    #[test]
    fn a_span_outside_the_text_or_inside_a_character_is_corrected() {
        assert_eq!(span("µ", 1..9).range(), Some(0..2));
        assert_eq!(span("", 7..8).range(), Some(0..0));
    }

    #[test]
    fn the_end_of_the_text_is_behind_the_last_thing_written() {
        let end = span("a = [\r\n\n", 8..8);
        assert_eq!((end.line(), end.column()), (1, 6));
    }
}
