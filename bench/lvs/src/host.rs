//! Builds the guest, has it measure, and collects what it finds.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};
use lab::guest::PACKAGES;
use lab::{Contents, Guest, GuestSpec, Kernel, Lab, clean};

use crate::report::Report;
use crate::rows::Row;

/// Runs it all and writes the results.
///
/// # Errors
/// When the guest cannot be made, or ends before its measurements do.
pub(crate) fn run(results: &Path, only: &[String]) -> Result<()> {
    clean::clean_up_on_signals()?;
    let begin = Instant::now();
    // The guest's card has somewhere to go; all that is measured is inside of the guest.
    let lab = Lab::builder().clients(0).balancers(0).backends(0).build()?;
    let spec = GuestSpec::new(Kernel::V6_1).cpus(2).memory_mb(3072);
    let guest = Guest::boot_with(&lab, &spec, &contents()?).context("boot the guest")?;
    prepare(&guest)?;
    let before = load();
    let rows = collect(&guest, only)?;
    let report = Report {
        processor: processor(),
        qemu: guest.qemu_version()?,
        load: [before, load()],
        seconds: begin.elapsed().as_secs(),
        rows,
    };
    println!("\n{}", report.table());
    if only.is_empty() {
        report.save(results)?;
    }
    Ok(())
}

fn contents() -> Result<Contents> {
    Ok(Contents {
        name: "lvs",
        modules: ["veth", "bridge", "ip_vs", "ip_vs_wlc"].into(),
        packages: ["ipvsadm", "libpopt0"].into(),
        tools: ["arping", "keepalived", "nginx", "setpriv"].into(),
        programs: vec![std::env::current_exe().context("find the running program")?],
        files: Vec::new(),
    })
}

/// What an installed Debian would have.
fn prepare(guest: &Guest) -> Result<()> {
    guest.run(&format!(
        "ln -s /{PACKAGES}/sbin/ipvsadm /bin/ipvsadm\n\
         mkdir -p /usr /var/lib /lib/x86_64-linux-gnu /etc/keepalived /var/log/nginx /var/lib/nginx\n\
         cp -d /{PACKAGES}/usr/lib/x86_64-linux-gnu/* /lib/x86_64-linux-gnu/\n\
         printf 'root:x:0:0::/:/bin/sh\\nnobody:x:65534:65534::/:/bin/sh\\nwww-data:x:33:33::/:/bin/sh\\n' >/etc/passwd\n\
         printf 'root:x:0:\\nnogroup:x:65534:\\nwww-data:x:33:\\n' >/etc/group\n\
         modprobe ip_vs"
    ))?;
    Ok(())
}

/// Starts the measurements and prints each row as it comes.
fn collect(guest: &Guest, only: &[String]) -> Result<Vec<Row>> {
    let words: String = only.iter().map(|word| format!(" --only '{word}'")).collect();
    guest.run(&format!(
        "(bench-lvs{words} inside >/tmp/rows 2>/tmp/errors; echo $? >/tmp/status) >/dev/null 2>&1 &"
    ))?;
    let mut rows = Vec::new();
    let begin = Instant::now();
    loop {
        thread::sleep(Duration::from_secs(2));
        let ended = !guest.run("cat /tmp/status 2>/dev/null; true")?.trim().is_empty();
        let text = guest.run(&format!("tail -n +{} /tmp/rows", rows.len() + 1))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let row = serde_json::from_str(line).with_context(|| format!("read {line}"))?;
            println!("{:>4} s  {line}", begin.elapsed().as_secs());
            rows.push(row);
        }
        if ended {
            let errors = guest.run("cat /tmp/errors")?;
            if !errors.trim().is_empty() {
                println!("{}", errors.trim_end());
            }
            return Ok(rows);
        }
        if begin.elapsed() > LIMIT {
            bail!("not through after {LIMIT:?}: {}", guest.run("cat /tmp/errors")?);
        }
    }
}

/// The processor's name, as Linux has it.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor").to_owned()
}

/// The load averages over one, five and fifteen minutes.
fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Far more than it takes.
const LIMIT: Duration = Duration::from_secs(2700);
