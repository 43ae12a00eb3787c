//! `[[service.health]]` and `[[check]]`: a check of every backend of a service. One file per kind of question.

mod dns;
mod header;
mod host;
mod http;
mod kind;
mod origin;
mod overrides;
mod payload;
mod ping;
mod script;
mod shared;
mod status;
mod times;
mod tls;

use std::net::IpAddr;
use std::time::Duration;

use control::health::{Check, CheckKind, ProbeTarget, UdpCheck};

use crate::diagnostic::Diagnostic;
use crate::ports::Ports;
use crate::section::Section;
use crate::source::{Span, WithSpan, Written};
use crate::value;

use kind::{KINDS, Kind, PortUse};
use origin::{Origin, origin};
use times::RawTimes;

pub(crate) use overrides::RawOverride;
pub(crate) use shared::{ByName, RawShared, check as check_shared, names};

/// A check as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawCheck {
    pub(crate) header: Span,
    /// Of its section.
    title: String,
    /// Kinds whose keys are written.
    written: Vec<&'static Kind>,
    /// What is asked, as far as it is right.
    kind: Option<CheckKind>,
    times: RawTimes,
    rise: Option<u8>,
    fall: Option<u8>,
    jitter_percent: Option<u8>,
    starts_up: Option<bool>,
    port: Written<u16>,
    target: Written<ProbeTarget>,
    sentinel: Written<bool>,
    source: Written<Origin>,
    /// Where `refusal_window` stands.
    refusal_window: Option<Span>,
}

impl RawCheck {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let check = Self {
            header: section.header().clone(),
            title: section.title().to_owned(),
            written: KINDS.into_iter().filter(|kind| section.has(kind.key)).collect(),
            kind: read_kinds(section),
            times: RawTimes::read(section),
            rise: section.or("rise", 2, value::number(1..=100)),
            fall: section.or("fall", 3, value::number(1..=100)),
            jitter_percent: section.or("jitter_percent", 10, value::number(0..=50)),
            starts_up: section.or("start", false, value::choice(STARTS)),
            port: section.optional("port", value::number(1..=u16::MAX)),
            target: section.optional("target", value::choice(TARGETS)),
            sentinel: section.optional("sentinel", value::boolean),
            source: section.optional("source", origin),
            refusal_window: section.nested("udp", "refusal_window"),
        };
        for mistake in check.check() {
            section.report(mistake);
        }
        check
    }

    /// Of a service with this VIP.
    pub(crate) fn build(&self, vip: IpAddr) -> Option<Check> {
        let times = self.times.build()?;
        Some(Check {
            kind: self.kind.clone()?,
            interval: times.interval,
            timeout: times.timeout,
            rise: self.rise?,
            fall: self.fall?,
            fast_interval: times.fast_interval,
            down_interval: times.down_interval,
            jitter_percent: self.jitter_percent?,
            starts_up: self.starts_up?,
            port: self.port.if_right()?,
            target: self.target.or(ProbeTarget::Backend)?,
            source: self.source.or(Origin::default())?.towards(vip),
            sentinel: self.sentinel.or(self.only_kind()?.connected)?,
        })
    }

    /// A service of every port does not say which one to ask.
    pub(crate) fn without_port(&self, ports: &WithSpan<Ports>) -> Option<Diagnostic> {
        let Kind { key, port: PortUse::Asked { usual }, .. } = self.only_kind()? else {
            return None;
        };
        if ports.value != Ports::ANY || !self.port.is_absent() {
            return None;
        }
        let message = format!("`{key}` has no port to check");
        let error = Diagnostic::error(&self.header, message).with_label("needs `port`");
        let error = error.with_place(&ports.span, "the service has every port");
        Some(error.with_help(format!("add `port = {usual}` below `{}`", self.title)))
    }

    /// A service has addresses of one family.
    pub(crate) fn without_source(&self, vip: &WithSpan<IpAddr>) -> Option<Diagnostic> {
        let source = self.source.at().filter(|at| at.value.towards(vip.value).is_none())?;
        let family = if vip.value.is_ipv4() { "IPv4" } else { "IPv6" };
        let error = Diagnostic::error(&source.span, format!("`source` has no {family} address"));
        let error = error.with_label("backends cannot be asked from it");
        let error = error.with_place(&vip.span, format!("this service is {family}"));
        Some(error.with_help(format!("add an {family} address of this node, or remove `source`")))
    }

    /// Checks that need the check alone.
    fn check(&self) -> Vec<Diagnostic> {
        let mut mistakes = self.times.check();
        mistakes.extend(self.window_mistakes());
        match self.only_kind() {
            None => mistakes.push(self.not_one_kind()),
            Some(kind) => mistakes.extend(self.misfits(kind)),
        }
        mistakes
    }

    /// The kind, if one is written.
    fn only_kind(&self) -> Option<&'static Kind> {
        match self.written.as_slice() {
            [kind] => Some(kind),
            _ => None,
        }
    }

    fn not_one_kind(&self) -> Diagnostic {
        let message = match self.written.as_slice() {
            [first, second, ..] => {
                format!("`{}` has both `{}` and `{}`", self.title, first.key, second.key)
            }
            _ => format!("`{}` does not say what to ask", self.title),
        };
        let help = format!(
            "write one of {}; another check is another `{}`",
            kind::list(|_| true),
            self.title
        );
        Diagnostic::error(&self.header, message).with_label("needs one kind").with_help(help)
    }

    /// Settings that a check of this kind cannot have.
    fn misfits(&self, kind: &Kind) -> Vec<Diagnostic> {
        let key = kind.key;
        let mut mistakes = Vec::new();
        if let (Some(port), PortUse::Portless { help }) = (self.port.at(), &kind.port) {
            let error = Diagnostic::error(&port.span, format!("a `{key}` check has no port"));
            mistakes.push(error.with_label("cannot be asked").with_help(*help));
        }
        let vip = self.target.at().filter(|target| target.value == ProbeTarget::Vip);
        if let Some(target) = vip.filter(|_| !kind.steerable) {
            let message = format!("a `{key}` check cannot have `target = \"vip\"`");
            let error = Diagnostic::error(&target.span, message);
            let error = error.with_label("what a program asks cannot be steered");
            mistakes.push(error.with_help("remove `target`, or use another kind of check"));
        }
        if let Some(source) = self.source.at().filter(|_| !kind.steerable) {
            let message = format!("a `{key}` check cannot have `source`");
            let error = Diagnostic::error(&source.span, message);
            let error = error.with_label("what a program asks cannot be steered");
            mistakes.push(error.with_help("remove it, or give it to the program as an argument"));
        }
        let sentinel = self.sentinel.at().filter(|sentinel| sentinel.value);
        if let Some(sentinel) = sentinel.filter(|_| !kind.connected) {
            let message = format!("a `{key}` check cannot have a sentinel");
            let error = Diagnostic::error(&sentinel.span, message);
            let error = error.with_label("makes no connection that could be kept");
            let connected = kind::list(|kind| kind.connected);
            mistakes.push(error.with_help(format!("remove it; {connected} have one")));
        }
        mistakes
    }
}

impl RawCheck {
    /// What a `refusal_window` does not fit to.
    fn window_mistakes(&self) -> Vec<Diagnostic> {
        let Some(CheckKind::Udp(UdpCheck { refusal_window: Some(window), .. })) = self.kind else {
            return Vec::new();
        };
        let span = self.refusal_window.as_ref().unwrap_or(&self.header);
        let mut mistakes = Vec::new();
        let Some(times) = self.times.build() else { return mistakes };
        if window >= times.timeout {
            let timeout = humantime::format_duration(times.timeout);
            let message = format!("`refusal_window` does not end before `timeout`, {timeout}");
            let error = Diagnostic::error(span, message).with_label("the check could never pass");
            mistakes.push(error.with_help("shorten it, or write a longer `timeout`"));
        }
        let shortest = times.interval.min(times.down_interval);
        if shortest < ICMP_PACE {
            let written = humantime::format_duration(shortest);
            let message = format!("with `refusal_window` a check every {written} misses refusals");
            let warning = Diagnostic::warning(span, message);
            let label = "Linux says once a second at most that a port is closed";
            let help = "write an `interval` and a `down_interval` of 1s or more, or on the \
                        backends `net.ipv4.icmp_ratelimit = 0`";
            mistakes.push(warning.with_label(label).with_help(help));
        }
        mistakes
    }
}

/// `icmp_ratelimit` of Linux, per destination host; the first six come without delay.
const ICMP_PACE: Duration = Duration::from_secs(1);

/// Reads every kind that is written, so that the mistakes of all are reported; returns the first
/// that is right.
fn read_kinds(section: &mut Section<'_>) -> Option<CheckKind> {
    let read: Vec<_> = KINDS.into_iter().map(|kind| (kind.read)(section)).collect();
    read.into_iter().flatten().next()
}

const STARTS: &[(&str, bool)] = &[("down", false), ("up", true)];

const TARGETS: &[(&str, ProbeTarget)] =
    &[("backend", ProbeTarget::Backend), ("vip", ProbeTarget::Vip)];
