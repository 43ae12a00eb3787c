//! What messages of the kernel say.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink enums have dozens of variants that do not concern us"
)]

use std::net::IpAddr;

use control::{Link, Neighbour, Network};
use dataplane::Mac;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::link::{
    InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use crate::layers::{Kind, Layer};

/// A notification.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// Links or addresses changed: read them anew.
    Links,
    /// Routes or rules changed: look them up anew.
    Routes,
    /// A neighbour changed.
    Neighbour(Entry),
    /// A neighbour's entry was deleted: nothing resolves it any more.
    Forgotten(u32, IpAddr),
    /// Messages were lost, and more may be: subscribe anew, then read everything.
    Overrun,
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its interface.
    pub ifindex: u32,
    /// Whose MAC it holds.
    pub address: IpAddr,
    /// What the kernel knows.
    pub neighbour: Neighbour,
    /// Whether the kernel keeps it resolved by itself (`NTF_EXT_MANAGED`, Linux 5.16).
    pub managed: bool,
}

/// What a notification says, if it matters to us.
pub fn notice_of(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Notice> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Notice::Overrun),
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewLink(_)
        | RouteNetlinkMessage::DelLink(_)
        | RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_) => Some(Notice::Links),
        RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_)
        | RouteNetlinkMessage::NewRule(_)
        | RouteNetlinkMessage::DelRule(_) => Some(Notice::Routes),
        RouteNetlinkMessage::NewNeighbour(message) => entry_of(message).map(Notice::Neighbour),
        RouteNetlinkMessage::DelNeighbour(message) => {
            entry_of(message).map(|entry| Notice::Forgotten(entry.ifindex, entry.address))
        }
        _ => None,
    }
}

/// Name, link, and whether it is set up.
pub(super) fn link_of(message: &LinkMessage) -> Option<(String, Link, bool)> {
    let mut name = None;
    let mut mac = Mac::default();
    let mut mtu = 1500;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(bytes) => mac = mac_of(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(value) => mtu = *value,
            _ => {}
        }
    }
    let flags = message.header.flags;
    let admin_up = flags.contains(LinkFlags::Up);
    let up = admin_up && flags.contains(LinkFlags::LowerUp);
    Some((name?, Link { ifindex: message.header.index, mac, up, mtu }, admin_up))
}

pub(super) fn layer_of(name: &str, message: &LinkMessage) -> Layer {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut layer = Layer { name: name.to_owned(), ethernet, ..Layer::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => layer.parent = Some(*index),
            LinkAttribute::Controller(index) => layer.master = Some(*index),
            LinkAttribute::LinkInfo(info) => layer.kind = kind_of(info),
            LinkAttribute::LinkNetNsId(_) => layer.parent_elsewhere = true,
            _ => {}
        }
    }
    // Its index means nothing here.
    if layer.parent_elsewhere {
        layer.parent = None;
    }
    layer
}

fn kind_of(info: &[LinkInfo]) -> Kind {
    let vlan_filtering = info.iter().any(|entry| {
        let LinkInfo::Data(InfoData::Bridge(settings)) = entry else { return false };
        settings.contains(&InfoBridge::VlanFiltering(true))
    });
    let kind = info.iter().find_map(|entry| match entry {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        Some(InfoKind::Veth) => Kind::Veth,
        Some(InfoKind::Tun) => Kind::Tap,
        Some(InfoKind::Netkit) => Kind::Internal,
        Some(InfoKind::Other(name)) if name == "openvswitch" => Kind::Internal,
        Some(InfoKind::Vlan) => Kind::Vlan,
        Some(InfoKind::MacVlan | InfoKind::MacVtap) => Kind::MacVlan,
        Some(InfoKind::IpVlan | InfoKind::IpVtap) => Kind::IpVlan,
        Some(InfoKind::Bond) => Kind::Bond,
        Some(InfoKind::Team) => Kind::Team,
        Some(InfoKind::Bridge) => Kind::Bridge { vlan_filtering },
        _ => Kind::Card,
    }
}

pub(super) fn network_of(message: &AddressMessage) -> Option<Network> {
    // On a point-to-point link `Address` is the peer's and `Local` is ours.
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => address = Some(*ip),
            AddressAttribute::Address(ip) => address = address.or(Some(*ip)),
            _ => {}
        }
    }
    Some(Network { address: address?, prefix: message.header.prefix_len })
}

/// Whether duplicate address detection (RFC 4862 §5.4) holds an address back. An optimistic one may
/// be used meanwhile (RFC 4429).
pub(super) fn is_tentative(message: &AddressMessage) -> bool {
    let wide = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    match wide {
        Some(flags) => {
            flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic)
        }
        None => message.header.flags.contains(AddressHeaderFlags::Tentative),
    }
}

pub(super) fn entry_of(message: &NeighbourMessage) -> Option<Entry> {
    let mut address = None;
    let mut mac = None;
    let mut managed = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = mac_of(bytes),
            NeighbourAttribute::ExtFlags(flags) => {
                managed = flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    let neighbour = match (message.header.state, mac) {
        (NeighbourState::Failed, _) => Neighbour::Failed,
        (NeighbourState::Incomplete, mac) => Neighbour::Asking(mac),
        (NeighbourState::None, _) | (_, None) => Neighbour::Missing,
        (NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => Neighbour::Static(mac),
        (_, Some(mac)) => Neighbour::Resolved(mac),
    };
    Some(Entry { ifindex: message.header.ifindex, address: address?, neighbour, managed })
}

/// The interface that a route leads to, if it does so without a gateway.
pub(super) fn on_link(message: &RouteMessage) -> Option<u32> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => return None,
            RouteAttribute::Oif(ifindex) => interface = Some(*ifindex),
            _ => {}
        }
    }
    interface
}

fn mac_of(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteAddress;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn neighbour(state: NeighbourState, mac: Option<[u8; 6]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 7;
        message.header.state = state;
        let address = NeighbourAddress::Inet([192, 0, 2, 1].into());
        message.attributes.push(NeighbourAttribute::Destination(address));
        message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.into())));
        message
    }

    #[test]
    fn what_an_administrator_entered_is_told_apart_from_what_was_learned() {
        let mac = Mac(MAC);
        let cases = [
            (NeighbourState::Permanent, Some(MAC), Neighbour::Static(mac)),
            (NeighbourState::Noarp, Some(MAC), Neighbour::Static(mac)),
            (NeighbourState::Reachable, Some(MAC), Neighbour::Resolved(mac)),
            (NeighbourState::Stale, Some(MAC), Neighbour::Resolved(mac)),
            (NeighbourState::Probe, Some(MAC), Neighbour::Resolved(mac)),
            (NeighbourState::Incomplete, None, Neighbour::Asking(None)),
            (NeighbourState::Incomplete, Some(MAC), Neighbour::Asking(Some(mac))),
            (NeighbourState::Failed, Some(MAC), Neighbour::Failed),
            (NeighbourState::None, Some(MAC), Neighbour::Missing),
            // A tunnel's entries have no MAC.
            (NeighbourState::Noarp, None, Neighbour::Missing),
        ];
        for (state, mac, expected) in cases {
            let entry = entry_of(&neighbour(state, mac)).unwrap();
            assert_eq!(entry.neighbour, expected, "{state:?}");
        }
    }

    #[test]
    fn a_route_counts_without_a_gateway_only() {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(3));
        assert_eq!(on_link(&message), Some(3));
        message.header.kind = RouteType::Local;
        assert_eq!(on_link(&message), None, "an address of this node");
        message.header.kind = RouteType::Unicast;
        let gateway = RouteAddress::Inet([192, 0, 2, 254].into());
        message.attributes.push(RouteAttribute::Gateway(gateway));
        assert_eq!(on_link(&message), None);
    }

    #[test]
    fn lost_messages_are_told() {
        assert_eq!(notice_of(&NetlinkPayload::Overrun(Vec::new())), Some(Notice::Overrun));
        assert_eq!(notice_of(&NetlinkPayload::Noop), None);
    }
}
