//! Which kernel runs, and whether it is one that takes the programs.

use std::fmt;

use crate::error::SteerError;

/// A kernel's version; later ones compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// `6` of `6.1.0-56-amd64`.
    pub major: u32,
    /// `1` of `6.1.0-56-amd64`.
    pub minor: u32,
}

impl KernelVersion {
    /// The oldest that is supported: `SEC("syscall")`, which the clock program is, came with it.
    /// Distributions that call a newer kernel 5.14 (RHEL 9) are included thereby.
    pub const MINIMUM: Self = Self { major: 5, minor: 14 };

    /// What `uname -r` says; nothing if it does not begin with a version.
    pub fn running() -> Option<Self> {
        Self::parse(&release())
    }

    /// Fails if the running kernel is older than [`Self::MINIMUM`]. One that does not say its
    /// version is given the benefit of the doubt: loading the programs has the last word.
    ///
    /// # Errors
    /// [`SteerError::Kernel`].
    pub fn check() -> Result<(), SteerError> {
        let release = release();
        match Self::parse(&release) {
            Some(version) if version < Self::MINIMUM => Err(SteerError::Kernel { release }),
            _ => Ok(()),
        }
    }

    fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..digits].parse().ok()? })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The running kernel's release, as of `uname -r`.
pub(crate) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood_and_compared() {
        let of = |release| KernelVersion::parse(release).map(|v| (v.major, v.minor));
        assert_eq!(of("6.1.0-56-amd64"), Some((6, 1)));
        assert_eq!(of("6.12.117+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(of("5.14.0-503.el9.x86_64"), Some((5, 14)));
        assert_eq!(of("7.3-rc1"), Some((7, 3)));
        assert_eq!(of("5.15"), Some((5, 15)));
        for odd in ["", "linux", "6", "6.", "x.1", "6.-1", "99999999999.1"] {
            assert_eq!(of(odd), None, "{odd:?}");
        }
        let old = KernelVersion::parse("5.9.16").expect("a version");
        assert!(old < KernelVersion::MINIMUM);
        assert!(KernelVersion { major: 4, minor: 19 } < KernelVersion::MINIMUM);
        assert!(KernelVersion { major: 6, minor: 1 } > KernelVersion::MINIMUM);
    }

    #[test]
    fn the_running_kernel_is_new_enough() {
        assert!(KernelVersion::running().is_some());
        assert!(KernelVersion::check().is_ok());
    }
}
