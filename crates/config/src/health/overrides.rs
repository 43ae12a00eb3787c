//! `check` of a `[[service.backend]]`: what a backend has of its own in the checks of its service.

use control::health::{CheckKind, CheckOverride, HttpCheck, TlsCheck};

use super::kind::PortUse;
use super::{RawCheck, host, http};
use crate::diagnostic::Diagnostic;
use crate::section::Section;
use crate::source::{Span, WithSpan, Written};
use crate::value;

/// The overrides, as far as they could be read.
#[derive(Debug)]
pub(crate) struct RawOverride {
    header: Span,
    port: Written<u16>,
    host: Written<String>,
    path: Written<String>,
}

impl RawOverride {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let check = Self {
            header: section.header().clone(),
            port: section.optional("port", value::number(1..=u16::MAX)),
            host: section.optional("host", host::header),
            path: section.optional("path", http::path),
        };
        if check.is_empty() {
            let error = Diagnostic::error(&check.header, "`check` of a backend is empty");
            let error = error.with_label("changes nothing");
            section.report(error.with_help("write `port`, `host` or `path`, or remove it"));
        }
        check
    }

    fn is_empty(&self) -> bool {
        self.port.is_absent() && self.host.is_absent() && self.path.is_absent()
    }

    pub(crate) fn build(&self) -> Option<CheckOverride> {
        Some(CheckOverride {
            port: self.port.if_right()?,
            host: self.host.if_right()?,
            path: self.path.if_right()?,
        })
    }

    /// Reports what does not fit to the checks of its service.
    pub(crate) fn misfits(&self, checks: &[&RawCheck]) -> Vec<Diagnostic> {
        if self.is_empty() {
            return Vec::new();
        }
        if checks.is_empty() {
            let error = Diagnostic::error(&self.header, "`check` of a backend changes no check");
            let error = error.with_label("the service has no check");
            return vec![
                error.with_help("add a `[[service.health]]` to the service, or remove it"),
            ];
        }
        let mut mistakes = Vec::new();
        let is_http = |check: &&&RawCheck| matches!(check.kind, None | Some(CheckKind::Http(_)));
        if !checks.iter().any(|check| is_http(&check)) {
            let written = [("host", self.host.at()), ("path", self.path.at())];
            for (key, at) in written.into_iter().filter_map(|(key, at)| Some((key, at?))) {
                mistakes.push(useless(key, &at.span, "`http` or `https`"));
            }
        }
        mistakes.extend(self.port.at().and_then(|port| port_misfit(port, checks)));
        let nameless = |host: &&WithSpan<String>| {
            host::name_of(&host.value).is_none() && checks.iter().any(|check| verifies_host(check))
        };
        if let Some(host) = self.host.at().filter(nameless) {
            let error = Diagnostic::error(&host.span, "`verify` needs the name in the certificate");
            let error = error.with_label("an address");
            let help = "write a name as `host`, or add `sni` to the `https` check";
            mistakes.push(error.with_help(help));
        }
        mistakes
    }
}

fn useless(key: &str, span: &Span, kinds: &str) -> Diagnostic {
    let error = Diagnostic::error(span, format!("`{key}` of a backend changes no check"));
    let error = error.with_label(format!("no check of the service is {kinds}"));
    error.with_help("remove it, or add such a check")
}

/// It changes the port of no check, or of some that ask different ones.
fn port_misfit(port: &WithSpan<u16>, checks: &[&RawCheck]) -> Option<Diagnostic> {
    let asks = |check: &&&RawCheck| {
        check.only_kind().is_none_or(|kind| !matches!(kind.port, PortUse::Portless { .. }))
    };
    let mut asking = checks.iter().filter(asks);
    let Some(first) = asking.next() else {
        return Some(useless("port", &port.span, "one that asks a port"));
    };
    let own = |check: &RawCheck| check.port.at().map(|port| port.value);
    let other = asking.find(|check| own(check) != own(first))?;
    let message = "`port` of a backend changes checks of different ports";
    let warning = Diagnostic::warning(&port.span, message);
    let warning =
        warning.with_label("is asked by all of them").with_place(&other.header, "another port");
    Some(warning.with_help("check the ports in services of their own if they differ"))
}

/// Whether it compares the certificate with the name in `host`.
fn verifies_host(check: &RawCheck) -> bool {
    matches!(
        &check.kind,
        Some(CheckKind::Http(HttpCheck {
            tls: Some(TlsCheck { verify: true, sni: None, .. }),
            ..
        }))
    )
}
