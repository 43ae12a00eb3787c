//! One table of the document while it is read: every key is asked for once, and what was not asked
//! for at the end is unknown. So the code that reads a section is the only list of its keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use toml::de::DeTable;

use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span, WithSpan, Written};
use crate::suggest;
use crate::value::{Checked, Value};

/// A table of the document. Mistakes are collected; a reader gets `None` for a value that is wrong.
#[derive(Debug)]
pub(crate) struct Section<'d> {
    source: &'d Arc<Source>,
    table: &'d DeTable<'d>,
    /// As written: `[[service]]`; empty for the top of the file.
    title: String,
    /// Dotted path without brackets; empty for the top of the file.
    path: String,
    header: Span,
    asked: BTreeSet<&'static str>,
    /// Required keys that are absent: not reported where a misspelt one is found in their place.
    missing: Vec<(&'static str, Diagnostic)>,
    found: &'d mut Vec<Diagnostic>,
}

impl<'d> Section<'d> {
    /// Reads the top of the file.
    pub(crate) fn root<T>(
        source: &'d Arc<Source>,
        table: &'d DeTable<'d>,
        found: &'d mut Vec<Diagnostic>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let root = Section {
            source,
            table,
            title: String::new(),
            path: String::new(),
            header: Span::whole_file(source),
            asked: BTreeSet::new(),
            missing: Vec::new(),
            found,
        };
        root.run(read)
    }

    /// Where the section begins: its header.
    pub(crate) fn header(&self) -> &Span {
        &self.header
    }

    /// As written: `[[service]]`.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// Adds a mistake that concerns more than one value.
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Whether the key is written.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key of a table in it stands.
    pub(crate) fn nested(&self, table: &str, key: &str) -> Option<Span> {
        let value = self.table.get(table)?.get_ref().as_table()?.get(key)?;
        Some(Span::new(self.source, value.span()))
    }

    /// An optional key: `None` when it is absent, or wrong and reported.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        reader: impl FnOnce(&Value<'_>) -> Checked<T>,
    ) -> Option<WithSpan<T>> {
        let value = self.take(key)?;
        match reader(&value) {
            Ok(checked) => Some(WithSpan { value: checked, span: value.span }),
            Err(mistakes) => {
                self.found.extend(mistakes);
                None
            }
        }
    }

    /// An optional key that others depend on: tells absent from wrong and reported.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        reader: impl FnOnce(&Value<'_>) -> Checked<T>,
    ) -> Written<T> {
        match (self.has(key), self.read(key, reader)) {
            (false, _) => Written::Absent,
            (true, None) => Written::Wrong,
            (true, Some(at)) => Written::Is(at),
        }
    }

    /// A key with a default: `None` only when it is wrong and reported.
    pub(crate) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        reader: impl FnOnce(&Value<'_>) -> Checked<T>,
    ) -> Option<T> {
        if self.has(key) {
            self.read(key, reader).map(|at| at.value)
        } else {
            self.asked.insert(key);
            Some(default)
        }
    }

    /// A key that must be there; `example` is a line that would be right.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        reader: impl FnOnce(&Value<'_>) -> Checked<T>,
    ) -> Option<WithSpan<T>> {
        if !self.has(key) {
            let message = format!("`{key}` is missing in `{}`", self.title);
            let diagnostic = Diagnostic::error(&self.header, message)
                .with_label(format!("needs `{key}`"))
                .with_help(format!("add `{example}` below `{}`", self.title));
            self.missing.push((key, diagnostic));
        }
        self.read(key, reader)
    }

    /// An optional table `[key]`.
    pub(crate) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let value = self.take(key)?;
        let path = self.path_of(key);
        let title = format!("[{path}]");
        if let Some(table) = value.value.as_table() {
            return Some(self.enter(table, title, path, value.span, read));
        }
        let Some(first) = value.tables().next() else {
            self.found.extend(value.wrong_type("a table", &format!("write it as `{title}`")));
            return None;
        };
        let help = format!("write `{title}` instead of `[{title}]`");
        let error = value.error(format!("there is only one `{title}`")).with_label("a list");
        self.report(error.with_help(help));
        let span = Span::new(self.source, first.span());
        Some(self.enter(first.get_ref().as_table()?, title, path, span, read))
    }

    /// An optional table whose keys all have defaults, so that `key = true` can stand for it.
    pub(crate) fn table_or_true<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.table.get(key).map(|value| Value::new(self.source, key, value));
        let Some(value) = value.filter(|value| value.value.as_bool() == Some(true)) else {
            return self.table(key, read).flatten();
        };
        self.asked.insert(key);
        let path = self.path_of(key);
        self.enter(&DeTable::new(), format!("[{path}]"), path, value.span, read)
    }

    /// A table whose keys all have defaults: absent, it is read as an empty one.
    pub(crate) fn settings<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.has(key) {
            return self.table(key, read).flatten();
        }
        self.asked.insert(key);
        let path = self.path_of(key);
        let header = self.header.clone();
        self.enter(&DeTable::new(), format!("[{path}]"), path, header, read)
    }

    /// A list of tables `[[key]]`, empty when the key is absent. `None`: it holds something else,
    /// which was reported.
    pub(crate) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Option<Vec<T>> {
        let Some(value) = self.take(key) else {
            return Some(Vec::new());
        };
        let path = self.path_of(key);
        let title = format!("[[{path}]]");
        let help = format!("write it as `{title}`");
        if let Some(table) = value.value.as_table() {
            let error = value.error(format!("`[{path}]` must be written `{title}`"));
            let help = format!("double the brackets: there may be several `{title}`");
            self.report(error.with_label("a single table").with_help(help));
            return Some(vec![self.enter(table, title, path, value.span, read)]);
        }
        let Some(array) = value.value.as_array() else {
            self.found.extend(value.wrong_type("a list of tables", &help));
            return None;
        };
        let mut list = Vec::with_capacity(array.len());
        for item in array.iter() {
            let item = Value::new(self.source, key, item);
            match item.value.as_table() {
                Some(table) => {
                    let (title, path) = (title.clone(), path.clone());
                    list.push(self.enter(table, title, path, item.span, &mut read));
                }
                None => self.found.extend(item.wrong_type("a table", &help)),
            }
        }
        (array.is_empty() || !list.is_empty()).then_some(list)
    }

    /// Reports that a list of tables that must not be empty is.
    pub(crate) fn missing_table(&mut self, key: &'static str, diagnostic: Diagnostic) {
        self.missing.push((key, diagnostic));
    }

    fn take(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.asked.insert(key);
        self.table.get(key).map(|value| Value::new(self.source, key, value))
    }

    fn enter<T>(
        &mut self,
        table: &DeTable<'_>,
        title: String,
        path: String,
        header: Span,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let section = Section {
            source: self.source,
            table,
            title,
            path,
            header,
            asked: BTreeSet::new(),
            missing: Vec::new(),
            found: &mut *self.found,
        };
        section.run(read)
    }

    fn run<T>(mut self, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let result = read(&mut self);
        self.finish();
        result
    }

    /// Reports what was not asked for, then what is missing unless a misspelling explains it.
    fn finish(mut self) {
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if self.asked.contains(name) {
                continue;
            }
            let span = Span::new(self.source, key.span());
            let absent = self.asked.iter().copied().filter(|known| !self.has(known));
            let meant = suggest::closest(name, absent);
            self.missing.retain(|(key, _)| Some(*key) != meant);
            let value = Value::new(self.source, name, value);
            let diagnostic = self.unknown(&span, &value, meant);
            self.found.push(diagnostic);
        }
        self.found.extend(self.missing.into_iter().map(|(_, diagnostic)| diagnostic));
    }

    fn unknown(&self, span: &Span, value: &Value<'_>, meant: Option<&str>) -> Diagnostic {
        let what =
            if value.value.is_table() || value.tables().next().is_some() { "table" } else { "key" };
        let at = if self.title.is_empty() {
            "at the top of the file".to_owned()
        } else {
            format!("in `{}`", self.title)
        };
        let diagnostic = Diagnostic::error(span, format!("unknown {what} `{}` {at}", value.key));
        let nested = NESTED.iter().filter(|(key, _)| self.title.is_empty() && *key == value.key);
        let nested: Vec<String> = nested.map(|(_, path)| format!("`{path}`")).collect();
        let label = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if nested.is_empty() => format!("not a {what} that exists here"),
            None => format!("did you mean {}?", nested.join(" or ")),
        };
        let known = suggest::list(self.asked.iter().copied());
        diagnostic.with_label(label).with_help(format!("known {at}: {known}"))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// Tables that belong inside another one and are easily written without it.
const NESTED: [(&str, &str); 9] = [
    ("backend", "[[service.backend]]"),
    ("persistence", "[service.persistence]"),
    ("health", "[[service.health]]"),
    ("fallback", "[service.fallback]"),
    ("timeouts", "[dataplane.timeouts]"),
    ("announce", "[vrrp.announce]"),
    ("track", "[[vrrp.track]]"),
    ("notify", "[vrrp.notify]"),
    ("notify", "[service.notify]"),
];
