//! The texts of the configuration's files and spans in them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The files of a configuration, one after the other: a place is an offset in all of them.
pub(crate) struct Source {
    /// Never empty.
    files: Vec<Part>,
    pub(crate) text: String,
}

/// One file: its name, and its part of the text.
struct Part {
    name: String,
    range: Range<usize>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self::of([(name, text)])
    }

    /// Of several files, the main one first.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut parts, mut whole) = (Vec::new(), String::new());
        for (name, text) in files {
            if !parts.is_empty() {
                // So that the end of one file is not the beginning of the next.
                whole.push('\n');
            }
            let start = whole.len();
            whole.push_str(text);
            parts.push(Part { name: name.to_owned(), range: start..whole.len() });
        }
        Self { files: parts, text: whole }
    }

    /// Where each file's text is.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.files.iter().map(|part| part.range.clone())
    }

    /// The file that an offset is in.
    fn part(&self, at: usize) -> (&str, Range<usize>) {
        let later = self.files.iter().rev().find(|part| part.range.start <= at);
        later.map_or(("", 0..0), |part| (&part.name, part.range.clone()))
    }
}

/// Without the text, which every span would repeat.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.files.iter().map(|part| &part.name);
        f.debug_list().entries(names).finish()
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
    /// A stretch of one file's text. A range that leaves the text or cuts a character is corrected; the
    /// end of the text is shown behind the last thing written.
    pub(crate) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let text = &source.text;
        let (_, file) = source.part(span.start);
        let boundary = |index: usize| {
            let index = index.min(file.end);
            (0..=index).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
        };
        let start = boundary(span.start);
        let span = if start == file.end {
            let written = text.get(file.clone()).unwrap_or_default().trim_end().len();
            let end = file.start + written;
            end..end
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
        self.source.part(self.start()).0
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

    pub(crate) fn start(&self) -> usize {
        self.range.as_ref().map_or(0, |span| span.start)
    }

    /// The text of its file, and where the span is in that; `None`: it is the file as a whole.
    pub(crate) fn in_file(&self) -> (&str, Option<Range<usize>>) {
        let (_, file) = self.source.part(self.start());
        let range = self.range.as_ref().map(|span| span.start - file.start..span.end - file.start);
        (self.source.text.get(file).unwrap_or_default(), range)
    }

    /// Whether both are in one file.
    pub(crate) fn shares_file(&self, other: &Self) -> bool {
        let of = |span: &Self| span.source.part(span.start()).1;
        Arc::ptr_eq(&self.source, &other.source) && of(self) == of(other)
    }

    fn before(&self) -> &str {
        let (_, file) = self.source.part(self.start());
        self.source.text.get(file.start..self.start()).unwrap_or_default()
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
        assert_eq!(span("µ", 1..9).range, Some(0..2));
        assert_eq!(span("", 7..8).range, Some(0..0));
    }

    #[test]
    fn each_file_counts_its_own_lines() {
        let source = Arc::new(Source::of([("a.toml", "a = 1\n"), ("b.toml", "b = 2\nc = 3\n")]));
        let at = |start, end| Span::new(&source, start..end);
        let (end, second, last) = (at(6, 6), at(7, 8), at(13, 14));
        assert_eq!((end.file(), end.line(), end.column()), ("a.toml", 1, 6));
        assert_eq!((second.file(), second.line(), second.text()), ("b.toml", 1, "b"));
        assert_eq!((last.file(), last.line(), last.text()), ("b.toml", 2, "c"));
        assert!(second.shares_file(&last) && !second.shares_file(&end));
        assert_eq!(last.in_file(), ("b = 2\nc = 3\n", Some(6..7)));
    }

    #[test]
    fn the_end_of_the_text_is_behind_the_last_thing_written() {
        let end = span("a = [\r\n\n", 8..8);
        assert_eq!((end.line(), end.column()), (1, 6));
    }
}
