//! The same tests with the XDP program forwarding known flows: `POINTSMAN_FAST_PATH=on`.

use std::{fs, path::Path, time::Duration};

use crate::{
    error::{Doing as _, Result},
    netns::NetNs,
};

/// Whether balancers of this process's labs have it on, which is not the default.
#[must_use]
pub fn is_on() -> bool {
    std::env::var("POINTSMAN_FAST_PATH").is_ok_and(|value| value == "on")
}

/// Has one end of a veth receive what an XDP program at the other end sends, by a program of its own
/// that passes everything on: without one the frames wait in a ring that is never looked at (GRO, which
/// makes such a ring as well, is not enough: seen with Linux 6.18).
///
/// # Errors
/// Without clang, or when the kernel refuses the program.
pub fn receive(ns: &NetNs, device: &str, dir: &Path) -> Result<()> {
    let (source, object) = (dir.join("pass.c"), dir.join("pass.o"));
    fs::write(&source, PASS).doing(|| format!("write {}", source.display()))?;
    let (source, object) = (source.display().to_string(), object.display().to_string());
    let clang = ["clang", "-O2", "-target", "bpf", "-c", &source, "-o", &object];
    ns.run(&clang, STEP)?.ok()?;
    let argv = ["ip", "link", "set", "dev", device, "xdpdrv", "obj", &object, "sec", "xdp"];
    ns.run(&argv, STEP)?.ok().map(drop)
}

/// Takes it away again.
///
/// # Errors
/// When `ip` fails.
pub fn stop_receiving(ns: &NetNs, device: &str) -> Result<()> {
    ns.run(&["ip", "link", "set", "dev", device, "xdpdrv", "off"], STEP)?.ok().map(drop)
}

/// Returns `XDP_PASS`.
const PASS: &str = "__attribute__((section(\"xdp\"), used)) int pass(void *frame) { return 2; }\n\
    char terms[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";

const STEP: Duration = Duration::from_secs(20);

/// The configuration with `fast_path = "on"`, unless it says something of it.
#[must_use]
pub fn turned_on(config: &str) -> String {
    if config.lines().any(|line| line.trim_start().starts_with("fast_path")) {
        return config.to_owned();
    }
    let (table, key) = ("[dataplane]", "fast_path = \"on\"");
    if !config.lines().any(|line| line.trim() == table) {
        return format!("{config}\n{table}\n{key}\n");
    }
    let lines = config.lines().map(|line| {
        if line.trim() == table { format!("{line}\n{key}\n") } else { format!("{line}\n") }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_goes_to_its_table() {
        let key = "fast_path = \"on\"";
        assert_eq!(turned_on("[node]"), format!("[node]\n[dataplane]\n{key}\n"));
        let own = "[dataplane]\npoll = \"busy\"\n";
        assert_eq!(turned_on(own), format!("[dataplane]\n{key}\npoll = \"busy\"\n"));
        let off = "[dataplane]\nfast_path = \"off\"\n";
        assert_eq!(turned_on(off), off);
    }
}
