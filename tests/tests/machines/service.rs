//! The unit as it is shipped, in a guest with systemd: a machine that boots without its cable ends as
//! one that serves, and what ends the product starts it again.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use lab::{Guest, Lab};
use tests::{
    guest::{Servers, config, forwards_again},
    lifecycle::wait_for,
};

use super::{
    report::{Line, Seen},
    rows::Row,
    run::{seen, timed, with_evidence},
};

/// Lets systemd of the row's machine run the unit.
pub(crate) fn run(row: &Row) -> Line {
    timed(row, check)
}

fn check(row: &Row) -> Result<Seen> {
    let lab = Lab::builder().balancers(0).backends(2).build()?;
    let _servers = Servers::start(&lab)?;
    let guest = Guest::boot(&lab, &row.spec().systemd())?;
    let seen = seen(&guest)?;
    let checked = lives(&guest, &lab);
    let note = checked.map_err(|error| {
        let status = guest.run("systemctl status pointsman | cat").unwrap_or_default();
        with_evidence(anyhow!("{error:#}\n{status}"), &guest)
    })?;
    Ok(Seen { got: "systemd".into(), note, ..seen })
}

fn lives(guest: &Guest, lab: &Lab) -> Result<String> {
    guest.run("mkdir -p /etc/pointsman /etc/systemd/system/pointsman.service.d")?;
    guest.write("/etc/pointsman/pointsman.toml", &config(lab, ""))?;
    guest.write("/etc/systemd/system/pointsman.service", UNIT)?;
    guest.write("/etc/systemd/system/pointsman.service.d/test.conf", DROP_IN)?;
    guest.run("systemctl daemon-reload")?;
    let first = starts_without_cable(guest).context("without a cable")?;
    guest.set_link(true)?;
    serves(guest, lab).context("with the cable in again")?;
    ensure!(property(guest, "MainPID")? == first, "it was started again when the link came up");
    // A pause long enough for what failed to be gone, and short enough for the clients.
    let pause = property(guest, "RestartUSec")?;
    ensure!(pause == "1s", "the pause before the next start is {pause}");
    let mut note = Vec::new();
    for (signal, limit, restarts) in [("KILL", RESTART, "1"), ("STOP", WATCHDOG + RESTART, "2")] {
        let begin = Instant::now();
        let ended = property(guest, "MainPID")?;
        guest.run(&format!("kill -{signal} {ended}"))?;
        let again = wait_for("the next start", limit, || {
            let now = property(guest, "MainPID")?;
            Ok(now != "0" && now != ended && property(guest, "ActiveState")? == "active")
        });
        again.with_context(|| format!("after SIG{signal}"))?;
        serves(guest, lab).with_context(|| format!("after SIG{signal}"))?;
        let counted = property(guest, "NRestarts")?;
        ensure!(counted == restarts, "{counted} restarts after SIG{signal}");
        note.push(format!("SIG{signal} {:.1} s", begin.elapsed().as_secs_f32()));
    }
    stays_stopped(guest)?;
    Ok(note.join(", "))
}

/// It counts as started, says what it waits for, and lives on beyond all time limits of the unit. Its
/// process.
fn starts_without_cable(guest: &Guest) -> Result<String> {
    guest.set_link(false)?;
    wait_for("no carrier", RESTART, || {
        Ok(guest.run("cat /sys/class/net/eth0/carrier")?.trim() == "0")
    })?;
    let (status, printed) = guest.status_of("systemctl start pointsman", LIMIT + RESTART)?;
    ensure!(status == 0, "systemctl start: {printed}");
    let process = property(guest, "MainPID")?;
    sleep(LIMIT.max(WATCHDOG) + Duration::from_secs(5));
    ensure!(property(guest, "ActiveState")? == "active", "it was ended");
    ensure!(property(guest, "MainPID")? == process, "it was started again");
    let says = property(guest, "StatusText")?;
    ensure!(says.contains("waiting") && says.contains("eth0"), "its status: {says}");
    ensure!(!guest.ready()?, "it is ready");
    Ok(process)
}

fn serves(guest: &Guest, lab: &Lab) -> Result<()> {
    wait_for("ready", Duration::from_secs(60), || Ok(guest.ready()?))?;
    forwards_again(lab)
}

/// An operator's stop is an end without an error, and it leaves nothing attached.
fn stays_stopped(guest: &Guest) -> Result<()> {
    let (status, printed) = guest.status_of("systemctl stop pointsman", RESTART)?;
    ensure!(status == 0, "systemctl stop: {printed}");
    sleep(Duration::from_secs(3));
    let (state, result) = (property(guest, "ActiveState")?, property(guest, "Result")?);
    ensure!(state == "inactive" && result == "success", "{state} after a stop: {result}");
    let left = guest.run("ip -d link show eth0 | grep xdp; true")?;
    ensure!(left.is_empty(), "left behind: {left}");
    Ok(())
}

fn property(guest: &Guest, name: &str) -> Result<String> {
    // A pipe: on a terminal there is a pager.
    let command = format!("systemctl show --value --property {name} pointsman | cat");
    let text = guest.run(&command)?;
    Ok(text.trim().to_owned())
}

const UNIT: &str = include_str!("../../../config/pointsman.service");
/// The limit is shorter, so that the test sees its end. There is no journal.
const DROP_IN: &str = "[Service]\nTimeoutStartSec=25\nStandardOutput=append:/tmp/pointsman.log\n\
                       StandardError=append:/tmp/pointsman.log\n";
const LIMIT: Duration = Duration::from_secs(25);
/// The unit's `WatchdogSec`.
const WATCHDOG: Duration = Duration::from_secs(20);
/// The unit's `RestartSec`, and a start on a slow CPU.
const RESTART: Duration = Duration::from_secs(20);
