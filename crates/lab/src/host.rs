//! What the machine must offer: root, and a few programs.

use std::path::PathBuf;

use crate::error::{LabError, Result};

/// Says which of the programs are missing, and how to get them on Debian.
///
/// # Errors
/// [`LabError::MissingTools`].
pub fn require_tools(tools: &[&str]) -> Result<()> {
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| found(tool).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| debian_package(tool)).collect();
    packages.sort_unstable();
    packages.dedup();
    Err(LabError::MissingTools(missing.join(", "), packages.join(" ")))
}

/// Where a program is.
///
/// # Errors
/// [`LabError::MissingTools`].
pub(crate) fn find_tool(tool: &str) -> Result<PathBuf> {
    require_tools(&[tool])?;
    // It was there a moment ago.
    found(tool).ok_or(LabError::Interrupted)
}

fn found(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|path| path.is_file())
}

fn debian_package(tool: &str) -> &str {
    match tool {
        "ip" | "tc" | "bridge" => "iproute2",
        "ldd" => "libc-bin",
        "nginx" => "nginx-light",
        "qemu-system-x86_64" => "qemu-system-x86",
        "strip" => "binutils",
        "setpriv" => "util-linux",
        other => other,
    }
}

/// Network namespaces need root.
///
/// # Errors
/// [`LabError::NotRoot`].
pub fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named_with_their_package() {
        let error = require_tools(&["sh", "nginx-that-is-not-there"]).unwrap_err().to_string();
        assert!(error.contains("missing programs: nginx-that-is-not-there\n"), "{error}");
        assert!(require_tools(&["sh"]).is_ok());
        assert_eq!(debian_package("tc"), "iproute2");
    }
}
