//! Where in the text each setting stands, for checks that need the machine.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::files;
use crate::source::{Source, Span};

/// Finds settings in the text of a configuration that was read without errors.
///
/// What is not written there (a default) gives the header of the section it would stand in, and
/// failing that the file as a whole: so every question has an answer that can be shown.
///
/// The text is parsed again at the first question, and not before: most files are never asked about.
#[derive(Clone, Debug)]
pub struct SpanIndex {
    source: Arc<Source>,
    node: Option<String>,
    root: OnceLock<Arc<Setting>>,
}

/// A value of the file: where it stands, and what is in it.
#[derive(Debug, Default)]
struct Setting {
    span: Range<usize>,
    /// What it says, of a string.
    text: Option<String>,
    /// `None` unless it is a table.
    table: Option<BTreeMap<String, Self>>,
    list: Vec<Self>,
}

impl SpanIndex {
    pub(crate) fn new(source: Arc<Source>, node: Option<&str>) -> Self {
        Self { source, node: node.map(str::to_owned), root: OnceLock::new() }
    }

    /// The file as a whole.
    pub fn file(&self) -> Span {
        Span::whole_file(&self.source)
    }

    /// `name` of `[node]`.
    pub fn node_name(&self) -> Span {
        self.find(&[Step::Table("node")], "name")
    }

    /// The name of an `[[interface]]`.
    pub fn interface(&self, name: &str) -> Span {
        self.interface_setting(name, "name")
    }

    /// A setting of an `[[interface]]`, such as `queues`.
    pub fn interface_setting(&self, name: &str, key: &str) -> Span {
        self.find(&[Step::Named("interface", name)], key)
    }

    /// A setting of `[dataplane]`, such as `cpus`.
    pub fn dataplane(&self, key: &str) -> Span {
        self.find(&[Step::Table("dataplane")], key)
    }

    /// `listen` of `[metrics]`.
    pub fn metrics_listen(&self) -> Span {
        self.find(&[Step::Table("metrics")], "listen")
    }

    /// `socket` of `[control]`.
    pub fn control_socket(&self) -> Span {
        self.find(&[Step::Table("control")], "socket")
    }

    /// The name of a `[[service]]`.
    pub fn service(&self, name: &str) -> Span {
        self.find(&[Step::Named("service", name)], "name")
    }

    /// The VIP of a `[[service]]`.
    pub fn service_vip(&self, service: &str) -> Span {
        self.find(&[Step::Named("service", service)], "vip")
    }

    /// A setting of a `[[vrrp]]`, such as `interface`.
    pub fn vrrp_setting(&self, name: &str, key: &str) -> Span {
        self.find(&[Step::Named("vrrp", name)], key)
    }

    /// The address of a `[[service.backend]]`, or of the `[service.fallback]`, that has this name.
    pub fn backend_address(&self, service: &str, backend: &str) -> Span {
        self.find(&[Step::Named("service", service), Step::Host(backend)], "address")
    }

    /// `https` of a check of a service, by the check's number from 0: of its `[[service.health]]`, or
    /// beyond these of the `[[check]]` that it names.
    pub fn health_check(&self, service: &str, index: usize) -> Span {
        let step = Step::Named("service", service);
        let found = self.root().step(&step);
        let get = |key| found.and_then(|service| service.get(key));
        let own = get("health").map_or(0, |health| health.list.len());
        let Some(index) = index.checked_sub(own) else {
            return self.find(&[step, Step::Nth("health", index)], "https");
        };
        match get("check").and_then(|check| check.item(index)?.text.as_deref()) {
            Some(name) => self.find(&[Step::Named("check", name)], "https"),
            None => self.find(&[step], "check"),
        }
    }

    fn root(&self) -> &Setting {
        self.root.get_or_init(|| Arc::new(Setting::root(&self.source, self.node.as_deref())))
    }

    /// Follows `steps` as far as they lead, then looks for `key`.
    fn find(&self, steps: &[Step<'_>], key: &str) -> Span {
        let mut here = self.root();
        let mut span = None;
        for step in steps {
            match here.step(step).filter(|next| next.table.is_some()) {
                Some(next) => (here, span) = (next, Some(&next.span)),
                None => return self.span(span.cloned()),
            }
        }
        self.span(here.get(key).map(|value| &value.span).or(span).cloned())
    }

    fn span(&self, span: Option<Range<usize>>) -> Span {
        match span {
            Some(span) => Span::new(&self.source, span),
            None => self.file(),
        }
    }
}

/// One step down the tables of the file.
enum Step<'a> {
    /// `[name]`.
    Table(&'a str),
    /// The item of `[[list]]` whose `name` is this one.
    Named(&'a str, &'a str),
    /// The item of `[[list]]` with this number, from 0.
    Nth(&'a str, usize),
    /// The `[[backend]]` or the `[fallback]` whose `name` is this one.
    Host(&'a str),
}

impl Setting {
    fn root(source: &Arc<Source>, node: Option<&str>) -> Self {
        // It was read without errors before.
        let document = files::merged(source, node).unwrap_or_default();
        Self { table: Some(Self::table(&document)), ..Self::default() }
    }

    fn new(value: &Spanned<DeValue<'_>>) -> Self {
        let span = value.span();
        match value.get_ref() {
            DeValue::Table(table) => {
                Self { span, table: Some(Self::table(table)), ..Self::default() }
            }
            DeValue::String(text) => Self { span, text: Some(text.to_string()), ..Self::default() },
            DeValue::Array(list) => {
                Self { span, list: list.iter().map(Self::new).collect(), ..Self::default() }
            }
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => Self { span, ..Self::default() },
        }
    }

    fn table(table: &DeTable<'_>) -> BTreeMap<String, Self> {
        table.iter().map(|(key, value)| (key.get_ref().to_string(), Self::new(value))).collect()
    }

    fn get(&self, key: &str) -> Option<&Self> {
        self.table.as_ref()?.get(key)
    }

    fn step(&self, step: &Step<'_>) -> Option<&Self> {
        match step {
            Step::Table(name) => self.get(name),
            Step::Named(list, name) => self.named(list, name),
            Step::Nth(list, index) => self.get(list)?.list.get(*index),
            Step::Host(name) => self
                .named("backend", name)
                .or_else(|| self.get("fallback").filter(|item| item.is_named(name))),
        }
    }

    /// The item of `[[list]]` whose `name` is this one.
    fn named(&self, list: &str, name: &str) -> Option<&Self> {
        self.get(list)?.list.iter().find(|item| item.is_named(name))
    }

    fn is_named(&self, name: &str) -> bool {
        self.get("name").is_some_and(|own| own.text.as_deref() == Some(name))
    }

    /// One of several values; a single one need not be a list.
    fn item(&self, index: usize) -> Option<&Self> {
        if self.text.is_some() { (index == 0).then_some(self) } else { self.list.get(index) }
    }
}
