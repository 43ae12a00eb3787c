//! The only bytes that forwarding changes: the two Ethernet addresses.

use super::ethernet;
use crate::addr::Mac;

/// Writes destination and source address (in this order) over those of the frame.
///
/// Returns whether the frame was long enough; one that is not stays as it was.
#[inline]
pub fn rewrite_macs(frame: &mut [u8], header: &[u8; 12]) -> bool {
    match frame.first_chunk_mut::<12>() {
        Some(addresses) => {
            *addresses = *header;
            true
        }
        None => false,
    }
}

/// Whether the frame's Ethernet destination is `own`.
#[inline(always)]
pub(crate) fn is_sent_to(frame: &[u8], own: Mac) -> bool {
    frame.first_chunk::<6>() == Some(&own.0)
}

/// Whether the frame's Ethernet destination is a group: multicast or broadcast.
pub(crate) fn is_sent_to_group(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 1 == 1)
}

/// The frame's Ethernet source; `None` when it is shorter than an Ethernet header.
#[inline]
pub fn source_mac(frame: &[u8]) -> Option<Mac> {
    Some(ethernet_source(frame)?.mac())
}

/// Source MAC and EtherType of a frame: the eight bytes from its Ethernet source on. All zero for
/// no frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EthernetSource([u8; 8]);

impl EthernetSource {
    /// The Ethernet source.
    #[inline]
    pub const fn mac(self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.0;
        Mac([a, b, c, d, e, f])
    }

    /// The source of a frame without VLAN tags: a new frame to it finds the way.
    pub fn untagged(self) -> Option<Mac> {
        let [.., high, low] = self.0;
        let ethertype = u16::from_be_bytes([high, low]);
        matches!(ethertype, ethernet::IPV4 | ethernet::IPV6).then_some(self.mac())
    }
}

/// Source MAC and EtherType of the frame; `None` when it is shorter than an Ethernet header.
#[inline]
pub fn ethernet_source(frame: &[u8]) -> Option<EthernetSource> {
    let header = frame.first_chunk::<{ ethernet::HEADER }>()?;
    header.last_chunk().map(|from_source| EthernetSource(*from_source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_twelve_bytes_change() {
        let mut frame: Vec<u8> = (0..64).collect();
        assert!(rewrite_macs(&mut frame, &[0xaa; 12]));
        assert!(frame.iter().take(12).all(|&byte| byte == 0xaa));
        assert!(frame.iter().copied().skip(12).eq(12..64));
        assert_eq!(source_mac(&frame), Some(Mac([0xaa; 6])));
    }

    #[test]
    fn a_short_frame_stays_as_it_was() {
        let mut frame = [7; 11];
        assert!(!rewrite_macs(&mut frame, &[0xaa; 12]));
        assert_eq!(frame, [7; 11]);
        assert_eq!(source_mac(&[7; 13]), None);
    }
}
