//! Simple text password of version 2 (RFC 2338 §5.3.6 type 1; RFC 3768 removed it).

use std::fmt;

/// What a message carries as its authentication data.
pub(super) const AUTH_DATA_LEN: usize = 8;

/// A password of 1–8 bytes. It travels in clear text: it keeps out mistakes, not attackers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthPass([u8; AUTH_DATA_LEN]);

impl AuthPass {
    /// `None` unless `text` has 1–8 bytes, none of which is 0: the rest is padded with 0.
    pub fn new(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut data = [0; AUTH_DATA_LEN];
        data.get_mut(..bytes.len())?.copy_from_slice(bytes);
        (!bytes.is_empty() && !bytes.contains(&0)).then_some(Self(data))
    }

    /// The bytes on the wire.
    pub const fn data(&self) -> &[u8; AUTH_DATA_LEN] {
        &self.0
    }

    /// Whether received data is this password, compared in constant time.
    pub fn matches(&self, data: &[u8; AUTH_DATA_LEN]) -> bool {
        let differ = self.0.iter().zip(data).fold(0, |differ, (own, other)| differ | (own ^ other));
        std::hint::black_box(differ) == 0
    }
}

impl fmt::Debug for AuthPass {
    /// Without the password: configurations are printed in errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthPass(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_eight_bytes_padded_with_zeros() {
        assert_eq!(AuthPass::new("1111").unwrap().data(), b"1111\0\0\0\0");
        assert_eq!(AuthPass::new("12345678").unwrap().data(), b"12345678");
        for wrong in ["", "123456789", "12\0"] {
            assert_eq!(AuthPass::new(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn every_bit_counts_and_nothing_is_printed() {
        let pass = AuthPass::new("secret").unwrap();
        assert!(pass.matches(b"secret\0\0"));
        for bit in 0..64 {
            let mut data = *b"secret\0\0";
            data[bit / 8] ^= 1 << (bit % 8);
            assert!(!pass.matches(&data), "{bit}");
        }
        assert!(!format!("{pass:?}").contains("secret"));
    }
}
