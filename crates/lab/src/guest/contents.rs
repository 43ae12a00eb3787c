//! What a guest holds beside the product and the tools of every guest.

use std::path::PathBuf;

/// Programs, modules and files that a guest is to have; none of them is started or loaded.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// A name for this choice of modules and packages, by which they are cached.
    pub name: &'static str,
    /// Kernel modules, with what they depend on; `modprobe` finds them.
    pub modules: Vec<&'static str>,
    /// Debian packages of the kernel's suite, without what they depend on. They are unpacked to
    /// [`PACKAGES`], not installed.
    pub packages: Vec<&'static str>,
    /// Programs of this machine by name, with their libraries; they go to `/bin`.
    pub tools: Vec<&'static str>,
    /// Other programs of this machine by path; without debugging information, they go to `/bin`.
    pub programs: Vec<PathBuf>,
    /// Files of this machine, each with a path below `/` whose directory is one that every guest has.
    pub files: Vec<(PathBuf, &'static str)>,
}

/// Below the root: the directory that packages are unpacked to.
pub const PACKAGES: &str = "packages";
