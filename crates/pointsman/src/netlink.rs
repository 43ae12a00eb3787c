//! What the kernel knows of links, addresses and neighbours.
//!
//! A message about a link or an address is only a hint that something changed: the state is then
//! read anew, so that a lost message costs time but never leaves a wrong picture. Neighbour
//! messages are used as they come, for a new MAC must be in use at once.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink enums have dozens of variants that do not concern us"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use control::{Link, Neighbour, Network};
use dataplane::Mac;
use futures_util::stream::TryStreamExt;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use steer::KernelVersion;
use tracing::debug;

use crate::layers::{Kind, Layer, Layers};

/// A netlink socket for requests and one for notifications.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    /// Whether the kernel keeps neighbours resolved by itself (`NTF_EXT_MANAGED`).
    managed: bool,
}

/// A notification.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// Links or addresses changed: read them anew.
    Changed,
    /// A neighbour changed.
    Neighbour(u32, IpAddr, Neighbour),
    /// A neighbour's entry was deleted: nobody asks for it any more.
    Forgotten(u32, IpAddr),
}

/// Notifications, in order.
pub type Notices = futures_util::stream::BoxStream<
    'static,
    rtnetlink::packet_core::NetlinkMessage<RouteNetlinkMessage>,
>;

/// All links by name, and the networks on each by interface index.
#[derive(Debug, Default)]
pub struct Picture {
    /// By kernel name.
    pub links: BTreeMap<String, Link>,
    /// By interface index.
    pub networks: BTreeMap<u32, Vec<Network>>,
    /// What is made of what, by interface index.
    pub layers: Layers,
    /// Names of links that were not set up (`ip link set … up`).
    pub down: BTreeSet<String>,
}

impl Netlink {
    /// Opens the sockets and subscribes; must run inside the control runtime.
    ///
    /// # Errors
    /// What the kernel answers to socket(2) and bind(2).
    pub fn open() -> Result<(Self, Notices)> {
        let (connection, handle, messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])
        .context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        let notices = futures_util::StreamExt::map(messages, |(message, _)| message);
        // An older kernel ignores the flag and says that all is well.
        let managed = KernelVersion::running().is_none_or(|version| version >= MANAGED_SINCE);
        Ok((Self { handle, managed }, Box::pin(notices)))
    }

    /// Reads all links and addresses.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn picture(&self) -> Result<Picture> {
        let mut picture = Picture::default();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.context("cannot list interfaces")? {
            if let Some((name, link)) = link_of(&message) {
                picture.layers.0.insert(link.ifindex, layer_of(&name, &message));
                if !message.header.flags.contains(LinkFlags::Up) {
                    picture.down.insert(name.clone());
                }
                picture.links.insert(name, link);
            }
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.context("cannot list addresses")? {
            if let Some(network) = network_of(&message) {
                picture.networks.entry(message.header.index).or_default().push(network);
            }
        }
        Ok(picture)
    }

    /// Reads all neighbours: (interface index, address, state).
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn neighbours(&self) -> Result<Vec<(u32, IpAddr, Neighbour)>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut entries = self.handle.neighbours().get().set_address_family(family).execute();
            while let Some(message) = entries.try_next().await.context("cannot list neighbours")? {
                found.extend(neighbour_of(&message));
            }
        }
        Ok(found)
    }

    /// Has the kernel resolve a neighbour and keep it resolved; where it cannot keep it, the call
    /// must be repeated every 5 s.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn resolve(&mut self, ifindex: u32, address: IpAddr) -> Result<()> {
        if self.managed {
            let mut request = self.handle.neighbours().add(ifindex, address).replace();
            let message = request.message_mut();
            message.header.state = NeighbourState::None;
            message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
            match request.execute().await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    debug!(%address, %error, "no managed neighbours, falling back to NTF_USE");
                    self.managed = false;
                }
            }
        }
        self.handle
            .neighbours()
            .add(ifindex, address)
            .replace()
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .execute()
            .await
            .with_context(|| format!("cannot resolve neighbour {address}"))
    }

    /// Whether [`Self::resolve`] needs no repetition.
    pub fn keeps_resolved(&self) -> bool {
        self.managed
    }

    /// Stops keeping a neighbour resolved: the entry goes, the kernel makes a new one on demand.
    pub async fn release(&self, ifindex: u32, address: IpAddr) {
        let request = self.handle.neighbours().add(ifindex, address);
        let mut message = NeighbourMessage::default();
        message.header = {
            let mut request = request;
            request.message_mut().header.clone()
        };
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
        if let Err(error) = self.handle.neighbours().del(message).execute().await {
            debug!(%address, %error, "neighbour entry was gone already");
        }
    }
}

/// What a notification says, if it matters to us.
pub fn notice_of(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Notice> {
    let NetlinkPayload::InnerMessage(message) = payload else { return None };
    match message {
        RouteNetlinkMessage::NewLink(_)
        | RouteNetlinkMessage::DelLink(_)
        | RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_) => Some(Notice::Changed),
        RouteNetlinkMessage::NewNeighbour(entry) => {
            let (ifindex, address, neighbour) = neighbour_of(entry)?;
            Some(Notice::Neighbour(ifindex, address, neighbour))
        }
        RouteNetlinkMessage::DelNeighbour(entry) => {
            let (ifindex, address, _) = neighbour_of(entry)?;
            Some(Notice::Forgotten(ifindex, address))
        }
        _ => None,
    }
}

fn link_of(message: &LinkMessage) -> Option<(String, Link)> {
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
    let up = flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp);
    Some((name?, Link { ifindex: message.header.index, mac, up, mtu }))
}

fn layer_of(name: &str, message: &LinkMessage) -> Layer {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut layer = Layer { name: name.to_owned(), ethernet, ..Layer::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => layer.parent = Some(*index),
            LinkAttribute::Controller(index) => layer.master = Some(*index),
            LinkAttribute::LinkInfo(info) => layer.kind = kind_of(info),
            _ => {}
        }
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
        Some(InfoKind::Vlan) => Kind::Vlan,
        Some(InfoKind::MacVlan | InfoKind::MacVtap) => Kind::MacVlan,
        Some(InfoKind::IpVlan | InfoKind::IpVtap) => Kind::IpVlan,
        Some(InfoKind::Bond) => Kind::Bond,
        Some(InfoKind::Team) => Kind::Team,
        Some(InfoKind::Bridge) => Kind::Bridge { vlan_filtering },
        _ => Kind::Card,
    }
}

fn network_of(message: &AddressMessage) -> Option<Network> {
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

fn neighbour_of(message: &NeighbourMessage) -> Option<(u32, IpAddr, Neighbour)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = mac_of(bytes),
            _ => {}
        }
    }
    let state = match (message.header.state, mac) {
        (NeighbourState::Failed, _) => Neighbour::Failed,
        (NeighbourState::Incomplete, mac) => Neighbour::Asking(mac),
        (NeighbourState::None, _) | (_, None) => Neighbour::Missing,
        (_, Some(mac)) => Neighbour::Resolved(mac),
    };
    Some((message.header.ifindex, address?, state))
}

fn mac_of(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

/// The kernel that `NTF_EXT_MANAGED` came with.
const MANAGED_SINCE: KernelVersion = KernelVersion { major: 5, minor: 16 };
