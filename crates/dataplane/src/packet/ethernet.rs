//! The link layer: Ethernet II with up to two VLAN tags.

/// The EtherType behind the tags and everything after it.
///
/// `None` when a header is cut off. Behind a third tag the tag's own EtherType is returned.
#[inline(always)]
pub(super) fn payload(frame: &[u8]) -> Option<(u16, &[u8])> {
    let (header, mut rest) = frame.split_first_chunk::<HEADER>()?;
    let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
    for _ in 0..MAX_TAGS {
        if !matches!(ethertype, VLAN | PROVIDER_BRIDGE) {
            break;
        }
        let (tag, behind) = rest.split_first_chunk::<TAG>()?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        rest = behind;
    }
    Some((ethertype, rest))
}

/// Two addresses and an EtherType.
pub(super) const HEADER: usize = 14;
const TAG: usize = 4;
const MAX_TAGS: usize = 2;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q customer tag.
const VLAN: u16 = 0x8100;
/// IEEE 802.1ad service tag.
const PROVIDER_BRIDGE: u16 = 0x88a8;
