//! Where in the text each setting stands, for checks that need the machine.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::source::{Source, Span};

/// Finds settings in the text of a configuration that was read without errors.
///
/// What is not written there (a default) gives the header of the section it would stand in, and
/// failing that the file as a whole: so every question has an answer that can be shown.
///
/// Nothing is stored but the text: a look-up parses it again. That is for error messages only.
#[derive(Clone, Debug)]
pub struct SpanIndex {
    source: Arc<Source>,
}

impl SpanIndex {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self { source }
    }

    /// The file as a whole.
    pub fn file(&self) -> Span {
        Span::whole_file(&self.source)
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

    /// A `[[service.health]]` of a service by its number, from 0.
    pub fn health_check(&self, service: &str, index: usize) -> Span {
        self.find(&[Step::Named("service", service), Step::Nth("health", index)], "https")
    }

    /// Follows `steps` as far as they lead, then looks for `key`.
    fn find(&self, steps: &[Step<'_>], key: &str) -> Span {
        let (document, _) = DeTable::parse_recoverable(&self.source.text);
        let mut table = document.get_ref();
        let mut span = None;
        for step in steps {
            let next = match step {
                Step::Table(name) => table.get(*name),
                Step::Named(list, name) => named(table, list, name),
                Step::Nth(list, index) => {
                    let list = table.get(*list).and_then(|list| list.get_ref().as_array());
                    list.and_then(|list| list.get(*index))
                }
                Step::Host(name) => named(table, "backend", name)
                    .or_else(|| table.get("fallback").filter(|item| is_named(item, name))),
            };
            let inner = next.and_then(|next| Some((next.span(), next.get_ref().as_table()?)));
            let Some((header, inner)) = inner else {
                return self.span(span);
            };
            (span, table) = (Some(header), inner);
        }
        self.span(table.get(key).map(|value| value.span()).or(span))
    }

    fn span(&self, span: Option<std::ops::Range<usize>>) -> Span {
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

/// The item of `[[list]]` whose `name` is this one.
fn named<'d>(table: &'d DeTable<'d>, list: &str, name: &str) -> Option<&'d Spanned<DeValue<'d>>> {
    let list = table.get(list).and_then(|list| list.get_ref().as_array());
    list.into_iter().flat_map(|list| list.iter()).find(|item| is_named(item, name))
}

fn is_named(item: &Spanned<DeValue<'_>>, name: &str) -> bool {
    let written = item.get_ref().get("name").map(|value| value.get_ref());
    written.and_then(DeValue::as_str) == Some(name)
}
