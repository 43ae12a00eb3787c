//! `[[service.health]]`: a check of every backend of a service. One file per kind of question.

mod header;
mod host;
mod http;
mod payload;
mod status;
mod times;
mod tls;

use control::health::{Check, CheckKind, ProbeTarget};

use crate::diagnostic::Diagnostic;
use crate::ports::Ports;
use crate::section::Section;
use crate::source::{Span, WithSpan, Written};
use crate::value::{self, Checked, Value};

use times::RawTimes;

/// A check as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawCheck {
    pub(crate) header: Span,
    /// Keys of [`KINDS`] that are written.
    written: Vec<&'static str>,
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
}

impl RawCheck {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let check = Self {
            header: section.header().clone(),
            written: KINDS.into_iter().filter(|kind| section.has(kind)).collect(),
            kind: kind(section),
            times: RawTimes::read(section),
            rise: section.or("rise", 2, value::number(1..=100)),
            fall: section.or("fall", 3, value::number(1..=100)),
            jitter_percent: section.or("jitter_percent", 10, value::number(0..=50)),
            starts_up: section.or("start", false, value::choice(STARTS)),
            port: section.optional("port", value::number(1..=u16::MAX)),
            target: section.optional("target", value::choice(TARGETS)),
            sentinel: section.optional("sentinel", value::boolean),
        };
        for mistake in check.check() {
            section.report(mistake);
        }
        check
    }

    pub(crate) fn build(&self) -> Option<Check> {
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
            sentinel: self.sentinel.or(CONNECTED.contains(&self.only_kind()?))?,
        })
    }

    /// A service of every port does not say which one to ask.
    pub(crate) fn without_port(&self, ports: &WithSpan<Ports>) -> Option<Diagnostic> {
        let kind = self.only_kind().filter(|kind| !PORTLESS.contains(kind))?;
        if ports.value != Ports::ANY || !self.port.is_absent() {
            return None;
        }
        let message = format!("`{kind}` has no port to check");
        let error = Diagnostic::error(&self.header, message).with_label("needs `port`");
        let error = error.with_place(&ports.span, "the service has every port");
        let usual = match kind {
            "https" => 443,
            "udp" => 53,
            _ => 80,
        };
        Some(error.with_help(format!("add `port = {usual}` below `[[service.health]]`")))
    }

    /// Checks that need the check alone.
    fn check(&self) -> Vec<Diagnostic> {
        let mut mistakes = self.times.check();
        match self.only_kind() {
            None => mistakes.push(self.not_one_kind()),
            Some(kind) => mistakes.extend(self.misfits(kind)),
        }
        mistakes
    }

    /// The kind, if one is written.
    fn only_kind(&self) -> Option<&'static str> {
        match self.written.as_slice() {
            [kind] => Some(kind),
            _ => None,
        }
    }

    fn not_one_kind(&self) -> Diagnostic {
        let message = match self.written.as_slice() {
            [first, second, ..] => {
                format!("`[[service.health]]` has both `{first}` and `{second}`")
            }
            _ => "`[[service.health]]` does not say what to ask".to_owned(),
        };
        let help = "write one of `http`, `https`, `tcp`, `udp`, `ping` and `script`; \
                    another check is another `[[service.health]]`";
        Diagnostic::error(&self.header, message).with_label("needs one kind").with_help(help)
    }

    /// Settings that a check of this kind cannot have.
    fn misfits(&self, kind: &'static str) -> Vec<Diagnostic> {
        let mut mistakes = Vec::new();
        if let Some(port) = self.port.at().filter(|_| PORTLESS.contains(&kind)) {
            let error = Diagnostic::error(&port.span, format!("a `{kind}` check has no port"));
            let help = match kind {
                "ping" => "remove `port`, or ask it with `tcp = {}`",
                _ => "remove `port`, or give it to the program as an argument",
            };
            mistakes.push(error.with_label("cannot be asked").with_help(help));
        }
        let vip = self.target.at().filter(|target| target.value == ProbeTarget::Vip);
        if let Some(target) = vip.filter(|_| kind == "script") {
            let message = "a `script` check cannot have `target = \"vip\"`";
            let error = Diagnostic::error(&target.span, message);
            let error = error.with_label("what a program asks cannot be steered");
            mistakes.push(error.with_help("remove `target`, or use another kind of check"));
        }
        let sentinel = self.sentinel.at().filter(|sentinel| sentinel.value);
        if let Some(sentinel) = sentinel.filter(|_| !CONNECTED.contains(&kind)) {
            let message = format!("a `{kind}` check cannot have a sentinel");
            let error = Diagnostic::error(&sentinel.span, message);
            let error = error.with_label("makes no connection that could be kept");
            mistakes.push(error.with_help("remove it; `http`, `https` and `tcp` have one"));
        }
        mistakes
    }
}

/// Reads every kind that is written; the first that is right.
fn kind(section: &mut Section<'_>) -> Option<CheckKind> {
    let kinds = [
        section.table_or_true("http", http::plain).map(CheckKind::Http),
        section.table_or_true("https", http::over_tls).map(CheckKind::Http),
        section.table_or_true("tcp", payload::tcp).map(CheckKind::Tcp),
        section.table_or_true("udp", payload::udp).map(CheckKind::Udp),
        section.read("ping", only_true).map(|_| CheckKind::Ping),
        section.read("script", value::argv).map(|argv| CheckKind::Script(argv.value)),
    ];
    kinds.into_iter().flatten().next()
}

fn only_true(value: &Value<'_>) -> Checked<()> {
    if value::boolean(value)? {
        return Ok(());
    }
    let error = value.error(format!("`{}` cannot be false", value.key));
    Err(vec![error.with_label("asks nothing").with_help("write `true`, or remove it")])
}

const KINDS: [&str; 6] = ["http", "https", "tcp", "udp", "ping", "script"];

/// Kinds that make a connection, which the sentinel can keep.
const CONNECTED: [&str; 3] = ["http", "https", "tcp"];

/// Kinds that ask no port.
const PORTLESS: [&str; 2] = ["ping", "script"];

const STARTS: &[(&str, bool)] = &[("down", false), ("up", true)];

const TARGETS: &[(&str, ProbeTarget)] =
    &[("backend", ProbeTarget::Backend), ("vip", ProbeTarget::Vip)];
