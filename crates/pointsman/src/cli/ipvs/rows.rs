//! The tables of `ipvsadm` 1.31, column by column (`ipvsadm.c`).

use std::fmt::{self, Write};

use api::status::{Backend, Rates, Service, Status};
use dataplane::{Protocol, SchedulerKind};

use super::{endpoint, port};

/// What is printed of each service and backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Weights and connections.
    Plain,
    /// Weights, templates and connections.
    PersistentConn,
    /// Totals.
    Stats {
        /// In full.
        exact: bool,
    },
    /// Per second.
    Rate {
        /// In full.
        exact: bool,
    },
}

impl Table {
    /// The table; `all`: of all services, which has a line about the table in front.
    pub(super) fn text(self, status: &Status, all: bool) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, status, all);
        out
    }

    fn write(self, out: &mut String, status: &Status, all: bool) -> fmt::Result {
        if all {
            writeln!(out, "IP Virtual Server version {VERSION} (size={})", status.flow_capacity)?;
        }
        writeln!(out, "{}", self.head())?;
        for service in &status.services {
            self.service(out, service)?;
            for backend in service.backends.iter().filter(|backend| is_listed(backend)) {
                self.backend(out, service, backend)?;
            }
        }
        Ok(())
    }

    const fn head(self) -> &'static str {
        match self {
            Self::Plain => PLAIN,
            Self::PersistentConn => PERSISTENT_CONN,
            Self::Stats { .. } => STATS,
            Self::Rate { .. } => RATE,
        }
    }

    fn service(self, out: &mut String, service: &Service) -> fmt::Result {
        let name = endpoint(service.vip, port(service));
        let name = format!("{}  {name}", protocol(service.protocol));
        match self {
            Self::Plain | Self::PersistentConn => {
                writeln!(out, "{name} {}{}", scheduler(service.scheduler), persistent(service))
            }
            Self::Stats { exact } => {
                let connections = service.backends.iter().map(|backend| backend.connections).sum();
                let Service { packets, bytes, .. } = *service;
                numbers(out, &name, totals(connections, packets, bytes), exact)
            }
            Self::Rate { exact } => numbers(out, &name, rates(&service.rates), exact),
        }
    }

    fn backend(self, out: &mut String, service: &Service, backend: &Backend) -> fmt::Result {
        let name = endpoint(backend.address, port(service));
        let row = format!("  -> {name:<28}");
        let weight = weight(backend);
        let Backend { active, inactive, templates, connections, packets, bytes, .. } = *backend;
        // Flows that nothing proves are connections to ip_vs.
        let active = active + backend.unproven;
        match self {
            Self::Plain => {
                writeln!(out, "{row} {:<7} {weight:<6} {active:<10} {inactive:<10}", "Route")
            }
            Self::PersistentConn => {
                writeln!(out, "{row} {weight:<9} {templates:<11} {active:<10} {inactive:<10}")
            }
            Self::Stats { exact } => numbers(out, &row, totals(connections, packets, bytes), exact),
            Self::Rate { exact } => numbers(out, &row, rates(&backend.rates), exact),
        }
    }
}

/// A fallback that is not in use is left out: keepalived adds its `sorry_server` only then.
fn is_listed(backend: &Backend) -> bool {
    let in_use = backend.active + backend.inactive + backend.unproven + backend.templates > 0;
    !backend.fallback || backend.effective_weight > 0.0 || in_use
}

/// Of new sources: 0 while the backend takes none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 65,535")]
fn weight(backend: &Backend) -> u32 {
    backend.effective_weight.max(0.0).ceil() as u32
}

fn totals(connections: u64, packets: u64, bytes: u64) -> [u64; 5] {
    // ip_vs counts from the IP header on.
    [connections, packets, 0, bytes.saturating_sub(packets * ETHERNET_HEADER), 0]
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
fn rates(rates: &Rates) -> [u64; 5] {
    let whole = |rate: f64| rate.max(0.0).round() as u64;
    totals(whole(rates.connections), whole(rates.packets), whole(rates.bytes))
}

fn numbers(out: &mut String, name: &str, numbers: [u64; 5], exact: bool) -> fmt::Result {
    write!(out, "{name:<33}")?;
    for number in numbers {
        if exact { write!(out, " {number:>8}") } else { write!(out, " {}", large(number)) }?;
    }
    writeln!(out)
}

/// Eight places, as `print_largenum` of ipvsadm.
fn large(number: u64) -> String {
    match number {
        0..100_000_000 => format!("{number:>8}"),
        100_000_000..1_000_000_000 => format!("{:>7}K", number / 1_000),
        1_000_000_000..100_000_000_000 => format!("{:>7}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>7}G", number / 1_000_000_000),
        _ => format!("{:>7}T", number / 1_000_000_000_000),
    }
}

/// `TCP` or `UDP`.
pub(super) const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

/// As ip_vs calls it.
const fn scheduler(kind: SchedulerKind) -> &'static str {
    match kind {
        SchedulerKind::Maglev => "mh",
        SchedulerKind::Rr | SchedulerKind::Wrr | SchedulerKind::Lc | SchedulerKind::Wlc => {
            kind.name()
        }
    }
}

/// The time-out of a persistent service, and its prefix unless that is a whole address.
fn persistent(service: &Service) -> String {
    let Some(seconds) = service.persistence_seconds else { return String::new() };
    let mut out = format!(" persistent {seconds:.0}");
    let mask = match (service.persistence_prefix, service.vip.is_ipv4()) {
        (None | Some(32), true) | (None | Some(128), false) => return out,
        (Some(len), true) => {
            let bits = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(bits).to_string()
        }
        (Some(len), false) => len.to_string(),
    };
    // Writing to a String cannot fail.
    let _ = write!(out, " mask {mask}");
    out
}

/// Of the ip_vs that is imitated.
const VERSION: &str = "1.2.1";
const ETHERNET_HEADER: u64 = 14;

const PLAIN: &str = "Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn";
const PERSISTENT_CONN: &str = "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  \
     -> RemoteAddress:Port";
const STATS: &str = "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port";
const RATE: &str = "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port";
