//! Several files as one document: included ones, and what one node has in place of it.
//!
//! All texts stand in one [`Source`], so that a span knows its file. A list such as `[[service]]` goes
//! on in each file; every other key is written once. `[node.NAME]` replaces values for the node of that
//! name: `[node.lb2.vrrp.VI_1]` those of the `[[vrrp]]` called `VI_1`.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::source::{Source, Span};
use crate::suggest;
use crate::syntax;

/// A file of the configuration, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Shown in messages.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A pattern of `include`, and where it stands.
#[derive(Clone, Debug)]
pub struct Include {
    /// Such as `conf.d/*.toml`, relative to the directory of the file.
    pub pattern: String,
    /// Where it stands.
    pub span: Span,
}

/// What the main file includes. The mistakes of a text that is not TOML are found by
/// [`parse_files`](crate::parse_files), and are none here.
///
/// # Errors
/// `include` is no list of texts.
pub fn includes(file: &File) -> Result<Vec<Include>, Diagnostics> {
    let source = Arc::new(Source::new(&file.name, &file.text));
    let (document, _) = DeTable::parse_recoverable(&file.text);
    let Some(value) = document.get_ref().get(INCLUDE) else { return Ok(Vec::new()) };
    let texts = value.get_ref().as_array().and_then(|list| {
        let texts = list.iter().map(|item| {
            let span = Span::new(&source, item.span());
            Some(Include { pattern: item.get_ref().as_str()?.to_owned(), span })
        });
        texts.collect::<Option<Vec<_>>>()
    });
    texts.ok_or_else(|| {
        let span = Span::new(&source, value.span());
        let help = "write `include = [\"conf.d/*.toml\"]`, relative to this file";
        Diagnostics::at(&span, "`include` must be a list of file names", help)
    })
}

/// The names of the nodes that have a section of their own, in the order of the alphabet.
pub fn nodes(files: &[File]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for file in files {
        let (document, _) = DeTable::parse_recoverable(&file.text);
        let own = document.get_ref().get(NODE).and_then(|node| node.get_ref().as_table());
        let tables = own.into_iter().flatten().filter(|(_, value)| value.get_ref().is_table());
        names.extend(tables.map(|(name, _)| name.get_ref().to_string()));
    }
    names.sort();
    names.dedup();
    names
}

/// Everything as one table, for one node.
pub(crate) fn merged<'t>(
    source: &'t Arc<Source>,
    node: Option<&str>,
) -> Result<DeTable<'t>, Diagnostics> {
    let mut whole = DeTable::new();
    let mut mistakes = Vec::new();
    for (number, range) in source.ranges().enumerate() {
        let text = source.text.get(range.clone()).unwrap_or_default();
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(syntax::explain(source, range, &errors));
        }
        let table = shift_table(document.into_inner(), range.start);
        add(&mut whole, table, source, number == 0, &mut mistakes);
    }
    override_for(&mut whole, node, source, &mut mistakes);
    if mistakes.is_empty() { Ok(whole) } else { Err(Diagnostics::from_iter(mistakes)) }
}

/// Adds one file to those before it.
fn add<'t>(
    whole: &mut DeTable<'t>,
    file: DeTable<'t>,
    source: &Arc<Source>,
    main: bool,
    mistakes: &mut Vec<Diagnostic>,
) {
    for (key, value) in file {
        if key.get_ref() == INCLUDE {
            if !main {
                let error = "an included file includes no others";
                let help = "list the file in `include` of the main file";
                let place = Span::new(source, key.span());
                mistakes.push(Diagnostic::error(&place, error).with_help(help));
            }
            continue;
        }
        let is_node = key.get_ref() == NODE;
        let Some(before) = whole.get_mut(&key) else {
            whole.insert(key, value);
            continue;
        };
        match (before.get_mut(), value.into_inner()) {
            (DeValue::Array(list), DeValue::Array(more)) => {
                for item in more {
                    list.push(item);
                }
            }
            (DeValue::Table(table), DeValue::Table(more)) if is_node => {
                go_on(table, more, source, mistakes);
            }
            _ => {
                let first = whole.get_key_value(&key).map(|(first, _)| first.span());
                mistakes.push(twice(source, &key, first.unwrap_or_default()));
            }
        }
    }
}

/// Tables go on in another file, values do not.
fn go_on<'t>(
    table: &mut DeTable<'t>,
    more: DeTable<'t>,
    source: &Arc<Source>,
    mistakes: &mut Vec<Diagnostic>,
) {
    for (key, value) in more {
        let first = table.get_key_value(&key).map(|(first, _)| first.span());
        let span = value.span();
        match (table.get_mut(&key).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(table)), DeValue::Table(more)) => {
                go_on(table, more, source, mistakes);
            }
            (Some(_), _) => mistakes.push(twice(source, &key, first.unwrap_or_default())),
            (None, value) => drop(table.insert(key, Spanned::new(span, value))),
        }
    }
}

fn twice(source: &Arc<Source>, key: &Spanned<DeString<'_>>, first: Range<usize>) -> Diagnostic {
    let name = key.get_ref();
    Diagnostic::error(&Span::new(source, key.span()), format!("`{name}` is set in two files"))
        .with_label("again")
        .with_place(&Span::new(source, first), "first here")
        .with_help(
            "write it in one of them; only lists such as `[[service]]` go on in another file",
        )
}

/// Replaces what `[node.NAME]` says of this node, and takes all such sections out.
fn override_for<'t>(
    whole: &mut DeTable<'t>,
    node: Option<&str>,
    source: &Arc<Source>,
    mistakes: &mut Vec<Diagnostic>,
) {
    let Some(DeValue::Table(table)) = whole.get_mut(NODE).map(Spanned::get_mut) else { return };
    let mut sections = Vec::new();
    for (key, value) in std::mem::take(table) {
        if value.get_ref().is_table() {
            sections.push((key, value));
        } else {
            table.insert(key, value);
        }
    }
    let Some((first, _)) = sections.first() else { return };
    let place = Span::new(source, first.span());
    let names: Vec<String> = sections.iter().map(|(key, _)| key.get_ref().to_string()).collect();
    let own = sections.into_iter().find(|(key, _)| Some(&**key.get_ref()) == node);
    let Some((name, own)) = own else {
        mistakes.push(unknown_node(&place, node, &names));
        return;
    };
    let name_is_set = table.contains_key(NAME);
    let span = name.span();
    if !name_is_set {
        let value = DeValue::String(name.get_ref().clone());
        table.insert(Spanned::new(span.clone(), NAME.into()), Spanned::new(span, value));
    }
    let DeValue::Table(own) = own.into_inner() else { return };
    for (section, values) in own {
        replace(whole, section, values, source, mistakes);
    }
}

fn unknown_node(place: &Span, node: Option<&str>, names: &[String]) -> Diagnostic {
    let message = match node {
        Some(node) => format!("this node is `{node}`, for which there is no `[node.{node}]`"),
        None => "which node this is was not said".to_owned(),
    };
    let help = format!(
        "add its section, or say which node this is: --node NAME; there are {}",
        names.join(", ")
    );
    Diagnostic::error(place, message).with_label("other nodes have sections").with_help(help)
}

/// One section of `[node.NAME]` over the common one.
fn replace<'t>(
    whole: &mut DeTable<'t>,
    section: Spanned<DeString<'t>>,
    values: Spanned<DeValue<'t>>,
    source: &Arc<Source>,
    mistakes: &mut Vec<Diagnostic>,
) {
    let span = Span::new(source, section.span());
    let name = section.get_ref().to_string();
    let is_list = LISTS.contains(&name.as_str());
    let mut wrong = |place: &Span, message: String, help: String| {
        mistakes.push(Diagnostic::error(place, message).with_help(help));
    };
    if !is_list && !TABLES.contains(&name.as_str()) {
        let known = [LISTS, TABLES].concat();
        let meant = suggest::closest(&name, known.iter().copied());
        let help = meant.map_or_else(
            || format!("there may be {}", known.join(", ")),
            |meant| format!("did you mean `{meant}`?"),
        );
        return wrong(&span, format!("`{name}` cannot differ between nodes"), help);
    }
    let DeValue::Table(values) = values.into_inner() else {
        let help = format!("write `[node.NAME.{name}]` and the keys below it");
        return wrong(&span, format!("`{name}` of a node must be a table"), help);
    };
    if !is_list {
        let empty = Spanned::new(section.span(), DeValue::Table(DeTable::new()));
        if !whole.contains_key(&section) {
            whole.insert(section.clone(), empty);
        }
        if let Some(DeValue::Table(common)) = whole.get_mut(&section).map(Spanned::get_mut) {
            overlay(common, values);
        }
        return;
    }
    for (item, values) in values {
        let place = Span::new(source, item.span());
        let list = whole.get_mut(&section).map(Spanned::get_mut);
        let list =
            list.and_then(|list| if let DeValue::Array(list) = list { Some(list) } else { None });
        let found = list.into_iter().flat_map(|list| list.iter_mut()).find_map(|entry| {
            let DeValue::Table(entry) = entry.get_mut() else { return None };
            let called = entry.get(NAME).and_then(|name| name.get_ref().as_str());
            (called == Some(item.get_ref())).then_some(entry)
        });
        let name = section.get_ref();
        match (found, values.into_inner()) {
            (Some(common), DeValue::Table(values)) => overlay(common, values),
            (None, _) => wrong(
                &place,
                format!("there is no `[[{name}]]` called `{}`", item.get_ref()),
                format!("name one as its `[[{name}]]` does, before `name` is replaced here"),
            ),
            (Some(_), _) => wrong(
                &place,
                format!("`{}` must be a table", item.get_ref()),
                format!("write `[node.NAME.{name}.{}]` and the keys below it", item.get_ref()),
            ),
        }
    }
}

fn overlay<'t>(common: &mut DeTable<'t>, values: DeTable<'t>) {
    for (key, value) in values {
        // The key's span is that of the value, too.
        common.remove(&key);
        common.insert(key, value);
    }
}

/// A table whose text begins at `by`.
fn shift_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let shifted = table.into_iter().map(|(key, value)| {
        let span = shift(key.span(), by);
        (Spanned::new(span, key.into_inner()), shift_value(value, by))
    });
    shifted.collect()
}

fn shift_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = shift(value.span(), by);
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift_table(table, by)),
        DeValue::Array(list) => {
            DeValue::Array(list.into_iter().map(|item| shift_value(item, by)).collect())
        }
        plain @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)) => plain,
    };
    Spanned::new(span, value)
}

fn shift(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

const INCLUDE: &str = "include";
const NODE: &str = "node";
const NAME: &str = "name";
/// Lists whose items a node may change, by their names.
const LISTS: [&str; 3] = ["interface", "vrrp", "service"];
/// Sections that a node may change.
const TABLES: [&str; 3] = ["dataplane", "metrics", "control"];
