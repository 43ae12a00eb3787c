//! Which entries are wanted.

use std::net::IpAddr;

use api::listing::{FlowState, ListFlows, ListTemplates};
use dataplane::{Addr, BackendSlot, SeenFlow, ServiceSlot, TemplateEntry, TemplateKey};

use super::names::{Named, Names};

/// Of flows.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowFilter {
    source: Option<Prefix>,
    /// By slot; `None`: all.
    backends: Option<Vec<bool>>,
    state: Option<FlowState>,
}

impl FlowFilter {
    pub(super) fn new(wanted: &ListFlows, names: &Names) -> Result<Self, String> {
        let ListFlows { source, service, backend, state } = wanted;
        if let Some(service) = service.as_deref().filter(|name| !names.has_service(name)) {
            return Err(names.no_service(service));
        }
        let backends = match (service, backend) {
            (None, None) => None,
            (service, backend) => Some(backends(names, service.as_deref(), backend.as_deref())?),
        };
        let source = source.as_deref().map(Prefix::parse).transpose()?;
        Ok(Self { source, backends, state: *state })
    }

    pub(super) fn takes(&self, flow: &SeenFlow) -> bool {
        self.source.is_none_or(|source| source.covers(flow.key.src))
            && is_among(self.backends.as_deref(), flow.backend)
            && self.state.is_none_or(|state| state == flow.state.into())
    }
}

/// Of templates.
#[derive(Clone, Debug, Default)]
pub(super) struct TemplateFilter {
    source: Option<Prefix>,
    /// The inner `None`: of a service that has none.
    owner: Option<Option<ServiceSlot>>,
    backends: Option<Vec<bool>>,
}

impl TemplateFilter {
    pub(super) fn new(wanted: &ListTemplates, names: &Names) -> Result<Self, String> {
        let ListTemplates { source, service, backend } = wanted;
        Ok(Self {
            source: source.as_deref().map(Prefix::parse).transpose()?,
            owner: service.as_deref().map(|name| names.templates_of(name)).transpose()?,
            backends: backend
                .as_deref()
                .map(|name| backends(names, None, Some(name)))
                .transpose()?,
        })
    }

    pub(super) fn takes(&self, entry: &TemplateEntry) -> bool {
        self.means(&entry.key) && is_among(self.backends.as_deref(), entry.backend)
    }

    pub(super) fn means(&self, key: &TemplateKey) -> bool {
        self.source.is_none_or(|source| source.covers(key.source))
            && self.owner.is_none_or(|owner| owner == Some(key.service))
    }
}

/// Slots of the backends of a service that have this name: `service/backend`, or in every service.
fn backends(
    names: &Names,
    service: Option<&str>,
    backend: Option<&str>,
) -> Result<Vec<bool>, String> {
    let is = |named: &Named, name: &str| {
        let rest = name.strip_prefix(named.service.as_str());
        named.backend == name
            || rest.and_then(|rest| rest.strip_prefix('/')) == Some(&named.backend)
    };
    let slots = names.slots(|named| {
        service.is_none_or(|service| named.service == service)
            && backend.is_none_or(|backend| is(named, backend))
    });
    match backend {
        Some(backend) if !slots.contains(&true) => {
            Err(format!("there is no backend `{backend}`; say NAME or SERVICE/NAME"))
        }
        _ => Ok(slots),
    }
}

fn is_among(slots: Option<&[bool]>, slot: BackendSlot) -> bool {
    slots.is_none_or(|slots| slots.get(slot.index()) == Some(&true))
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    address: Addr,
    /// Of the 128-bit form.
    len: u8,
}

impl Prefix {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address and no prefix such as 192.0.2.0/24");
        let (address, len) = text.split_once('/').map_or((text, None), |(a, len)| (a, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let len = len.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if len > most {
            return Err(format!("`{text}`: a prefix of this family has 0 to {most} bits"));
        }
        let len = 128 - most + len;
        Ok(Self { address: Addr::from(address).masked(len), len })
    }

    pub(super) fn covers(self, address: Addr) -> bool {
        address.masked(self.len) == self.address
    }
}
