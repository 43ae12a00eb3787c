//! The files that the backends serve: reproducible noise of a given size.
//!
//! All files are beginnings of one pseudo-random stream, so a wrong byte, a lost or a repeated
//! piece changes the hash, and every lab has the same files. They are made when first asked for.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::error::{Doing as _, LabError, Result};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// A directory of files that is shared by all backends.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
}

/// A file that the backends serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Path in a request, for example `/50k`.
    pub path: String,
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 of the content.
    pub hash: Hash,
}

impl Files {
    pub(crate) fn in_dir(dir: PathBuf) -> Result<Self> {
        std::fs::create_dir(&dir).doing(|| format!("make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes sure that the file of the given size exists: a number and `b`, `k` (1,024) or `m`
    /// (1,048,576 bytes), for example `1b`, `50k`, `100m`. That is also its name.
    ///
    /// # Errors
    /// When the name is not a file name, or the file cannot be written.
    pub fn ensure(&self, name: &str) -> Result<Served> {
        let length = parse_size(name).ok_or_else(|| LabError::Malformed {
            what: "file name".into(),
            detail: format!("{name} is not a number followed by b, k or m"),
        })?;
        let path = self.dir.join(name);
        // Written under another name first: a half-written file is never served.
        let part = self.dir.join(format!(".{name}.{:?}", std::thread::current().id()));
        let doing = || format!("write {}", path.display());
        let mut out = BufWriter::new(File::create(&part).doing(doing)?);
        let mut hasher = Sha256::new();
        let mut left = length;
        let mut noise = Noise::new();
        while left > 0 {
            let piece = noise.next_piece();
            let take = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            out.write_all(&piece[..take]).doing(doing)?;
            hasher.update(&piece[..take]);
            left -= take as u64;
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error).doing(doing)?;
        std::fs::rename(&part, &path).doing(doing)?;
        Ok(Served { path: format!("/{name}"), length, hash: hasher.finalize().into() })
    }
}

/// The SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// A hash in the usual notation.
#[must_use]
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_size(name: &str) -> Option<u64> {
    let (number, unit) = name.split_at_checked(name.len().checked_sub(1)?)?;
    let unit = match unit {
        "b" => 1,
        "k" => 1024,
        "m" => 1024 * 1024,
        _ => return None,
    };
    // `parse` also takes a sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// SplitMix64 (Steele, Lea, Flood 2014): reproducible, fast, without visible pattern.
struct Noise {
    state: u64,
}

impl Noise {
    fn new() -> Self {
        Self { state: 0x706f_696e_7473_6d61 }
    }

    fn next_piece(&mut self) -> [u8; 4096] {
        let mut piece = [0; 4096];
        for chunk in piece.chunks_exact_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1b"), Some(1));
        assert_eq!(parse_size("50k"), Some(51_200));
        assert_eq!(parse_size("100m"), Some(104_857_600));
        for bad in ["", "b", "5", "-1k", "+1k", "1g", "1.5k", "99999999999999999m", "1\u{fc}"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn files_have_their_size_and_hash() {
        let dir = std::env::temp_dir().join(format!("pmlab-files-test-{}", std::process::id()));
        let files = Files::in_dir(dir.clone()).unwrap();
        let small = files.ensure("1b").unwrap();
        let served = files.ensure("50k").unwrap();
        let bytes = std::fs::read(dir.join("50k")).unwrap();
        let again = files.ensure("50k").unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(served, again);
        assert_eq!((served.length, served.path.as_str()), (51_200, "/50k"));
        assert_eq!(bytes.len(), 51_200);
        assert_eq!(served.hash, Hash::from(Sha256::digest(&bytes)));
        assert_eq!(small.hash, Hash::from(Sha256::digest(&bytes[..1])));
        assert_eq!(hex(&small.hash).len(), 64);
        // Noise: no byte value is much more frequent than the others.
        let mut counts = [0u32; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (100..320).contains(count)), "{counts:?}");
    }
}
