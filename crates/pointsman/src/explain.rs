//! Says where a client would go, and why: asks the packet path itself (`dataplane::Question`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use api::explain::{Explain, Explained, Outcome, TemplateOf};
use control::{Command, Controller, Desired, Event, Link, Neighbour};
use dataplane::{
    BackendSlot, Explanation, FlowKey, FragmentTable, Mac, PendingTable, PersistenceTable, PortId,
    Question, SeenFlow, SharedTables, Snapshot, Verdict,
};

use crate::clock;
use crate::listing::{Names, Tables};

/// What a question is asked about.
#[derive(Debug)]
pub struct Setting {
    /// Flows, templates and names.
    pub tables: Tables,
    /// What workers decide by.
    pub snapshot: Arc<Snapshot>,
    /// By instance: until when it is active.
    pub leases: Leases,
    /// State and reason of each backend, by slot.
    pub states: Vec<(BackendSlot, String)>,
}

/// Who is active.
#[derive(Debug)]
pub enum Leases {
    /// As on this node.
    Of(steer::Leases),
    /// Every instance.
    All(Vec<AtomicU64>),
}

impl Leases {
    fn get(&self) -> &[AtomicU64] {
        match self {
            Self::Of(leases) => leases,
            Self::All(leases) => leases,
        }
    }
}

impl Setting {
    /// Answers. May look through all flows: for a thread that has time.
    ///
    /// # Errors
    /// The question cannot be understood; a sentence.
    pub fn explain(&self, asked: &Explain) -> Result<Explained, String> {
        let (src, src_port) = endpoint(&asked.source)?;
        let (dst, dst_port) = endpoint(&asked.destination)?;
        let port = match dst_port {
            Some(port) => port,
            None => self.only_port(dst, asked)?,
        };
        let key = FlowKey {
            src: src.into(),
            dst: dst.into(),
            src_port: src_port.unwrap_or_default(),
            dst_port: port,
            protocol: asked.protocol,
        };
        let now = clock::now();
        let flow = src_port.and_then(|_| self.flow(&key));
        let question = Question {
            key,
            flow,
            snapshot: &self.snapshot,
            shared: &self.tables.shared,
            leases: self.leases.get(),
            timeouts: &self.tables.timeouts,
            now,
        };
        Ok(self.explained(&key, flow, &question.explain(), src_port.is_some()))
    }

    /// The port of the VIP's only service.
    fn only_port(&self, vip: IpAddr, asked: &Explain) -> Result<u16, String> {
        let services = self.snapshot.services_of(vip.into(), asked.protocol);
        let ports: Vec<u16> = services.map(|service| service.key.first_port).collect();
        match ports[..] {
            [port] => Ok(port),
            [] => Err(format!("{vip} has no {} service: name a port", asked.protocol.name())),
            [..] => Err(format!("{vip} has several services: say {vip}:PORT")),
        }
    }

    fn flow(&self, key: &FlowKey) -> Option<SeenFlow> {
        let Tables { flows, timeouts, .. } = &self.tables;
        let now = clock::now();
        flows.iter().find_map(|reader| {
            reader.page(0, reader.buckets(), timeouts, now).find(|flow| flow.key == *key)
        })
    }

    fn explained(
        &self,
        key: &FlowKey,
        flow: Option<SeenFlow>,
        found: &Explanation,
        has_port: bool,
    ) -> Explained {
        let Explanation { outcome, because, template, home, service } = *found;
        let names = &self.tables.names;
        let name = |slot: BackendSlot| names.of(slot).backend.clone();
        let backend = outcome.ok();
        let now = clock::now();
        let mut explained = Explained {
            outcome: match outcome {
                Ok(_) | Err(Verdict::Forward(_)) => Outcome::Forwarded,
                Err(Verdict::Answer) => Outcome::Refused,
                Err(Verdict::HandOver | Verdict::Wait | Verdict::Drop(_)) => Outcome::Dropped,
            },
            service: service.and_then(|slot| names.service(slot)).map(ToOwned::to_owned),
            backend: backend.map(name),
            address: backend.and_then(|slot| names.of(slot).address),
            because: because.map(Into::into),
            flow: flow.map(|flow| flow.state.into()),
            template: template.map(|template| TemplateOf {
                backend: name(template.backend),
                epoch: template.epoch.number(),
                live_flows: template.live_flows,
                expires_seconds: template.deadline.saturating_since(now).as_secs_f64(),
            }),
            home: home.map(name),
            why: Vec::new(),
        };
        explained.why = self.sentences(key, (flow, has_port), found, &explained);
        explained
    }

    fn sentences(
        &self,
        key: &FlowKey,
        (flow, has_port): (Option<SeenFlow>, bool),
        found: &Explanation,
        explained: &Explained,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let decided = found.outcome.ok();
        let state = |slot: BackendSlot| {
            let state = self.states.iter().find(|(known, _)| *known == slot);
            let state = state.map_or("gone from the configuration", |(_, state)| state);
            format!("{} ({state})", self.tables.names.of(slot).backend)
        };
        if let Some(flow) = flow {
            let (what, idle) = (flow.state.name(), flow.idle.as_secs_f64());
            let at = state(flow.backend);
            lines.push(format!("its flow is {what}, idle for {idle:.1} s, at {at}"));
        }
        if let Some(template) = &explained.template {
            let TemplateOf { backend, epoch, live_flows, expires_seconds } = template;
            let held = match live_flows {
                0 => format!("expires in {expires_seconds:.1} s"),
                count => format!("held by {count} connections"),
            };
            let over = if explained.backend.as_ref() == Some(backend) || decided.is_none() {
                ""
            } else {
                ": passed over"
            };
            lines.push(format!("its source's template {epoch} names {backend}, {held}{over}"));
        }
        if let Some(home) = found.home.filter(|home| decided != Some(*home)) {
            lines.push(format!("its hash leads to {}", state(home)));
        }
        lines.push(match (found.outcome, explained.because) {
            (Ok(backend), Some(because)) => format!("{}: {}", state(backend), because.help()),
            (Err(Verdict::Drop(reason)), _) => reason.help().to_owned(),
            _ if found.service.is_none() => {
                format!("no service listens on port {} of the VIP", key.dst_port)
            }
            _ => "no backend takes it, and the client is told".to_owned(),
        });
        if !has_port && self.hashes_ports(key) {
            lines
                .push("its service hashes the 5-tuple: other source ports go elsewhere".to_owned());
        }
        lines
    }

    fn hashes_ports(&self, key: &FlowKey) -> bool {
        let service = self.snapshot.service(key.dst, key.protocol, key.dst_port);
        service.is_some_and(|service| {
            service.persistence.is_none()
                && service.scheduler.kind().hashes()
                && service.hash == dataplane::HashInput::Flow
        })
    }

    /// What a configuration would do if all its backends were up and all its VIPs active.
    ///
    /// # Errors
    /// The configuration has no interface.
    pub fn of_configuration(mut desired: Desired) -> Result<Self, String> {
        desired.services.iter_mut().for_each(|service| service.health.clear());
        let timeouts = desired.dataplane.timeouts;
        let now = clock::now();
        let mut controller = Controller::new(desired, now);
        let port = PortId(0);
        let routes = controller.addresses().into_iter().map(|address| (address, Some(port)));
        controller.handle(Event::Routes(routes.collect()), now);
        let link = Link { ifindex: 1, mac: MAC, up: true, mtu: 1500 };
        controller.handle(Event::Link(port, Some(link)), now);
        for (number, address) in (1_u32..).zip(controller.addresses()) {
            let [a, b, c, d] = number.to_be_bytes();
            let mac = Mac([2, 1, a, b, c, d]);
            controller.handle(Event::Neighbour(address, Neighbour::Resolved(mac)), now);
        }
        let mut snapshot = None;
        while let Some(command) = controller.poll_command() {
            if let Command::Publish(published) = command {
                snapshot = Some(published);
            }
        }
        let shared = SharedTables {
            pending: PendingTable::new(1, 0, timeouts.half_open),
            persistence: PersistenceTable::new(1, 0),
            fragments: FragmentTable::new(1, 0),
        };
        let names = Names::new(controller.services());
        let tables = Tables { flows: vec![], timeouts, shared: Arc::new(shared), names };
        let instances = (0..steer::abi::INSTANCES).map(|_| AtomicU64::new(u64::MAX));
        Ok(Self {
            tables,
            snapshot: snapshot.ok_or("the configuration has no service")?,
            leases: Leases::All(instances.collect()),
            states: states(&controller),
        })
    }
}

/// Each backend's state and why, by slot.
pub fn states(controller: &Controller) -> Vec<(BackendSlot, String)> {
    let backends = controller.services().flat_map(|service| service.backends);
    let shown = backends.filter_map(|backend| {
        let state = api::status::BackendState::from(backend.state).name();
        let role = if backend.fallback { "fallback, " } else { "" };
        let why = if backend.why.is_empty() { String::new() } else { format!(": {}", backend.why) };
        Some((backend.slot?, format!("{role}{state}{why}")))
    });
    shown.collect()
}

/// An address, or an address and a port.
fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    let both = text.parse::<SocketAddr>().map_err(|_| {
        format!(
            "`{text}` is neither an address nor ADDRESS:PORT such as 192.0.2.1:80, [2001:db8::1]:80"
        )
    })?;
    Ok((both.ip(), Some(both.port())))
}

/// Ours, where no interface is asked.
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
