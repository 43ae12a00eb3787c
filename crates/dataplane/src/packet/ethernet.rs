//! The link layer: Ethernet II with up to two VLAN tags.

/// The EtherType behind the tags and everything after it.
///
/// `None` when a header is cut off. Behind a third tag the tag's own EtherType is returned.
pub(super) fn payload(frame: &[u8]) -> Option<([u8; 2], &[u8])> {
    let (header, mut rest) = frame.split_first_chunk::<HEADER>()?;
    let mut ethertype = [header[12], header[13]];
    for _ in 0..MAX_TAGS {
        if !matches!(ethertype, VLAN | PROVIDER_BRIDGE) {
            break;
        }
        let (tag, behind) = rest.split_first_chunk::<TAG>()?;
        ethertype = [tag[2], tag[3]];
        rest = behind;
    }
    Some((ethertype, rest))
}

/// Two addresses and an EtherType.
pub(super) const HEADER: usize = 14;
const TAG: usize = 4;
const MAX_TAGS: usize = 2;

pub(super) const IPV4: [u8; 2] = [0x08, 0x00];
pub(super) const ARP: [u8; 2] = [0x08, 0x06];
pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];
/// IEEE 802.1Q customer tag.
const VLAN: [u8; 2] = [0x81, 0x00];
/// IEEE 802.1ad service tag.
const PROVIDER_BRIDGE: [u8; 2] = [0x88, 0xa8];
