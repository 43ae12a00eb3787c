//! Where the adverts of an instance can come from.

use std::net::IpAddr;

use super::RawVrrp;
use crate::diagnostic::Diagnostic;
use crate::source::WithSpan;

/// Addresses in `source` and `peers` that no advert of this instance comes from. `vips` are those of
/// the instance, `first` is one of them.
pub(super) fn check<'a>(
    instance: &RawVrrp,
    first: &WithSpan<IpAddr>,
    vips: impl Iterator<Item = &'a WithSpan<IpAddr>> + Clone,
) -> Vec<Diagnostic> {
    let v4 = first.value.is_ipv4();
    let mut mistakes = Vec::new();
    let source = instance.source.at().map(|at| (at, "source", "this node's adverts"));
    let peers = instance.peers.iter().flatten().map(|at| (at, "peer", "its adverts"));
    for (address, what, whose) in source.into_iter().chain(peers) {
        let ip = address.value;
        if ip.is_ipv4() != v4 {
            let message = format!("the {what} {ip} is of another family than the VIPs");
            let error = Diagnostic::error(&address.span, message).with_label("cannot be heard");
            let help =
                format!("write the address that {whose} come from (IPv6: the link-local one)");
            mistakes.push(error.with_place(&first.span, "the first VIP").with_help(help));
        } else if let Some(vip) = vips.clone().find(|vip| vip.value == ip) {
            let message = format!("the {what} {ip} is a VIP of this instance");
            let error = Diagnostic::error(&address.span, message)
                .with_label("adverts never come from a VIP")
                .with_place(&vip.span, "the VIP");
            let help = format!("write the node's own address that {whose} come from");
            mistakes.push(error.with_help(help));
        }
    }
    mistakes.extend(own_peer(instance));
    if !v4 {
        mistakes.extend(scopes(instance));
    }
    mistakes
}

fn own_peer(instance: &RawVrrp) -> Option<Diagnostic> {
    let source = instance.source.at()?;
    let peer = instance.peers.iter().flatten().find(|peer| peer.value == source.value)?;
    let message = format!("the peer {} is the `source` of this node", peer.value);
    let error = Diagnostic::error(&peer.span, message).with_label("a node is not its own peer");
    Some(error.with_place(&source.span, "sent from here").with_help("list the other nodes only"))
}

/// All nodes send from the same kind of IPv6 address: link-local, unless `source` says otherwise.
fn scopes(instance: &RawVrrp) -> Vec<Diagnostic> {
    let link_local = |ip: IpAddr| match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip.is_unicast_link_local()),
    };
    let own = instance.source.at().map_or(Some(true), |source| link_local(source.value));
    let other = |peer: &&WithSpan<IpAddr>| {
        own.is_some() && link_local(peer.value).is_some_and(|kind| Some(kind) != own)
    };
    let refuse = |peer: &WithSpan<IpAddr>| {
        let (label, help) = if own == Some(true) {
            let help = "write its link-local address (`ip -6 address show scope link` there), or \
                        name on each node the address to send from as `source`";
            ("this node sends from a link-local address, and so does its peer", help)
        } else {
            ("this node's `source` is not link-local", "write the `source` of the other node")
        };
        let message = format!("no advert comes from the peer {}", peer.value);
        Diagnostic::error(&peer.span, message).with_label(label).with_help(help)
    };
    instance.peers.iter().flatten().filter(other).map(refuse).collect()
}
