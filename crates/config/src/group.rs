//! `group` of `[service.persistence]`: what services that share their templates must agree in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::diagnostic::Diagnostic;
use crate::persistence::RawPersistence;
use crate::service::RawService;
use crate::source::{Span, WithSpan};

/// Mistakes between the services of each group.
pub(crate) fn check(services: &[RawService]) -> Vec<Diagnostic> {
    let mut groups: BTreeMap<&str, Vec<Sharing<'_>>> = BTreeMap::new();
    for service in services {
        let Some(persistence) = &service.persistence else { continue };
        let Some(group) = persistence.group.at() else { continue };
        let sharing = Sharing { service, persistence, span: &group.span };
        groups.entry(&group.value).or_default().push(sharing);
    }
    let mut mistakes = Vec::new();
    for (name, group) in groups {
        let Some((first, others)) = group.split_first() else { continue };
        mistakes.extend(others.iter().flat_map(|other| differences(name, first, other)));
        mistakes.extend(two_names(name, &group));
        mistakes.extend(lonely(name, &group));
    }
    mistakes
}

/// A service of a group.
struct Sharing<'a> {
    service: &'a RawService,
    persistence: &'a RawPersistence,
    /// Where it names the group.
    span: &'a Span,
}

impl Sharing<'_> {
    /// What a template is for, and how long it lasts, by key; `None` where it is wrong.
    fn settings(&self) -> [(&'static str, Option<String>); 4] {
        let RawPersistence { timeout, prefix_v4, prefix_v6, sticky_when_drained, .. } =
            self.persistence;
        let timeout = timeout.as_ref().map(|at| humantime::format_duration(at.value).to_string());
        [
            ("timeout", timeout),
            ("prefix_v4", prefix_v4.map(|prefix| prefix.to_string())),
            ("prefix_v6", prefix_v6.map(|prefix| prefix.to_string())),
            ("sticky_when_drained", sticky_when_drained.map(|sticky| sticky.to_string())),
        ]
    }
}

/// A template is one thing in all services that share it.
fn differences(name: &str, first: &Sharing<'_>, other: &Sharing<'_>) -> Vec<Diagnostic> {
    let pairs = first.settings().into_iter().zip(other.settings());
    let differing = pairs.filter_map(|((key, theirs), (_, ours))| {
        let (theirs, ours) = (theirs?, ours?);
        (theirs != ours).then(|| {
            let message = format!(
                "services{} and{} share the group `{name}` and differ in `{key}`",
                first.service.title(),
                other.service.title()
            );
            Diagnostic::error(other.span, message)
                .with_label(format!("`{key}` is {ours} here"))
                .with_place(first.span, format!("`{key}` is {theirs} here"))
                .with_help(format!("write the same `{key}` in all services of the group"))
        })
    });
    differing.collect()
}

/// A group knows a backend by its name: one host must not have two.
fn two_names(name: &str, group: &[Sharing<'_>]) -> Vec<Diagnostic> {
    let mut known: BTreeMap<IpAddr, (&WithSpan<String>, &RawService)> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for Sharing { service, .. } in group {
        for backend in service.hosts() {
            let (Some(own), Some(address)) = (&backend.name, &backend.address) else { continue };
            let (first, theirs) = known.entry(address.value).or_insert((own, service));
            if first.value == own.value {
                continue;
            }
            let message = format!(
                "services{} and{} of the group `{name}` have two names for {}",
                theirs.title(),
                service.title(),
                address.value
            );
            mistakes.push(
                Diagnostic::error(&own.span, message)
                    .with_label("a source could not follow its backend by name")
                    .with_place(&first.span, "called so here")
                    .with_help(format!("write `name = \"{}\"`", first.value)),
            );
        }
    }
    mistakes
}

fn lonely(name: &str, group: &[Sharing<'_>]) -> Option<Diagnostic> {
    let [Sharing { service, span, .. }] = group else { return None };
    let message = format!("no service but{} is in the group `{name}`", service.title());
    let warning =
        Diagnostic::warning(span, message).with_label("shares its templates with nothing");
    Some(warning.with_help("write the same `group` in another service, or remove it"))
}
