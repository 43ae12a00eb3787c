//! What VRRP needs of the machine: an address to send adverts from.

use std::net::IpAddr;

use config::{Desired, Diagnostic, SpanIndex};
use control::Network;

use crate::netlink::Picture;

/// The node's own address that speaks for `vips`: `source` if one is configured, else the first one
/// of their family, for IPv6 the link-local one (RFC 9568 §5.1.2.1).
pub(super) fn primary(
    networks: &[Network],
    vips: &[IpAddr],
    source: Option<IpAddr>,
) -> Option<IpAddr> {
    let v4 = vips.first().is_some_and(IpAddr::is_ipv4);
    let mut own = networks.iter().map(|network| network.address);
    if let Some(source) = source {
        return own.find(|ip| *ip == source);
    }
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
    let control::Vrrp { name, interface, .. } = wanted;
    let link = picture.links.get(interface)?;
    let networks = picture.networks.get(&link.ifindex).map(Vec::as_slice).unwrap_or_default();
    let vips = desired.vips_of(name);
    let own = primary(networks, &vips, wanted.source)?;
    own_peer(wanted, own, spans, picture)
}

/// A peer that is an address of this node, whichever interface has it.
fn own_peer(
    wanted: &control::Vrrp,
    own: IpAddr,
    spans: &SpanIndex,
    picture: &Picture,
) -> Option<Diagnostic> {
    let control::Vrrp { name, interface, peers, .. } = wanted;
    let mut local = picture.networks.values().flatten().map(|network| network.address);
    let mistaken = local.find(|address| peers.contains(address))?;
    let (message, help) = if mistaken == own {
        let message = format!("{own} is this node's own address on {interface}");
        (message, format!("list the other nodes only: remove \"{own}\""))
    } else {
        let message = format!("{mistaken} is an address of this node, which sends from {own}");
        let help = format!(
            "list the address that the other node's adverts come from; to send from {mistaken}, \
             say `source = \"{mistaken}\"`"
        );
        (message, help)
    };
    let error = Diagnostic::error(&spans.vrrp_setting(name, "peers"), message);
    Some(error.with_label("a node is not its own peer").with_help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network { address: text.parse().unwrap(), prefix: 24 }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn adverts_come_from_the_first_address_unless_a_source_is_named() {
        let networks = ["192.0.2.2", "192.0.2.9", "2001:db8::2", "fe80::2"].map(network);
        for (vip, source, expected) in [
            ("192.0.2.10", None, Some("192.0.2.2")),
            ("192.0.2.2", None, Some("192.0.2.9")),
            ("192.0.2.10", Some("192.0.2.9"), Some("192.0.2.9")),
            ("192.0.2.10", Some("192.0.2.8"), None),
            ("2001:db8::10", None, Some("fe80::2")),
            ("2001:db8::10", Some("2001:db8::2"), Some("2001:db8::2")),
        ] {
            let found = primary(&networks, &[ip(vip)], source.map(ip));
            assert_eq!(found, expected.map(ip), "{vip} {source:?}");
        }
    }

    #[test]
    fn a_peer_that_is_an_address_of_this_node_is_refused() {
        let text = |peer: &str| {
            format!(
                "[[interface]]\nname = \"eth0\"\n[[vrrp]]\nname = \"VI_1\"\ninterface = \"eth0\"\n\
                 vrid = 7\npeers = [\"{peer}\"]\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\n\
                 vrrp = \"VI_1\"\nport = 80\n[[service.backend]]\nname = \"rs1\"\n\
                 address = \"192.0.2.11\"\n"
            )
        };
        let mut picture = Picture::default();
        let link =
            control::Link { ifindex: 2, mac: dataplane::Mac::default(), up: true, mtu: 1500 };
        picture.links.insert("eth0".to_owned(), link);
        picture.networks.insert(2, vec![network("192.0.2.2"), network("192.0.2.9")]);
        picture.networks.insert(3, vec![network("198.51.100.2")]);
        for (peer, message) in [
            ("192.0.2.3", None),
            ("192.0.2.2", Some("this node's own address")),
            ("192.0.2.9", Some("which sends from 192.0.2.2")),
            ("198.51.100.2", Some("which sends from 192.0.2.2")),
        ] {
            let parsed = config::parse("test.toml", &text(peer)).expect("a sound configuration");
            let desired = &parsed.desired;
            let found = check_vrrp(desired, &desired.vrrp[0], &parsed.spans, &picture);
            let found = found.map(|mistake| mistake.message().to_owned());
            assert_eq!(found.is_some(), message.is_some(), "{peer}: {found:?}");
            assert!(found.is_none_or(|found| found.contains(message.unwrap())), "{peer}");
        }
    }
}
