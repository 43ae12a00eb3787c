//! Diagnostics as text, in the manner of rustc.

use annotate_snippets::{
    Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet,
    normalize_untrusted_str,
};

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::source::Span;

/// Renders all of them, one blank line between two, at most [`SHOWN`] of them.
pub(crate) fn render(diagnostics: &Diagnostics, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let shown: Vec<String> = diagnostics
        .iter()
        .take(SHOWN)
        .map(|diagnostic| renderer.render(&[group(diagnostic)]) + "\n")
        .collect();
    let mut text = shown.join("\n");
    if let Some(more @ 1..) = diagnostics.len().checked_sub(SHOWN) {
        text.push_str(&format!("\n… and {more} more\n"));
    }
    text
}

fn group(diagnostic: &Diagnostic) -> Group<'_> {
    let level = match diagnostic.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = level.primary_title(diagnostic.message()).elements(sources(diagnostic));
    if let Some(help) = diagnostic.help() {
        group = group.element(Level::HELP.message(normalize_untrusted_str(help)));
    }
    group
}

/// The marked text: one snippet for the spans in the same file, one more for each other.
fn sources(diagnostic: &Diagnostic) -> Vec<Element<'_>> {
    let span = &diagnostic.span;
    let Some(mut snippet) = snippet(span, AnnotationKind::Primary, &diagnostic.label) else {
        let origin = Origin::path(span.file()).line(span.line()).char_column(span.column());
        return vec![origin.into()];
    };
    let mut elsewhere = Vec::new();
    for (also, label) in &diagnostic.also {
        if also.shares_file(span) {
            snippet = snippet.annotations(annotation(also, AnnotationKind::Context, label));
        } else {
            elsewhere.extend(self::snippet(also, AnnotationKind::Context, label));
        }
    }
    std::iter::once(snippet).chain(elsewhere).map(Element::from).collect()
}

fn snippet<'a>(
    span: &'a Span,
    kind: AnnotationKind,
    label: &'a str,
) -> Option<Snippet<'a, Annotation<'a>>> {
    let annotation = annotation(span, kind, label)?;
    let (text, _) = span.in_file();
    Some(Snippet::source(text).path(span.file()).annotation(annotation))
}

fn annotation<'a>(span: &Span, kind: AnnotationKind, label: &'a str) -> Option<Annotation<'a>> {
    span.in_file().1.map(|range| kind.span(range).label((!label.is_empty()).then_some(label)))
}

/// More than an operator reads; each costs time in proportion to the length of the file.
const SHOWN: usize = 100;
