//! Devices that stand on a card and are configured in its place.

use std::fmt;

use anyhow::Result;
use lab::{Guest, Lab};

use super::vlan;

/// A device above `eth0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Above {
    /// VLAN 77, in which all clients and backends are.
    Vlan,
    /// A macvlan device in bridge mode.
    Macvlan,
    /// A bridge with the card as its only port.
    Bridge,
    /// An active-backup bond with the card as its only member.
    Bond,
}

impl Above {
    /// The device's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vlan => "eth0.77",
            Self::Macvlan => "mac0",
            Self::Bridge => "br0",
            Self::Bond => "bond0",
        }
    }

    /// Makes it, and moves the guest's addresses there.
    pub(crate) fn make(self, guest: &Guest, lab: &Lab) -> Result<()> {
        let mac = guest.mac().map(|byte| format!("{byte:02x}")).join(":");
        let command = match self {
            Self::Vlan => {
                "modprobe 8021q; ip link add link eth0 name eth0.77 type vlan id 77".into()
            }
            Self::Macvlan => format!(
                "modprobe macvlan; ip link set eth0 address 02:00:00:00:00:01\n\
                 ip link add link eth0 name mac0 address {mac} type macvlan mode bridge"
            ),
            Self::Bridge => format!(
                "modprobe bridge; ip link add br0 address {mac} type bridge\n\
                 ip link set eth0 master br0"
            ),
            Self::Bond => "modprobe bonding max_bonds=0; ip link set eth0 down\n\
                           ip link add bond0 numrxqueues 1 numtxqueues 1 type bond mode active-backup miimon 100\n\
                           ip link set eth0 master bond0"
                .into(),
        };
        guest.run(&format!("{command} && ip address flush dev eth0"))?;
        if self == Self::Vlan {
            vlan::move_all(lab)?;
        }
        Ok(guest.configure(lab, self.name())?)
    }
}

impl fmt::Display for Above {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vlan => "VLAN device",
            Self::Macvlan => "macvlan device",
            Self::Bridge => "bridge",
            Self::Bond => "bond",
        })
    }
}
