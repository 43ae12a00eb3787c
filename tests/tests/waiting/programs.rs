//! Programs that the balancer runs inherit nothing of it. Needs root.
//!
//! An AF_XDP socket that a hook's child keeps open holds its queue: the next binding of the queue (a
//! changed MTU, a restart) fails for as long as the child lives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, ServiceText, VrrpText};
use tests::lifecycle::{SMALL, wait_for};

const KINDS: [&str; 4] = ["tracking-script", "vrrp-hook", "check", "service-hook"];

#[test]
fn hooks_checks_and_tracking_scripts_inherit_no_descriptor() -> Result<()> {
    let lab = Lab::builder().backends(1).queues(4).build()?;
    // Its command line says what it is.
    let program = |kind: &str, seconds: &str| {
        format!("[\"/bin/sh\", \"-c\", \"sleep {seconds}; : {kind}\", \"{kind}\"]")
    };
    let [track, vrrp_hook, check, service_hook] = KINDS;
    let vrrp = VrrpText::new("VI_1", 150, Duration::from_millis(100)).with(&format!(
        "[[vrrp.track]]\nscript = {}\ninterval = \"200ms\"\n[vrrp.notify]\ncommand = {}",
        program(track, "0.1"),
        program(vrrp_hook, "5")
    ));
    let service = ServiceText::web(&lab).with("vrrp = \"VI_1\"").health(&format!(
        "script = {}\ninterval = \"200ms\"\n\n[service.notify]\ncommand = {}",
        program(check, "0.1"),
        program(service_hook, "5")
    ));
    let lb = lab.start_pointsman(0, &format!("{SMALL}{}{}", service.to_toml(), vrrp.to_toml()))?;
    let mut seen = BTreeMap::new();
    let end = Instant::now() + Duration::from_secs(5);
    let mut mtus = [1400, 1500].into_iter().cycle();
    while Instant::now() < end {
        // Queues are bound while programs are started.
        lab.balancer(0)
            .netns()
            .ip(&format!("link set eth0 mtu {}\n", mtus.next().unwrap_or(1500)))?;
        for _ in 0..20 {
            look(lb.pid(), &mut seen)?;
            std::thread::sleep(Duration::from_millis(25));
        }
    }
    wait_for("all is bound again", Duration::from_secs(5), || Ok(lb.ready()?))?;
    for kind in KINDS {
        let descriptors = seen.get(kind).with_context(|| format!("{kind} was not run"))?;
        ensure!(*descriptors == BTreeSet::from([0, 1, 2]), "{kind}: {descriptors:?}");
    }
    Ok(())
}

/// Notes the descriptors of each child of the process by what it is.
fn look(parent: u32, seen: &mut BTreeMap<&'static str, BTreeSet<u32>>) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        // Threads and children may end meanwhile.
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            let Some(kind) = KINDS.into_iter().find(|kind| line.contains(*kind)) else { continue };
            let Ok(list) = fs::read_dir(format!("/proc/{child}/fd")) else { continue };
            let open = list.filter_map(|entry| Some(entry.ok()?.path()));
            let own = open.filter(|descriptor| !loads_a_library(descriptor));
            let names = own.filter_map(|path| path.file_name()?.to_str()?.parse::<u32>().ok());
            seen.entry(kind).or_default().extend(names);
        }
    }
    Ok(())
}

/// While a program starts, the dynamic loader holds the libraries and their cache open for a moment.
fn loads_a_library(descriptor: &Path) -> bool {
    fs::read_link(descriptor).is_ok_and(|file| {
        file == Path::new("/etc/ld.so.cache") || file.to_string_lossy().contains(".so.")
    })
}
