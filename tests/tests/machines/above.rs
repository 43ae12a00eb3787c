//! Devices that stand on a card and are configured in its place.

use std::fmt;

use anyhow::Result;
use lab::{Contents, Guest, Lab};
use tests::vlan;

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
    /// A team with the card as its only port.
    Team,
}

impl Above {
    /// The device's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vlan => "eth0.77",
            Self::Macvlan => "mac0",
            Self::Bridge => "br0",
            Self::Bond => "bond0",
            Self::Team => "team0",
        }
    }

    /// What its guest needs: the ingress hook of kernels before 6.6, and for a team the tool that gives
    /// it a mode.
    pub(crate) fn contents(self) -> Contents {
        let (name, modules) = ("stack", vec!["sch_ingress", "cls_bpf"]);
        if self != Self::Team {
            return Contents { name, modules, ..Contents::default() };
        }
        Contents {
            name: "team",
            modules: [modules, vec!["team", "team_mode_activebackup"]].concat(),
            packages: vec![
                "libteam-utils",
                "libteam5",
                "libnl-3-200",
                "libnl-genl-3-200",
                "libnl-cli-3-200",
                "libnl-route-3-200",
                "libnl-nf-3-200",
            ],
            ..Contents::default()
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
            Self::Team => format!(
                "modprobe team; modprobe team_mode_activebackup; ip link set eth0 down\n\
                 ip link add team0 address {mac} numrxqueues 1 numtxqueues 1 type team\n\
                 export LD_LIBRARY_PATH=/packages/usr/lib/x86_64-linux-gnu:/packages/lib/x86_64-linux-gnu\n\
                 teamnl() {{ /packages/usr/bin/teamnl team0 setoption \"$@\"; }}\n\
                 teamnl mode activebackup && ip link set eth0 master team0 && \
                 teamnl activeport $(cat /sys/class/net/eth0/ifindex)\n\
                 unset LD_LIBRARY_PATH; ip link show dev eth0 | grep -q team0"
            ),
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
            Self::Team => "team",
        })
    }
}
