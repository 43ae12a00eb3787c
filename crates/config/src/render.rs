//! Diagnostics as text, in the manner of rustc.

use std::sync::Arc;

use annotate_snippets::{
    Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet,
    normalize_untrusted_str,
};

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::source::Place;

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

/// The marked text: one snippet for the places in the same file, one more for each other.
fn sources(diagnostic: &Diagnostic) -> Vec<Element<'_>> {
    let place = &diagnostic.place;
    let Some(mut snippet) = snippet(place, AnnotationKind::Primary, &diagnostic.label) else {
        let origin = Origin::path(place.file()).line(place.line()).char_column(place.column());
        return vec![origin.into()];
    };
    let mut elsewhere = Vec::new();
    for (also, label) in &diagnostic.also {
        if Arc::ptr_eq(also.source(), place.source()) {
            snippet = snippet.annotations(annotation(also, AnnotationKind::Context, label));
        } else {
            elsewhere.extend(self::snippet(also, AnnotationKind::Context, label));
        }
    }
    std::iter::once(snippet).chain(elsewhere).map(Element::from).collect()
}

fn snippet<'a>(
    place: &'a Place,
    kind: AnnotationKind,
    label: &'a str,
) -> Option<Snippet<'a, Annotation<'a>>> {
    let annotation = annotation(place, kind, label)?;
    Some(Snippet::source(&place.source().text).path(place.file()).annotation(annotation))
}

fn annotation<'a>(place: &Place, kind: AnnotationKind, label: &'a str) -> Option<Annotation<'a>> {
    place.span().map(|span| kind.span(span).label((!label.is_empty()).then_some(label)))
}

/// More than an operator reads; each costs time in proportion to the length of the file.
const SHOWN: usize = 100;
