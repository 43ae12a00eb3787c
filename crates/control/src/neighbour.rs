//! What is known of a backend's MAC address, and why a backend cannot be used.

use std::fmt;

use dataplane::Mac;

/// What the kernel says of a neighbour (`NUD_*`, `include/uapi/linux/neighbour.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// An administrator entered the MAC (`NUD_PERMANENT`, `NUD_NOARP`): it is never resolved.
    Static(Mac),
    /// A MAC is known; it may be due for confirmation.
    Resolved(Mac),
    /// Asked, no answer yet (`NUD_INCOMPLETE`); the MAC is the last one known, if there was one.
    Asking(Option<Mac>),
    /// No host answered (`NUD_FAILED`), or the entry is being deleted.
    Failed,
    /// The kernel has no entry.
    Missing,
}

impl Neighbour {
    /// The MAC that frames may be sent to.
    pub fn mac(self) -> Option<Mac> {
        match self {
            Self::Static(mac) | Self::Resolved(mac) | Self::Asking(Some(mac)) => {
                Some(mac).filter(|m| m.is_unicast())
            }
            Self::Asking(None) | Self::Failed | Self::Missing => None,
        }
    }
}

/// Why a backend gets no traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The kernel does not reach it on-link by a configured interface.
    OffLink,
    /// The interface towards it is missing or down.
    LinkDown(String),
    /// Its MAC is not known yet.
    Resolving,
    /// It does not answer ARP or neighbour solicitations.
    NoAnswer,
    /// Its MAC is one of ours.
    OwnMac,
    /// All backend slots are taken.
    NoSlot,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OffLink => f.write_str("not on a network of a configured interface"),
            Self::LinkDown(name) => write!(f, "interface {name} has no link"),
            Self::Resolving => f.write_str("MAC address not resolved yet"),
            Self::NoAnswer => f.write_str("no answer to ARP or neighbour solicitation"),
            Self::OwnMac => f.write_str("its MAC address is one of this node's"),
            Self::NoSlot => f.write_str("all backend slots are taken"),
        }
    }
}
