//! What happens to a card in its life: after each step the product forwards again within a limit, or
//! is not ready.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use lab::{Guest, Lab};
use tests::guest::{Servers, forwards_again};

use super::{
    report::{Line, Seen},
    rows::Row,
    run::{Start, seen, start, timed, with_evidence},
};

/// Lets everything happen to the row's card, one after the other.
pub(crate) fn run(row: &Row) -> Line {
    timed(row, check)
}

fn check(row: &Row) -> Result<Seen> {
    let lab = Lab::builder().balancers(0).backends(2).build()?;
    let _servers = Servers::start(&lab)?;
    let guest = Guest::boot(&lab, &row.spec())?;
    let seen = seen(&guest)?;
    let Start::Ready(got) = start(&guest, &lab, row)? else {
        return Err(anyhow!("it refuses to start"));
    };
    forwards_again(&lab).map_err(|error| with_evidence(error.context("at first"), &guest))?;
    let mut note = Vec::new();
    for (name, step) in STEPS {
        let result = live_through(*step, &guest, &lab);
        let result = result.with_context(|| format!("after {name}"));
        match result.map_err(|error| with_evidence(error, &guest))? {
            Some(time) => note.push(format!("{name} {:.1} s", time.as_secs_f32())),
            None => note.push(format!("{name} not supported")),
        }
    }
    Ok(Seen { got, note: note.join(", "), ..seen })
}

/// Something that happens.
#[derive(Clone, Copy)]
enum Step {
    /// The cable is out for two seconds.
    Cable,
    /// A command in the guest; a driver may not support it.
    Command(&'static str),
    /// The product is killed, leaves nothing attached, and is started again.
    Kill,
    /// The driver lets go of the device and takes it again.
    Rebind,
}

const STEPS: &[(&str, Step)] = &[
    ("cable out", Step::Cable),
    ("link down", Step::Command("ip link set eth0 down; sleep 1; ip link set eth0 up")),
    ("-G", Step::Command("ethtool -G eth0 rx 128")),
    ("-L 1", Step::Command("ethtool -L eth0 combined 1")),
    ("-L 2", Step::Command("ethtool -L eth0 combined 2")),
    ("-K", Step::Command("ethtool -K eth0 gro off && ethtool -K eth0 gro on")),
    ("MTU", Step::Command("ip link set eth0 mtu 1400 && sleep 1 && ip link set eth0 mtu 1500")),
    ("kill -9", Step::Kill),
    ("unbind", Step::Rebind),
];

/// How long it did not forward; none if the driver does not support the step.
fn live_through(step: Step, guest: &Guest, lab: &Lab) -> Result<Option<Duration>> {
    match step {
        Step::Cable => {
            guest.set_link(false)?;
            std::thread::sleep(Duration::from_secs(2));
            guest.set_link(true)?;
        }
        Step::Command(command) => {
            let (status, _) = guest.status_of(command, Duration::from_secs(30))?;
            if status != 0 {
                return Ok(None);
            }
        }
        Step::Kill => {
            guest.signal_pointsman("KILL")?;
            guest.wait_exit()?;
            let left = guest.run("ip -d link show eth0 | grep xdp; true")?;
            ensure!(left.is_empty(), "left behind: {left}");
            guest.respawn_pointsman()?;
        }
        Step::Rebind => {
            guest.run(
                "device=$(basename $(readlink /sys/class/net/eth0/device))\n\
                 driver=$(readlink -f /sys/class/net/eth0/device/driver)\n\
                 echo $device >$driver/unbind; sleep 1; echo $device >$driver/bind",
            )?;
            guest.configure(lab, "eth0")?;
        }
    }
    recovers(guest, lab).map(Some)
}

/// Waits until it is ready and forwards; how long that took. It may say ready while it does not
/// forward only until it can have noticed: the event itself, or that the card receives and the
/// program sees nothing (3 s).
fn recovers(guest: &Guest, lab: &Lab) -> Result<Duration> {
    let begin = Instant::now();
    let mut falsely = Duration::ZERO;
    loop {
        ensure!(begin.elapsed() < LIMIT, "not ready within {LIMIT:?}");
        if !guest.ready()? {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let (time, attempt) = (begin.elapsed(), Instant::now());
        let Err(error) = forwards_again(lab) else { return Ok(time) };
        if guest.ready()? {
            falsely += attempt.elapsed();
        }
        ensure!(falsely < NOTICED, error.context(format!("ready for {falsely:?}, but")));
    }
}

const LIMIT: Duration = Duration::from_secs(20);
/// The tries of [`forwards_again`] take up to three seconds each.
const NOTICED: Duration = Duration::from_secs(7);
