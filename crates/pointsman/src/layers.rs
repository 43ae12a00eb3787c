//! What kind of device an interface is and which devices it stands on: that decides in which mode
//! the XDP program sees its frames, and whether it sees them whole.

use std::collections::BTreeMap;
use std::fmt;

/// All links of the network namespace, by interface index.
#[derive(Debug, Default)]
pub struct Layers(pub BTreeMap<u32, Layer>);

/// One link among the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Kernel name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether it carries Ethernet frames.
    pub ethernet: bool,
    /// Index of the device that it is made on (`eth0@…`); of a veth, the peer.
    pub parent: Option<u32>,
    /// Whether that device is in another network namespace; then `parent` is none.
    pub parent_elsewhere: bool,
    /// Index of the bond, bridge or team that it is a port of.
    pub master: Option<u32>,
}

/// Kinds of devices that differ in what XDP sees of their frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A card, or anything else whose driver hands frames over as they were on the wire.
    #[default]
    Card,
    /// One end of a cable between two network namespaces.
    Veth,
    /// A tap device.
    Tap,
    /// What gets frames as the stack of this host had them: netkit, an internal port of Open vSwitch.
    Internal,
    /// One VLAN of another device.
    Vlan,
    /// A MAC address of its own on another device.
    MacVlan,
    /// A device without a MAC address of its own on another device.
    IpVlan,
    /// Several devices as one.
    Bond,
    /// Several devices as one.
    Team,
    /// A bridge; whether it keeps VLANs apart (`vlan_filtering`).
    Bridge {
        /// Whether its ports' VLANs are configured.
        vlan_filtering: bool,
    },
}

impl Kind {
    /// Whether its frames have come through another device's receive path before: XDP runs in
    /// generic mode only, behind what that device merged.
    pub const fn is_stacked(self) -> bool {
        match self {
            Self::Vlan | Self::MacVlan | Self::IpVlan | Self::Bond | Self::Team => true,
            Self::Bridge { .. } => true,
            Self::Card | Self::Veth | Self::Tap | Self::Internal => false,
        }
    }

    /// Where the VLAN tag of a frame is when XDP sees the frame.
    pub const fn tag_place(self) -> TagPlace {
        match self {
            // A VLAN device has one VLAN only: the tag that was taken out said so.
            Self::Card | Self::Tap | Self::Vlan => TagPlace::InFrame,
            Self::Veth | Self::Internal => TagPlace::FromSender,
            Self::MacVlan | Self::IpVlan | Self::Bond | Self::Team => TagPlace::TakenBelow,
            Self::Bridge { .. } => TagPlace::TakenBelow,
        }
    }

    /// Whether frames may come from senders on this very host, and so with a checksum that they left
    /// to a card. In generic mode that is so on any device, a virtual machine's card among them.
    pub const fn has_local_senders(self, generic: bool) -> bool {
        generic || matches!(self, Self::Veth | Self::Tap | Self::Internal)
    }

    /// For sentences.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Veth => "veth",
            Self::Tap => "tap device",
            Self::Internal => "virtual port",
            Self::Vlan => "VLAN device",
            Self::MacVlan => "macvlan",
            Self::IpVlan => "ipvlan",
            Self::Bond => "bond",
            Self::Team => "team",
            Self::Bridge { .. } => "bridge",
        }
    }
}

/// Where the VLAN tag of a frame is when XDP sees the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagPlace {
    /// In the frame, or it is no concern of this device.
    InFrame,
    /// Where the sender, in the stack of this host, left it: mostly beside the frame.
    FromSender,
    /// Beside the frame: the kernel took it out on the device below.
    TakenBelow,
}

/// Why an interface cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuitable {
    /// Which interface, and what is wrong with it.
    pub what: String,
    /// Why that matters.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why, remedy } = self;
        write!(f, "{what}: {why}; {remedy}")
    }
}

impl Layers {
    /// The kind of a device.
    pub fn kind(&self, ifindex: u32) -> Kind {
        self.0.get(&ifindex).map(|layer| layer.kind).unwrap_or_default()
    }

    /// The devices that the frames of this one come through: ports, parents, and theirs.
    pub fn below(&self, ifindex: u32) -> Vec<String> {
        let mut found = Vec::new();
        let mut seen = vec![ifindex];
        let mut next = 0;
        while let Some(&upper) = seen.get(next) {
            next += 1;
            for (index, layer) in &self.0 {
                if self.stands_on(upper, *index) && !seen.contains(index) {
                    seen.push(*index);
                    found.push(layer.name.clone());
                }
            }
        }
        found
    }

    /// The devices that this one is made of or on, by index and name: its ports, its parent.
    pub fn directly_below(&self, ifindex: u32) -> Vec<(u32, String)> {
        let below = self.0.iter().filter(|(index, _)| self.stands_on(ifindex, **index));
        below.map(|(index, layer)| (*index, layer.name.clone())).collect()
    }

    /// The other end of a veth, if it is in this network namespace.
    pub fn peer(&self, ifindex: u32) -> Option<&str> {
        let veth = self.0.get(&ifindex).filter(|layer| layer.kind == Kind::Veth)?;
        Some(self.0.get(&veth.parent?)?.name.as_str())
    }

    /// The bond, team or bridge that the device is a port of: what the device receives and XDP leaves to
    /// the kernel is that one's. A VRF is no such master.
    pub fn master(&self, ifindex: u32) -> Option<&str> {
        let master = self.0.get(&self.0.get(&ifindex)?.master?)?;
        let takes = matches!(master.kind, Kind::Bond | Kind::Team | Kind::Bridge { .. });
        takes.then_some(master.name.as_str())
    }

    /// Why the device cannot be served, whatever its driver can do.
    pub fn unsuitable(&self, ifindex: u32) -> Option<Unsuitable> {
        let Layer { name, kind, ethernet, .. } = self.0.get(&ifindex)?;
        if !ethernet {
            return Some(Unsuitable {
                what: format!("interface {name} does not carry Ethernet frames"),
                why: "direct routing rewrites MAC addresses".to_owned(),
                remedy: "name the Ethernet interface that the backends are connected to".to_owned(),
            });
        }
        if *kind == Kind::IpVlan {
            return Some(Unsuitable {
                what: format!("interface {name} is an ipvlan"),
                why: "it gets frames for its own addresses only, and a VIP is not one of them"
                    .to_owned(),
                remedy: "use a macvlan, or the device below it".to_owned(),
            });
        }
        (*kind == Kind::Bridge { vlan_filtering: true }).then(|| Unsuitable {
            what: format!("interface {name} is a bridge that tells VLANs apart"),
            why: "XDP on it sees frames of all VLANs untagged: they would cross into this one"
                .to_owned(),
            remedy: format!(
                "make a VLAN device on it and name that one (`ip link add link {name} name {name}.1 \
                 type vlan id 1`)"
            ),
        })
    }

    /// Whether frames of `upper` come through the device at `index`.
    fn stands_on(&self, upper: u32, index: u32) -> bool {
        let port = self.0.get(&index).and_then(|layer| layer.master) == Some(upper);
        let parent = self.0.get(&upper).is_some_and(|layer| {
            let made_on = matches!(layer.kind, Kind::Vlan | Kind::MacVlan | Kind::IpVlan);
            made_on && layer.parent == Some(index)
        });
        port || parent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, kind: Kind) -> Layer {
        Layer { name: name.to_owned(), kind, ethernet: true, ..Layer::default() }
    }

    /// eth0 and eth1 in bond0 with bond0.77 and, on that, mac0; br0 with veth9; wg0; ipv0.
    fn layers() -> Layers {
        let port = |name, kind, master| Layer { master: Some(master), ..layer(name, kind) };
        let on = |name, kind, parent| Layer { parent: Some(parent), ..layer(name, kind) };
        Layers(BTreeMap::from([
            (2, port("eth0", Kind::Card, 4)),
            (3, port("eth1", Kind::Card, 4)),
            (4, layer("bond0", Kind::Bond)),
            (5, on("bond0.77", Kind::Vlan, 4)),
            (6, on("mac0", Kind::MacVlan, 5)),
            (7, layer("br0", Kind::Bridge { vlan_filtering: false })),
            (8, Layer { parent: Some(3), ..port("veth9", Kind::Veth, 7) }),
            (9, Layer { ethernet: false, ..layer("wg0", Kind::Card) }),
            (10, on("ipv0", Kind::IpVlan, 2)),
            (11, layer("br1", Kind::Bridge { vlan_filtering: true })),
        ]))
    }

    #[test]
    fn frames_come_through_ports_and_parents_but_not_through_a_veths_peer() {
        let below = |index| layers().below(index);
        assert_eq!(below(2), [""; 0]);
        assert_eq!(below(4), ["eth0", "eth1"]);
        assert_eq!(below(6), ["bond0.77", "bond0", "eth0", "eth1"]);
        assert_eq!(below(7), ["veth9"]);
        assert_eq!(below(8), [""; 0]);
        assert_eq!(below(99), [""; 0]);
    }

    #[test]
    fn a_ring_of_devices_ends() {
        let on = |name, parent| Layer { parent: Some(parent), ..layer(name, Kind::Vlan) };
        let ring = Layers(BTreeMap::from([(1, on("a", 2)), (2, on("b", 1)), (3, on("c", 3))]));
        assert_eq!(ring.below(1), ["b"]);
        assert_eq!(ring.below(3), [""; 0]);
    }

    #[test]
    fn what_a_device_stands_on_is_where_its_frames_come_from() {
        let below = |index| layers().directly_below(index);
        assert_eq!(below(4), [(2, "eth0".to_owned()), (3, "eth1".to_owned())]);
        assert_eq!(below(6), [(5, "bond0.77".to_owned())]);
        assert_eq!(below(8), []);
        assert_eq!(layers().peer(8), Some("eth1"));
        assert_eq!(layers().peer(6), None);
        assert_eq!(layers().master(8), Some("br0"));
        assert_eq!(layers().master(4), None);
        let mut vrf = layers();
        vrf.0.insert(7, layer("vrf0", Kind::Card));
        assert_eq!(vrf.master(8), None);
    }

    #[test]
    fn what_can_never_be_served_is_refused() {
        let what = |index| layers().unsuitable(index).map(|refusal| refusal.what);
        for suitable in [2, 3, 4, 5, 6, 7, 8, 99] {
            assert_eq!(what(suitable), None, "{suitable}");
        }
        assert!(what(9).is_some_and(|what| what.contains("Ethernet")));
        assert!(what(10).is_some_and(|what| what.contains("ipvlan")));
        assert!(what(11).is_some_and(|what| what.contains("tells VLANs apart")));
    }
}
