//! What is known of a backend's MAC address, and why a backend cannot be used.

use std::fmt;

use dataplane::Mac;

/// What the kernel says of a neighbour (`NUD_*`, `include/uapi/linux/neighbour.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// A MAC is known; it may be due for confirmation.
    Resolved(Mac),
    /// Asked, no answer yet; the MAC is the last one known, if there was one.
    Asking(Option<Mac>),
    /// Nobody answered.
    Failed,
    /// The kernel has no entry.
    Missing,
}

impl Neighbour {
    /// What to make of this state after `before`: the kernel asks again every few seconds what
    /// nobody answered, and until somebody does that is no news.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        match (before, self) {
            (Some(Self::Failed), Self::Asking(None)) => Self::Failed,
            _ => self,
        }
    }

    /// The MAC that frames may be sent to.
    pub fn mac(self) -> Option<Mac> {
        match self {
            Self::Resolved(mac) | Self::Asking(Some(mac)) => Some(mac).filter(|m| m.is_unicast()),
            Self::Asking(None) | Self::Failed | Self::Missing => None,
        }
    }
}

/// Why a backend gets no traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not on a network of a configured interface.
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
            Self::LinkDown(name) => write!(f, "interface {name} is down or missing"),
            Self::Resolving => f.write_str("MAC address not resolved yet"),
            Self::NoAnswer => f.write_str("no answer to ARP or neighbour solicitation"),
            Self::OwnMac => f.write_str("its MAC address is one of this node's"),
            Self::NoSlot => f.write_str("all backend slots are taken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_again_in_vain_is_no_news() {
        let asking = Neighbour::Asking(None);
        let resolved = Neighbour::Resolved(Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(asking.after(Some(Neighbour::Failed)), Neighbour::Failed);
        assert_eq!(asking.after(Some(Neighbour::Missing)), asking);
        assert_eq!(asking.after(None), asking);
        assert_eq!(resolved.after(Some(Neighbour::Failed)), resolved);
        assert_eq!(Neighbour::Missing.after(Some(Neighbour::Failed)), Neighbour::Missing);
    }
}
