//! The configuration file: read for a start, a check and a reload alike.

use std::fs::File;
use std::hash::Hasher;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::Parsed;
use siphasher::sip::SipHasher13;

/// A configuration without errors, as it was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in it.
    pub parsed: Parsed,
    /// Of its text: two nodes with the same file show the same.
    pub hash: u64,
}

/// A file that is longer is something else than a configuration.
const LONGEST: u64 = 64 << 20;

/// Reads and checks a file. May block for as long as the file system does.
///
/// # Errors
/// All that is wrong, rendered for people, with ANSI colours if `color`.
pub fn read(path: &Path, color: bool) -> Result<Loaded, String> {
    let name = path.display().to_string();
    let text = text(path).map_err(|error| {
        format!(
            "error: cannot read the configuration {name}: {error}\n  = help: name a text file that \
             this user may read, such as /etc/pointsman/pointsman.toml"
        )
    })?;
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    match config::parse(&name, &text) {
        Ok(parsed) => Ok(Loaded { parsed, hash: hasher.finish() }),
        Err(mistakes) => {
            Err(format!("{}\n{}", mistakes.render(color).trim_end(), mistakes.summary()))
        }
    }
}

/// The same while the daemon runs: a FIFO is not waited for.
///
/// # Errors
/// As [`read`].
pub fn reread(path: &Path) -> Result<Loaded, String> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(format!("error: {} is not a regular file", path.display()));
    }
    read(path, false)
}

/// The path that a reload reads, whatever directory it is asked from.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        return Err(std::io::Error::other("it is longer than 64 MiB"));
    }
    Ok(text)
}
