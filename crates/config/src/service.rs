//! `[[service]]`.

use std::fmt::Display;
use std::net::IpAddr;

use ::dataplane::{HashInput, Protocol, SchedulerKind};
use control::{ClosedPorts, Service};

use crate::backend::RawBackend;
use crate::diagnostic::Diagnostic;
use crate::failure::RawFailure;
use crate::health::{self, ByName, RawCheck};
use crate::net;
use crate::persistence::RawPersistence;
use crate::ports::{Ports, ports};
use crate::section::Section;
use crate::source::{Span, WithSpan, Written};
use crate::value::{self, repeated};

/// A service as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawService {
    pub(crate) header: Span,
    pub(crate) name: Option<WithSpan<String>>,
    /// `None` also when it is wrong, which was reported.
    pub(crate) vrrp: Option<WithSpan<String>>,
    pub(crate) vip: Option<WithSpan<IpAddr>>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) ports: Option<WithSpan<Ports>>,
    pub(crate) closed_ports: Written<ClosedPorts>,
    /// With whether it is written `sh`.
    scheduler: Option<(SchedulerKind, bool)>,
    hash: Written<HashInput>,
    pub(crate) persistence: Option<RawPersistence>,
    pub(crate) backends: Option<Vec<RawBackend>>,
    health: Option<Vec<RawCheck>>,
    /// Names of further checks.
    check: Written<Vec<WithSpan<String>>>,
    failure: RawFailure,
}

impl RawService {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let scheduler = value::choice(SCHEDULERS);
        let service = Self {
            header: section.header().clone(),
            name: section.required("name", "name = \"web\"", value::name),
            vrrp: section.read("vrrp", value::name),
            vip: section.required("vip", "vip = \"192.0.2.10\"", net::host_address),
            protocol: section.or("protocol", Protocol::Tcp, value::choice(PROTOCOLS)),
            ports: section.required("port", "port = 80", ports),
            closed_ports: section.optional("closed_ports", value::choice(CLOSED_PORTS)),
            scheduler: section.or("scheduler", (SchedulerKind::Maglev, false), scheduler),
            hash: section.optional("hash", value::choice(HASHES)),
            persistence: section.table("persistence", RawPersistence::read),
            backends: section.tables("backend", RawBackend::read),
            health: section.tables("health", RawCheck::read),
            check: section.optional("check", health::names),
            failure: RawFailure::read(section),
        };
        for mistake in service.check() {
            section.report(mistake);
        }
        service
    }

    pub(crate) fn build(self, shared: &ByName<'_>) -> Option<Service> {
        let vip = self.vip.as_ref()?.value;
        let health = self.all_checks(shared)?.into_iter().map(|check| check.build(vip));
        let health = health.collect::<Option<_>>()?;
        let ports = self.ports?.value;
        let (scheduler, is_sh) = self.scheduler?;
        Some(Service {
            name: self.name?.value,
            vrrp: self.vrrp.map(|vrrp| vrrp.value),
            vip,
            protocol: self.protocol?,
            first_port: ports.first,
            last_port: ports.last,
            closed_ports: self.closed_ports.or(ClosedPorts::default())?,
            scheduler,
            hash: self.hash.if_right()?.or_else(|| is_sh.then_some(HashInput::Source)),
            persistence: match self.persistence {
                Some(persistence) => Some(persistence.build()?),
                None => None,
            },
            backends: self.backends?.into_iter().map(RawBackend::build).collect::<Option<_>>()?,
            health,
            failure: self.failure.build()?,
        })
    }

    /// For messages: `` `web` ``, or nothing when the name is missing.
    pub(crate) fn title(&self) -> String {
        self.name.as_ref().map_or_else(String::new, |name| format!(" `{}`", name.value))
    }

    /// The backends, as far as the list could be read.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &RawBackend> + Clone {
        self.backends.iter().flatten()
    }

    /// The names of checks that it refers to.
    pub(crate) fn shared_checks(&self) -> impl Iterator<Item = &WithSpan<String>> {
        self.check.at().into_iter().flat_map(|names| &names.value)
    }

    /// Its own checks, then those that it refers to. `None`: there is one that does not exist.
    fn all_checks<'a>(&'a self, shared: &ByName<'a>) -> Option<Vec<&'a RawCheck>> {
        if let Written::Wrong = self.check {
            return None;
        }
        let mut checks: Vec<&RawCheck> = self.health.as_ref()?.iter().collect();
        for name in self.shared_checks() {
            checks.push(shared.get(&name.value)?);
        }
        Some(checks)
    }

    /// Checks that need the checks it refers to.
    pub(crate) fn check_with(&self, shared: &ByName<'_>) -> Vec<Diagnostic> {
        let referred = || self.shared_checks().filter_map(|name| shared.get(&name.value));
        let mut mistakes: Vec<Diagnostic> =
            referred().filter_map(|check| check.without_port(self.ports.as_ref()?)).collect();
        mistakes.extend(referred().filter_map(|check| check.without_source(self.vip.as_ref()?)));
        let Some(checks) = self.all_checks(shared) else { return mistakes };
        let overrides = self.backends().filter_map(|backend| backend.check.as_ref());
        mistakes.extend(overrides.flat_map(|one| one.misfits(&checks)));
        mistakes
    }

    /// Everything that frames are sent to: the backends and the fallback.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &RawBackend> + Clone {
        self.backends().chain(&self.failure.fallback)
    }

    /// Checks that need the service alone.
    fn check(&self) -> Vec<Diagnostic> {
        let names = self.backends().filter_map(|backend| backend.name.as_ref());
        let addresses = self.backends().filter_map(|backend| backend.address.as_ref());
        let mut mistakes = repeated("backend name", names.clone());
        mistakes.extend(repeated("backend address", addresses.clone()));
        if let Some(fallback) = &self.failure.fallback {
            mistakes.extend(shared("name", fallback.name.as_ref(), names));
            mistakes.extend(shared("address", fallback.address.as_ref(), addresses));
        }
        mistakes.extend(self.other_families());
        mistakes.extend(self.without_backend());
        mistakes.extend(self.min_out_of_reach());
        let checks = self.health.iter().flatten();
        mistakes.extend(checks.filter_map(|check| check.without_port(self.ports.as_ref()?)));
        let checks = self.health.iter().flatten();
        mistakes.extend(checks.filter_map(|check| check.without_source(self.vip.as_ref()?)));
        mistakes.extend(self.checks_twice());
        mistakes.extend(self.useless_hash());
        mistakes
    }

    fn useless_hash(&self) -> Option<Diagnostic> {
        let hash = self.hash.at()?;
        let (scheduler, _) = self.scheduler?;
        if !scheduler.hashes() {
            let message = format!("`hash` is of no use with `{}`", scheduler.name());
            let error = Diagnostic::error(&hash.span, message);
            let error = error.with_label("only `maglev` (alias `sh`) chooses by a hash");
            return Some(error.with_help("remove it, or write `scheduler = \"maglev\"`"));
        }
        let persistence = self.persistence.as_ref()?;
        let is_flow = hash.value == HashInput::Flow;
        is_flow.then(|| {
            let message = "`hash = \"flow\"` contradicts persistence";
            Diagnostic::error(&hash.span, message)
                .with_label("each connection of a source on its own")
                .with_place(&persistence.header, "all connections of a source together")
                .with_help("remove one of the two")
        })
    }

    fn other_families(&self) -> impl Iterator<Item = Diagnostic> {
        let addresses = self.hosts().filter_map(|backend| backend.address.as_ref());
        let pairs = self.vip.iter().flat_map(move |vip| addresses.clone().map(move |a| (vip, a)));
        let differ = pairs.filter(|(vip, address)| vip.value.is_ipv4() != address.value.is_ipv4());
        differ.map(|(vip, address)| {
            let family = if vip.value.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("the backend's address {} is not {family}", address.value);
            Diagnostic::error(&address.span, message)
                .with_label("packets are forwarded unchanged, so both must be of one family")
                .with_place(&vip.span, format!("this VIP is {family}"))
                .with_help(format!("write the backend's {family} address"))
        })
    }

    fn without_backend(&self) -> Option<Diagnostic> {
        let (message, help) = if self.backends.as_ref()?.is_empty() {
            ("has no backends", "add a `[[service.backend]]` with `name` and `address`")
        } else if self.backends().all(|backend| backend.weight == Some(0)) {
            ("has only backends of weight 0", "give one of its backends a `weight` of 1 or more")
        } else {
            return None;
        };
        let warning =
            Diagnostic::warning(&self.header, format!("service{} {message}", self.title()));
        let label = match &self.failure.fallback {
            Some(_) => "everything goes to the fallback",
            None => "new connections will be dropped",
        };
        Some(warning.with_label(label).with_help(help))
    }

    fn min_out_of_reach(&self) -> Option<Diagnostic> {
        let weights = self.backends.as_ref()?.iter().map(|backend| backend.weight.map(u64::from));
        let sum: u64 = weights.sum::<Option<_>>()?;
        (sum > 0).then(|| self.failure.min_healthy.out_of_reach(sum)).flatten()
    }

    fn checks_twice(&self) -> Vec<Diagnostic> {
        let checks = self.health.iter().flatten();
        let Some(vip) = &self.vip else { return Vec::new() };
        let checks: Vec<_> = checks.map(|check| (check.build(vip.value), &check.header)).collect();
        let mut mistakes = Vec::new();
        for (at, (check, span)) in checks.iter().enumerate() {
            let same = |(earlier, _): &&(_, _)| check.is_some() && earlier == check;
            let Some((_, earlier)) = checks.iter().take(at).find(same) else { continue };
            let warning = Diagnostic::warning(span, "the same check twice");
            let warning = warning.with_label("asks again").with_place(earlier, "asked here");
            mistakes.push(warning.with_help("remove one of the two"));
        }
        mistakes
    }
}

/// A fallback that is a backend as well: it would be down when it is needed.
fn shared<'a, T: PartialEq + Display + 'a>(
    what: &str,
    fallback: Option<&WithSpan<T>>,
    mut backends: impl Iterator<Item = &'a WithSpan<T>>,
) -> Option<Diagnostic> {
    let fallback = fallback?;
    let backend = backends.find(|backend| backend.value == fallback.value)?;
    let message = format!("the fallback has the {what} of a backend: `{}`", fallback.value);
    let error = Diagnostic::error(&fallback.span, message).with_label("must be another one");
    let error = error.with_place(&backend.span, "the backend");
    Some(error.with_help(format!("write another {what}, or remove `[service.fallback]`")))
}

const CLOSED_PORTS: &[(&str, ClosedPorts)] =
    &[("reject", ClosedPorts::Reject), ("drop", ClosedPorts::Drop)];
const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

const HASHES: &[(&str, HashInput)] = &[("source", HashInput::Source), ("flow", HashInput::Flow)];

/// `sh` is what ip_vs calls hashing the source: with whether that is meant.
const SCHEDULERS: &[(&str, (SchedulerKind, bool))] = &[
    ("maglev", (SchedulerKind::Maglev, false)),
    ("sh", (SchedulerKind::Maglev, true)),
    ("rr", (SchedulerKind::Rr, false)),
    ("wrr", (SchedulerKind::Wrr, false)),
    ("lc", (SchedulerKind::Lc, false)),
    ("wlc", (SchedulerKind::Wlc, false)),
];
