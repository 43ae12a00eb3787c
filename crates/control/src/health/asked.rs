//! A check as a service asks it of one backend.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::check::{Check, CheckKind, ProbeTarget};
use crate::desired::{Backend, Service};

/// A check of one backend, with all that its result depends on.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The check, with what the backend has of its own.
    pub check: Check,
    /// Address and port of the probe; port 0 for kinds without one.
    pub address: SocketAddr,
    /// The service and backend, for kinds whose result may depend on them (scripts).
    pub scope: Option<Scope>,
    label: String,
}

/// What a script learns of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Name of the service.
    pub service: String,
    /// Its VIP.
    pub vip: IpAddr,
    /// Name of the backend in it.
    pub backend: String,
}

impl Asked {
    /// A check of a service, of one of its backends.
    pub fn new(service: &Service, backend: &Backend, check: &Check) -> Self {
        let check = backend.check.applied_to(check);
        let is_ping = matches!(check.kind, CheckKind::Ping);
        let port = if is_ping { 0 } else { check.port_of(service) };
        let ip = match check.target {
            ProbeTarget::Backend => backend.address,
            ProbeTarget::Vip => service.vip,
        };
        let scope = matches!(check.kind, CheckKind::Script(_)).then(|| Scope {
            service: service.name.clone(),
            vip: service.vip,
            backend: backend.name.clone(),
        });
        Self { label: check.label(), check, address: SocketAddr::new(ip, port), scope }
    }

    /// A check by itself, as if nothing else mattered.
    pub fn alone(check: &Check) -> Self {
        let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), check.port.unwrap_or(0));
        Self { label: check.label(), check: check.clone(), address, scope: None }
    }

    /// Whether one result answers both: the same question, in the same rhythm, with the same
    /// thresholds. Whether the port is the service's or written does not matter.
    pub fn is_same(&self, other: &Self) -> bool {
        let port = self.check.port;
        self.address == other.address
            && self.scope == other.scope
            && (self.check == other.check || self.check == Check { port, ..other.check.clone() })
    }

    pub(super) fn label(&self) -> String {
        self.label.clone()
    }
}
