//! What the machine must offer: root, and a few programs.

use crate::error::{LabError, Result};

/// Says which of the programs are missing, and how to get them on Debian.
///
/// # Errors
/// [`LabError::MissingTools`].
pub fn require_tools(tools: &[&str]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !has(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| debian_package(tool)).collect();
    packages.sort_unstable();
    packages.dedup();
    Err(LabError::MissingTools(missing.join(", "), packages.join(" ")))
}

fn debian_package(tool: &str) -> &str {
    match tool {
        "ip" | "tc" | "bridge" => "iproute2",
        "nginx" => "nginx-light",
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
