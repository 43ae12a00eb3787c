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

/// The frame's Ethernet source; `None` when it is shorter than an Ethernet header.
#[inline]
pub fn source_mac(frame: &[u8]) -> Option<Mac> {
    let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *frame.first_chunk::<{ ethernet::HEADER }>()?;
    Some(Mac([a, b, c, d, e, f]))
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
