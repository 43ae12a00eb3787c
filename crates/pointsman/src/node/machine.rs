//! What the configuration asks and this machine does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::{Desired, Diagnostic, Diagnostics, Span, SpanIndex};

use super::owned;
use super::vrrp_check::check_vrrp;
use crate::health::unusable_tls;
use crate::netlink::Picture;
use crate::worker::pool::usable_cpus;

/// Longest IP packet that a 4 KiB frame holds: headroom, Ethernet header and two VLAN tags apart.
const MAX_MTU: u32 = 4096 - 256 - 14 - 8;

/// What is known of the machine.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) picture: &'a Picture,
    /// The index of the interface by which the kernel reaches each backend on-link.
    pub(super) routes: &'a BTreeMap<IpAddr, Option<u32>>,
}

impl Machine<'_> {
    /// Everything that the configuration asks and this machine cannot do. What may come later (an
    /// interface, a link, an address, with them routes) is no mistake but waited for.
    pub(super) fn check(&self, desired: &Desired, spans: &SpanIndex) -> Diagnostics {
        let picture = self.picture;
        let mut found = Vec::new();
        for interface in &desired.interfaces {
            found.extend(check_interface(interface, spans, picture));
        }
        found.extend(check_cpus(desired, spans));
        for service in &desired.services {
            found.extend(check_vip(service, spans, picture));
            for backend in service.hosts() {
                let place = spans.backend_address(&service.name, &backend.name);
                found.extend(self.check_backend(desired, backend.address, &place));
            }
        }
        found.extend(check_tls(desired, spans));
        for instance in &desired.vrrp {
            found.extend(check_vrrp(desired, instance, spans, picture));
        }
        Diagnostics::from_iter(found)
    }

    fn check_backend(
        &self,
        desired: &Desired,
        address: IpAddr,
        place: &Span,
    ) -> Option<Diagnostic> {
        let picture = self.picture;
        if picture.networks.values().flatten().any(|network| network.address == address) {
            return Some(
                Diagnostic::error(place, format!("{address} is an address of this node"))
                    .with_label("frames would come back to the balancer")
                    .with_help("a backend must be another host"),
            );
        }
        let towards = self.routes.get(&address).copied().flatten();
        let named = |name: &&String| picture.links.get(*name).map(|link| link.ifindex) == towards;
        let elsewhere = towards.and_then(|_| picture.links.keys().find(named));
        let configured = |name: &String| desired.interfaces.iter().any(|i| i.name == *name);
        if elsewhere.is_some_and(configured)
            || (elsewhere.is_none() && self.may_change(desired, address))
        {
            return None;
        }
        let networks: Vec<String> = desired
            .interfaces
            .iter()
            .filter_map(|interface| picture.links.get(&interface.name))
            .filter_map(|link| picture.networks.get(&link.ifindex))
            .flatten()
            .filter(|network| !is_link_local(network.address))
            .map(|network| format!("{}/{}", network.address, network.prefix))
            .collect();
        let help = match elsewhere {
            Some(name) => format!("it is reached by {name}: add an [[interface]] for {name}"),
            None => format!(
                "direct routing changes only the MAC address, so a backend must be a neighbour; the \
                 configured interfaces have {}",
                if networks.is_empty() { "no address".to_owned() } else { networks.join(", ") }
            ),
        };
        Some(
            Diagnostic::error(
                place,
                format!("{address} is not on a network of a configured interface"),
            )
            .with_label("not directly reachable")
            .with_help(help),
        )
    }

    /// Whether a route may still come: an interface is missing or not set up, or has no address of
    /// this family.
    fn may_change(&self, desired: &Desired, address: IpAddr) -> bool {
        let picture = self.picture;
        let complete = |name: &str| {
            let link = picture.links.get(name).filter(|_| !picture.down.contains(name));
            let networks = link.and_then(|link| picture.networks.get(&link.ifindex));
            let own = networks.into_iter().flatten().map(|network| network.address);
            own.filter(|own| !is_link_local(*own)).any(|own| own.is_ipv4() == address.is_ipv4())
        };
        !desired.interfaces.iter().all(|interface| complete(&interface.name))
    }
}

/// Each place once, however many services name the check.
fn check_tls(desired: &Desired, spans: &SpanIndex) -> impl Iterator<Item = Diagnostic> {
    let mut places = BTreeSet::new();
    let unusable = unusable_tls(desired).into_iter();
    unusable.filter_map(move |(service, index, error)| {
        let place = spans.health_check(&service, index);
        let message = format!("service {service}: a check by https cannot be made: {error}");
        let error = Diagnostic::error(&place, message).with_label("would never pass");
        let error = error.with_help("name a readable file with certificates in PEM as `ca_file`");
        places.insert((place.line(), place.column())).then_some(error)
    })
}

fn check_vip(
    service: &control::Service,
    spans: &SpanIndex,
    picture: &Picture,
) -> Option<Diagnostic> {
    let vip = service.vip;
    let help = owned::remedy(vip, picture)?;
    Some(
        Diagnostic::error(
            &spans.service_vip(&service.name),
            format!("the kernel of this node owns the VIP {vip}"),
        )
        .with_label("must not be an address of this node")
        .with_help(help),
    )
}

fn check_cpus(desired: &Desired, spans: &SpanIndex) -> Option<Diagnostic> {
    let usable = usable_cpus();
    let missing = desired.dataplane.cpus.iter().flatten().find(|cpu| !usable.contains(cpu))?;
    let usable: Vec<String> = usable.iter().map(u32::to_string).collect();
    Some(
        Diagnostic::error(
            &spans.dataplane("cpus"),
            format!("CPU {missing} does not exist or may not be used by this process"),
        )
        .with_label("workers cannot be pinned to it")
        .with_help(format!("usable: {}; or say `cpus = \"auto\"`", usable.join(", "))),
    )
}

fn check_interface(
    interface: &control::Interface,
    spans: &SpanIndex,
    picture: &Picture,
) -> Option<Diagnostic> {
    let name = &interface.name;
    let link = picture.links.get(name)?;
    if link.mtu > MAX_MTU {
        return Some(
            Diagnostic::error(
                &spans.interface(name),
                format!("interface {name} has an MTU of {} bytes, above {MAX_MTU}", link.mtu),
            )
            .with_label("its packets do not fit into a frame of 4096 bytes")
            .with_help(format!("lower it: `ip link set {name} mtu 1500`")),
        );
    }
    if let Some(refusal) = picture.layers.unsuitable(link.ifindex) {
        let place = spans.interface(name);
        return Some(
            Diagnostic::error(&place, refusal.what)
                .with_label(refusal.why)
                .with_help(refusal.remedy),
        );
    }
    let queues = xsk::rx_queues(name).unwrap_or(1);
    let missing = interface.queues.iter().flatten().find(|queue| **queue >= queues)?;
    Some(
        Diagnostic::error(
            &spans.interface_setting(name, "queues"),
            format!("interface {name} has no queue {missing}"),
        )
        .with_label(match queues {
            1 => "it has only queue 0".to_owned(),
            _ => format!("it has queues 0 to {}", queues - 1),
        })
        .with_help("name queues that exist, or say `queues = \"all\"`"),
    )
}

/// Every interface has such an IPv6 address: it identifies no network.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
