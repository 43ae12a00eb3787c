//! What VRRP needs of the machine: an address to send adverts from.

use std::net::IpAddr;

use config::{Desired, Diagnostic, SpanIndex};
use control::Network;

use crate::netlink::Picture;

/// The node's own address that speaks for `vips`: of their family, and for IPv6 the link-local one
/// (RFC 9568 §5.1.2.1).
pub(super) fn primary(networks: &[Network], vips: &[IpAddr]) -> Option<IpAddr> {
    let v4 = vips.first().is_some_and(IpAddr::is_ipv4);
    let own = networks.iter().map(|network| network.address);
    own.filter(|ip| !vips.contains(ip)).find(|ip| match ip {
        IpAddr::V4(_) => v4,
        IpAddr::V6(ip) => !v4 && ip.is_unicast_link_local(),
    })
}

/// What is wrong with an instance on this machine. An interface or an address that is missing may come
/// later.
pub(super) fn check_vrrp(
    desired: &Desired,
    wanted: &control::Vrrp,
    spans: &SpanIndex,
    picture: &Picture,
) -> Option<Diagnostic> {
    let control::Vrrp { name, interface, peers, .. } = wanted;
    let link = picture.links.get(interface)?;
    let networks = picture.networks.get(&link.ifindex).map(Vec::as_slice).unwrap_or_default();
    let vips = desired.vips_of(name);
    let own = primary(networks, &vips)?;
    peers.contains(&own).then(|| {
        Diagnostic::error(
            &spans.vrrp_setting(name, "peers"),
            format!("{own} is this node's own address on {interface}"),
        )
        .with_label("a node is not its own peer")
        .with_help(format!("list the other nodes only: remove \"{own}\""))
    })
}
