//! Checks between services: VIPs and ports that overlap, and packets that would loop.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use control::ClosedPorts;

use crate::diagnostic::Diagnostic;
use crate::ports::Ports;
use crate::service::RawService;
use crate::source::WithSpan;

/// Services that claim the same VIP, protocol and port. For each service the claim with which it
/// collides first.
pub(crate) fn claims(services: &[RawService]) -> Vec<Diagnostic> {
    let mut earlier: BTreeMap<_, Vec<(&RawService, &WithSpan<Ports>)>> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for service in services {
        let (Some(vip), Some(protocol), Some(ports)) =
            (&service.vip, service.protocol, &service.ports)
        else {
            continue;
        };
        let claimed = earlier.entry((vip.value, protocol)).or_default();
        let rival = claimed.iter().find(|(_, theirs)| {
            ports.value.first <= theirs.value.last && theirs.value.first <= ports.value.last
        });
        if let Some((other, theirs)) = rival {
            let shared = Ports {
                first: ports.value.first.max(theirs.value.first),
                last: ports.value.last.min(theirs.value.last),
            };
            let message = format!(
                "service{} claims {} {} {shared}, which service{} has",
                service.title(),
                vip.value,
                protocol.name(),
                other.title()
            );
            mistakes.push(
                Diagnostic::error(&ports.span, message)
                    .with_label("claimed again here")
                    .with_place(&theirs.span, "first used here")
                    .with_help("give one of them another `vip`, `protocol` or `port`"),
            );
        }
        claimed.push((service, ports));
    }
    mistakes
}

/// Services of one VIP that want packets to its closed ports treated in different ways. Where it is
/// not written, the default counts.
pub(crate) fn closed_ports(services: &[RawService]) -> Vec<Diagnostic> {
    let mut first: BTreeMap<IpAddr, &RawService> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for service in services {
        let (Some(vip), Some(wanted)) = (&service.vip, closed_ports_of(service)) else { continue };
        let earlier = *first.entry(vip.value).or_insert(service);
        if closed_ports_of(earlier).is_none_or(|other| other == wanted) {
            continue;
        }
        let here = service.closed_ports.at().or_else(|| earlier.closed_ports.at());
        let span = here.map_or(&vip.span, |written| &written.span);
        let message = format!("services of the VIP {} differ in `closed_ports`", vip.value);
        let error = Diagnostic::error(span, message).with_label("a closed port has no service");
        let error = error.with_place(&earlier.header, "the VIP is first used here");
        mistakes.push(error.with_help("write the same `closed_ports` in all services of the VIP"));
    }
    mistakes
}

/// `None`: wrong, which was reported.
fn closed_ports_of(service: &RawService) -> Option<ClosedPorts> {
    service.closed_ports.or(ClosedPorts::default())
}

/// Backends and fallbacks whose address is a VIP, the own one or another's.
pub(crate) fn loops(services: &[RawService]) -> Vec<Diagnostic> {
    let vips = vips(services);
    let mut mistakes = Vec::new();
    for service in services {
        for backend in service.hosts() {
            let Some(address) = &backend.address else { continue };
            let own = service.vip.as_ref().filter(|vip| vip.value == address.value);
            let Some(vip) = own.or_else(|| vips.get(&address.value).copied()) else { continue };
            let name =
                backend.name.as_ref().map_or_else(String::new, |name| format!(" `{}`", name.value));
            let message = format!("backend{name} has a VIP as its own address");
            let help = "write the address that the backend's own interface has; \
                        it has the VIP on its loopback interface besides";
            mistakes.push(
                Diagnostic::error(&address.span, message)
                    .with_label("packets would loop")
                    .with_place(&vip.span, "VIP set here")
                    .with_help(help),
            );
        }
    }
    mistakes
}

/// Metrics on a VIP: the kernel never owns one, so nothing could listen there.
pub(crate) fn metrics_on_vip(
    services: &[RawService],
    listen: &WithSpan<Option<SocketAddr>>,
) -> Option<Diagnostic> {
    let vip = vips(services).get(&listen.value?.ip()).copied()?;
    let error = Diagnostic::error(&listen.span, "metrics cannot be served on a VIP");
    let error = error.with_label("the kernel does not have this address");
    let error = error.with_place(&vip.span, "VIP set here");
    Some(error.with_help("write an address of this node, such as `127.0.0.1:9477`"))
}

/// Each VIP where it is first used.
fn vips(services: &[RawService]) -> BTreeMap<IpAddr, &WithSpan<IpAddr>> {
    let vips = services.iter().rev().filter_map(|service| service.vip.as_ref());
    vips.map(|vip| (vip.value, vip)).collect()
}
