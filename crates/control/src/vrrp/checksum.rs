//! The Internet checksum (RFC 1071) with and without a pseudo-header (RFC 768, RFC 8200 §8.1).

use std::net::IpAddr;

/// IP protocol number of VRRP (RFC 9568 §5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// A running ones' complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// The sum of what both addresses, the protocol and the length add.
    ///
    /// The IPv4 and IPv6 pseudo-headers differ in layout only; the same words are added.
    pub(super) fn pseudo_header(source: IpAddr, destination: IpAddr, len: usize) -> Self {
        Self::default().address(source).address(destination).word(u64::from(PROTOCOL)).len(len)
    }

    /// Adds bytes; an odd last byte counts as the high half of a word.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        let mut sum = self;
        for word in words {
            sum = sum.word(u64::from(u16::from_be_bytes(*word)));
        }
        match rest {
            [last] => sum.word(u64::from(*last) << 8),
            _ => sum,
        }
    }

    /// The folded sum: 0xffff over a message that carries its right checksum.
    pub(super) fn fold(self) -> u16 {
        let mut sum = self.0;
        while let 0x1_0000.. = sum {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or(u16::MAX)
    }

    fn word(self, word: u64) -> Self {
        Self(self.0.wrapping_add(word))
    }

    fn len(self, len: usize) -> Self {
        self.word(u64::try_from(len).unwrap_or(0))
    }

    fn address(self, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => self.bytes(&v4.octets()),
            IpAddr::V6(v6) => self.bytes(&v6.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn an_odd_byte_is_the_high_half() {
        assert_eq!(Sum::default().bytes(&[0x12, 0x34, 0x56]).fold(), 0x1234 + 0x5600);
    }
}
