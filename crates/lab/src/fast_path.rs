//! The same tests with the XDP program forwarding known flows: `POINTSMAN_FAST_PATH=on` has the other end
//! of the balancers' veths receive what XDP programs send. Without it they do not, and `fast_path = "auto"`
//! leaves all packets to the workers.

use std::{fs, path::Path, time::Duration};

use crate::{
    error::{Doing as _, Result},
    netns::NetNs,
};

/// Whether the veths of balancers of this process's labs are ready for it, so that it is on.
#[must_use]
pub fn is_on() -> bool {
    std::env::var("POINTSMAN_FAST_PATH").is_ok_and(|value| value == "on")
}

/// Has one end of a veth receive what an XDP program at the other end sends, by a program of its own
/// that passes everything on: without one, and without GRO, there is no ring for the frames.
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
