//! `[[service]]`.

use std::net::IpAddr;

use ::dataplane::{Protocol, SchedulerKind};
use control::{Persistence, Service};

use crate::backend::RawBackend;
use crate::diagnostic::Diagnostic;
use crate::net;
use crate::persistence;
use crate::ports::{Ports, ports};
use crate::section::Section;
use crate::source::{At, Place};
use crate::value::{self, repeated};

/// A service as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawService {
    pub(crate) header: Place,
    pub(crate) name: Option<At<String>>,
    /// `None` also when it is wrong, which was reported.
    pub(crate) vrrp: Option<At<String>>,
    pub(crate) vip: Option<At<IpAddr>>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) ports: Option<At<Ports>>,
    scheduler: Option<SchedulerKind>,
    /// `None` also when it is wrong, which was reported.
    persistence: Option<Persistence>,
    pub(crate) backends: Option<Vec<RawBackend>>,
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
            scheduler: section.or("scheduler", SchedulerKind::Maglev, scheduler),
            persistence: section.table("persistence", persistence::read).flatten(),
            backends: section.tables("backend", RawBackend::read),
        };
        for mistake in service.check() {
            section.report(mistake);
        }
        service
    }

    pub(crate) fn build(self) -> Option<Service> {
        let ports = self.ports?.value;
        Some(Service {
            name: self.name?.value,
            vrrp: self.vrrp.map(|vrrp| vrrp.value),
            vip: self.vip?.value,
            protocol: self.protocol?,
            first_port: ports.first,
            last_port: ports.last,
            scheduler: self.scheduler?,
            persistence: self.persistence,
            backends: self.backends?.into_iter().map(RawBackend::build).collect::<Option<_>>()?,
            health: Vec::new(),
            failure: control::FailurePolicy::default(),
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

    /// What can be told from the service alone.
    fn check(&self) -> Vec<Diagnostic> {
        let names = self.backends().filter_map(|backend| backend.name.as_ref());
        let addresses = self.backends().filter_map(|backend| backend.address.as_ref());
        let mut mistakes = repeated("backend name", names);
        mistakes.extend(repeated("backend address", addresses));
        mistakes.extend(self.other_families());
        mistakes.extend(self.without_backend());
        mistakes
    }

    fn other_families(&self) -> impl Iterator<Item = Diagnostic> {
        let addresses = self.backends().filter_map(|backend| backend.address.as_ref());
        let pairs = self.vip.iter().flat_map(move |vip| addresses.clone().map(move |a| (vip, a)));
        let differ = pairs.filter(|(vip, address)| vip.value.is_ipv4() != address.value.is_ipv4());
        differ.map(|(vip, address)| {
            let family = if vip.value.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("the backend's address {} is not {family}", address.value);
            Diagnostic::error(&address.place, message)
                .with_label("packets are forwarded unchanged, so both must be of one family")
                .with_place(&vip.place, format!("this VIP is {family}"))
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
        Some(warning.with_label("new connections will be dropped").with_help(help))
    }
}

const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

/// `sh` is what ip_vs calls hashing the source.
const SCHEDULERS: &[(&str, SchedulerKind)] = &[
    ("maglev", SchedulerKind::Maglev),
    ("sh", SchedulerKind::Maglev),
    ("rr", SchedulerKind::Rr),
    ("wrr", SchedulerKind::Wrr),
    ("lc", SchedulerKind::Lc),
    ("wlc", SchedulerKind::Wlc),
];
