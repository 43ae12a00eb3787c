//! Boots the machine of a row, starts the product, and sees what comes of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use lab::{Guest, Lab, LabError};
use tests::{
    guest::{Servers, config_on, forwards},
    vlan,
};

use super::{
    above::Above,
    report::{Line, Seen},
    rows::{Expected, Row},
};

/// Boots the row's machine and has it forward.
pub(crate) fn run(row: &Row) -> Line {
    timed(row, check)
}

/// Runs a check of a row and takes its time.
pub(crate) fn timed(row: &Row, check: impl Fn(&Row) -> Result<Seen>) -> Line {
    let begin = Instant::now();
    let result = check(row);
    Line { row: *row, result, took: begin.elapsed() }
}

fn check(row: &Row) -> Result<Seen> {
    let lab = Lab::builder().balancers(0).backends(2).build()?;
    let _servers = Servers::start(&lab)?;
    let contents = row.above.map(Above::contents).unwrap_or_default();
    let guest = Guest::boot_with(&lab, &row.spec(), &contents)?;
    let seen = seen(&guest)?;
    match start(&guest, &lab, row)? {
        Start::Refused(message) => Ok(Seen { note: message, ..seen }),
        Start::Ready(got) => {
            let forwarded = forwards(&lab).with_context(|| format!("ready, {got}"));
            forwarded.map_err(|error| with_evidence(error, &guest))?;
            if row.above != Some(Above::Vlan) {
                let tagged = stays_tagged(&lab, &guest, row.device());
                tagged.map_err(|error| with_evidence(error, &guest))?;
            }
            let note = verified(&guest)?;
            Ok(Seen { got, note, ..seen })
        }
    }
}

/// Whether frames of a VLAN stay in it.
fn stays_tagged(lab: &Lab, guest: &Guest, device: &str) -> Result<()> {
    // Cards keep out VLANs that have no device (rx-vlan-filter).
    guest.run(&format!(
        "modprobe 8021q && ip link add link {device} name {device}.77 type vlan id 77 && \
         ip link set {device}.77 up"
    ))?;
    vlan::stays_tagged(lab, &guest.mac().map(|byte| format!("{byte:02x}")).join(":"))
}

/// What became of a start.
pub(crate) enum Start {
    /// It is ready, with this attach mode and this way of moving frames.
    Ready(String),
    /// It ended with this message.
    Refused(String),
}

/// Starts the product; what becomes of that is what the row expects.
pub(crate) fn start(guest: &Guest, lab: &Lab, row: &Row) -> Result<Start> {
    if let Some(above) = row.above {
        above.make(guest, lab)?;
    }
    guest.set_env("POINTSMAN_LOG", "info,libbpf=trace")?;
    guest.spawn_pointsman(&config_on(lab, row.device(), row.interface))?;
    match (guest.wait_ready(READY), row.expected) {
        (Ok(()), Expected::Forwards(expected)) => {
            let got = got(guest)?;
            let error = || anyhow!("got {got}, not {expected}");
            ensure!(got == expected, with_evidence(error(), guest));
            Ok(Start::Ready(got))
        }
        (Ok(()), Expected::Refuses(_)) => {
            Err(with_evidence(anyhow!("ready, though it should refuse"), guest))
        }
        (Err(LabError::Ended { log, .. }), Expected::Refuses(words)) => {
            let message = refusal(&log);
            let missing = words.iter().find(|word| !message.contains(**word));
            ensure!(missing.is_none(), "the message lacks {missing:?}: {message}");
            Ok(Start::Refused(message))
        }
        (Err(LabError::Ended { log, .. }), Expected::Forwards(_)) => {
            Err(anyhow!("refuses to start: {}\n{log}", refusal(&log)))
        }
        (Err(error), _) => Err(with_evidence(anyhow!("{error}"), guest)),
    }
}

/// Kernel and QEMU.
pub(crate) fn seen(guest: &Guest) -> Result<Seen> {
    Ok(Seen { release: guest.release().to_owned(), qemu: guest.qemu_version()?, ..Seen::default() })
}

/// Attach mode and way of moving frames, of the worst worker.
fn got(guest: &Guest) -> Result<String> {
    let status = guest.status()?;
    let mode = status["interfaces"][0]["xdp"].as_str().context("no attach mode")?;
    let mut workers = status["workers"].as_array().into_iter().flatten();
    let zero_copy = workers.all(|worker| worker["zero_copy"] == true);
    Ok(format!("{mode}, {}", if zero_copy { "zero-copy" } else { "copy" }))
}

/// What the verifier of this kernel says of its work.
fn verified(guest: &Guest) -> Result<String> {
    let log = guest.log()?;
    let find = |begin: &str| {
        let at = log.find(begin)?;
        log[at..].lines().next()
    };
    let (instructions, time) = (find("processed "), find("verification time "));
    let instructions = instructions.and_then(|text| text.split_whitespace().nth(1));
    let time = time.and_then(|text| text.split_whitespace().nth(2));
    let (instructions, time) = instructions.zip(time).context("no statistics of the verifier")?;
    Ok(format!("{instructions} instructions verified in {time} µs"))
}

/// The message that the product ended with, without the place in the configuration.
fn refusal(log: &str) -> String {
    let message = log.rsplit_once("error: ").map_or(log, |(_, message)| message);
    let message = message.split("\n -->").next().unwrap_or_default();
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The error, and what helps to find its cause.
pub(crate) fn with_evidence(error: anyhow::Error, guest: &Guest) -> anyhow::Error {
    let look = |command| guest.run(command).unwrap_or_else(|error| error.to_string());
    let log = look("grep -v ' libbpf: ' /tmp/pointsman.log");
    let outcomes = guest.status().map(|status| {
        let interfaces = status["interfaces"].to_string();
        let workers = status["workers"].as_array().into_iter().flatten();
        let workers: Vec<String> = workers
            .map(|worker| {
                format!(
                    "queue {} bound {} {} dropped {} socket {}",
                    worker["queue"],
                    worker["bound"],
                    worker["error"],
                    worker["counters"],
                    worker["socket"]
                )
            })
            .collect();
        format!("{interfaces}\n{}\n{}", workers.join("\n"), status["dropped"])
    });
    let link = look("ip -s link show eth0; ethtool -l eth0; ls /sys/class/net/eth0/queues");
    let kernel = guest.kernel_log();
    let kernel: Vec<&str> = kernel.lines().rev().take(12).collect();
    let kernel = kernel.into_iter().rev().collect::<Vec<_>>().join("\n");
    anyhow!("{error:#}\n{log}\n{outcomes:?}\n{link}\n{kernel}")
}

/// Cards take seconds for their link, and the CPUs are slow.
const READY: Duration = Duration::from_secs(60);
