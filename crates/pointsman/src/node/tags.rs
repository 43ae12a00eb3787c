//! What is said of devices whose frames come without their VLAN tag.

use crate::layers::Kind;

/// What an operator has to see to, lest frames cross into another VLAN. `reads_tags`: the XDP program
/// puts tags that came beside the frame into it.
pub(super) const fn warning(kind: Kind, reads_tags: bool) -> Option<&'static str> {
    if matches!(kind, Kind::Veth) && !reads_tags {
        Some(VETH)
    } else if kind.loses_tags() {
        Some(STACKED)
    } else {
        None
    }
}

/// The tag that the other end leaves to its "card" is nowhere in the frame, and the other end may be
/// in another network namespace: neither to be seen nor to be switched from here.
const VETH: &str = "a veth: frames with a VLAN tag arrive without it, and would leave in the \
    native VLAN, unless the other end puts it into the frame; if there are VLANs, say there: \
    `ethtool -K … txvlan off`";

/// The kernel takes the tag out of the frame on the device below, where other devices may need it.
const STACKED: &str = "a device on other devices: frames with a VLAN tag arrive without it, and would \
    leave in the native VLAN; if there are VLANs, keep them off its cable, or make a VLAN device on it \
    and name that one as interface (`ip link add link … name … type vlan id …`)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_that_loses_tags_is_named() {
        let bridge = Kind::Bridge { vlan_filtering: false };
        for kind in [Kind::MacVlan, Kind::Bond, Kind::Team, bridge] {
            assert_eq!(warning(kind, false), Some(STACKED), "{kind:?}");
        }
        assert_eq!(warning(Kind::Veth, false), Some(VETH));
        for (kind, reads_tags) in
            [(Kind::Veth, true), (Kind::Card, false), (Kind::Tap, false), (Kind::Vlan, false)]
        {
            assert_eq!(warning(kind, reads_tags), None, "{kind:?}");
        }
    }
}
