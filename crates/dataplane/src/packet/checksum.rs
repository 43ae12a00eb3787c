//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use crate::addr::Addr;

/// A running one's-complement sum of big-endian 16-bit words.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// A message behind IP with its pseudo header (RFC 9293 §3.1, RFC 8200 §8.1).
    ///
    /// One form serves both families: the sum is the same in any order, and what makes an IPv4
    /// address a mapped one adds 0xffff, which is nothing in one's complement.
    pub(super) fn upper(src: Addr, dst: Addr, protocol: u8, message: &[u8]) -> Self {
        Self::pseudo(src, dst, protocol, message.len()).add(message)
    }

    /// The pseudo header alone, for a message of `len` bytes.
    pub(super) fn pseudo(src: Addr, dst: Addr, protocol: u8, len: usize) -> Self {
        // No message from a frame is longer than 32 bits can say.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Self::default()
            .add(&src.octets())
            .add(&dst.octets())
            .add(&len.to_be_bytes())
            .add(&[0, protocol])
    }

    /// Adds bytes; a part of odd length must be the last.
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<2>();
        let mut sum = self.0;
        for word in words {
            sum = sum.wrapping_add(u64::from(u16::from_be_bytes(*word)));
        }
        if let [last] = tail {
            sum = sum.wrapping_add(u64::from(u16::from_be_bytes([*last, 0])));
        }
        Self(sum)
    }

    /// The checksum field's value. Zero over data that contains a correct checksum.
    pub(super) fn checksum(self) -> [u8; 2] {
        let mut sum = self.0;
        while let carry @ 1.. = sum >> 16 {
            sum = (sum & 0xffff).wrapping_add(carry);
        }
        let [.., high, low] = (!sum).to_be_bytes();
        [high, low]
    }
}

/// The checksum after one 16-bit word changed (RFC 1624 §3, equation 3). A wrong one stays wrong.
pub(super) fn updated(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let inverted = |word: [u8; 2]| word.map(|byte| !byte);
    Sum::default().add(&inverted(checksum)).add(&inverted(old)).add(&new).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.checksum(), [!0xdd, !0xf2]);
    }

    #[test]
    fn rfc_1624_example() {
        assert_eq!(updated([0xdd, 0x2f], [0x55, 0x55], [0x32, 0x85]), [0x00, 0x00]);
    }

    #[test]
    fn an_odd_byte_counts_as_the_high_one() {
        assert_eq!(Sum::default().add(&[1, 2, 3]).checksum(), [!4, !2]);
    }
}
