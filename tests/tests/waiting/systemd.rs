//! What systemd is told, with a socket in its place; and the unit as shipped. Needs root.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Pointsman, ServiceText};
use tests::freezer::Frozen;
use tests::lifecycle::{config, started_by_shell, wait_for};

/// A balancer that was started as systemd does, with a watchdog of 3 s.
struct Bench {
    lb: Pointsman,
    socket: UnixDatagram,
    lab: Lab,
}

impl Bench {
    fn start(lab: Lab) -> Result<Self> {
        let node = lab.balancer(0);
        let path = node.dir().join("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        let before = format!("env NOTIFY_SOCKET={} WATCHDOG_USEC=3000000", path.display());
        let binary = started_by_shell(node, &before, "")?;
        let lb = Pointsman::spawn_binary(node, &binary, &config(&ServiceText::web(&lab)))?;
        Ok(Self { lb, socket, lab })
    }

    /// The messages that have arrived.
    fn messages(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let mut messages = Vec::new();
        while let Ok(length) = self.socket.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        messages
    }

    /// Waits for a message with this in it; returns all until then.
    fn wait(&self, wanted: &str, limit: Duration) -> Result<Vec<String>> {
        let mut seen = Vec::new();
        let found = wait_for(wanted, limit, || {
            seen.extend(self.messages());
            Ok(seen.iter().any(|message| message.contains(wanted)))
        });
        found.with_context(|| format!("received: {seen:?}\n{}", self.lb.log()))?;
        Ok(seen)
    }

    /// Sends messages until the queue of the socket is full.
    fn fill_queue(&self) -> Result<()> {
        let sender = UnixDatagram::unbound()?;
        sender.set_nonblocking(true)?;
        let path = self.lab.balancer(0).dir().join("notify.sock");
        loop {
            match sender.send_to(b"filler", &path) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How often the watchdog is fed in the next seconds.
    fn fed_within(&self, time: Duration) -> usize {
        self.messages();
        std::thread::sleep(time);
        self.messages().iter().filter(|message| message.contains("WATCHDOG=1")).count()
    }
}

/// A link that is missing is no reason to hold READY back: systemd would end the daemon for it.
#[test]
fn ready_comes_when_the_loops_run_and_the_status_says_what_is_waited_for() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let bench = Bench::start(lab)?;
    let seen = bench.wait("STATUS=1 of 1 backends up", Duration::from_secs(10))?.concat();
    ensure!(seen.contains("READY=1"), "{seen}");
    bench.lab.unplug(bench.lab.balancer(0))?;
    bench.wait("STATUS=waiting: interface eth0 has no link", Duration::from_secs(5))?;
    let again = bench.wait("WATCHDOG=1", Duration::from_secs(3))?;
    ensure!(!again.iter().any(|message| message.contains("READY")), "{again:?}");
    bench.lab.plug(bench.lab.balancer(0))?;
    bench.wait("STATUS=1 of 1 backends up", Duration::from_secs(10))?;
    let Bench { mut lb, socket, lab } = bench;
    lb.process().stop(Duration::from_secs(5))?;
    Bench { lb, socket, lab }.wait("STOPPING=1", Duration::from_secs(1))?;
    Ok(())
}

/// Started without a link: it is ready for systemd, says what it waits for, and serves when it comes.
#[test]
fn a_start_without_a_link_is_ready_for_systemd() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    lab.unplug(lab.balancer(0))?;
    let mut bench = Bench::start(lab)?;
    let seen = bench.wait("READY=1", Duration::from_secs(15))?.concat();
    ensure!(seen.contains("STATUS=waiting: interface eth0 has no link"), "{seen}");
    ensure!(!bench.lb.ready()?, "without a link it is not ready for clients");
    bench.lab.plug(bench.lab.balancer(0))?;
    bench.lb.wait_ready(Duration::from_secs(10))?;
    Ok(())
}

/// A socket of systemd that is not read stalls nothing: links are followed, and the end comes in time.
#[test]
fn a_service_manager_that_does_not_read_is_not_waited_for() -> Result<()> {
    let mut bench = Bench::start(Lab::builder().backends(1).build()?)?;
    bench.lb.wait_ready(Duration::from_secs(10))?;
    bench.fill_queue()?;
    // The watchdog is fed once a second: the next message finds no room.
    std::thread::sleep(Duration::from_secs(2));
    let node = bench.lab.balancer(0);
    bench.lab.unplug(node)?;
    wait_for("the lost link is noticed", Duration::from_secs(5), || Ok(!bench.lb.ready()?))?;
    bench.lab.plug(node)?;
    wait_for("the link is noticed", Duration::from_secs(10), || Ok(bench.lb.ready()?))?;
    let (exit, _) = bench.lb.process().stop(Duration::from_secs(5))?;
    ensure!(exit.code() == Some(0), "{exit}");
    Ok(())
}

/// The watchdog is fed three times in its time, and not while a thread is dead, whichever.
#[test]
fn the_watchdog_is_fed_only_while_all_threads_are_alive() -> Result<()> {
    let bench = Bench::start(Lab::builder().backends(1).build()?)?;
    bench.wait("READY=1", Duration::from_secs(10))?;
    for thread in ["worker-0", "vrrp"] {
        let fed = bench.fed_within(Duration::from_secs(4));
        ensure!((3..=5).contains(&fed), "fed {fed} times in 4 s");
        let frozen = Frozen::thread(bench.lb.pid(), thread)?;
        // Silent for 10 s it counts as dead.
        std::thread::sleep(Duration::from_secs(11));
        let fed = bench.fed_within(Duration::from_secs(3));
        ensure!(fed == 0, "fed {fed} times while {thread} is frozen");
        ensure!(bench.lb.log().contains("the watchdog is not fed"), "{}", bench.lb.log());
        drop(frozen);
    }
    let fed = bench.fed_within(Duration::from_secs(4));
    ensure!((3..=5).contains(&fed), "fed {fed} times in 4 s, in the end");
    Ok(())
}

/// `systemd-analyze` finds no fault but keys that are younger than it.
#[test]
fn the_unit_is_sound_and_well_confined() -> Result<()> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/pointsman.service");
    let lab = Lab::builder().backends(1).build()?;
    let dir = lab.balancer(0).dir();
    // The program is where this build left it.
    let binary = lab::pointsman_binary()?.display().to_string();
    let text = std::fs::read_to_string(&unit)?.replace("/usr/bin/pointsman", &binary);
    let copy = dir.join("pointsman.service");
    std::fs::write(&copy, text)?;
    let verify =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output()?;
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    let foreign = |line: &&str| {
        line.contains("pointsman.service")
            && !["RestartSteps", "RestartMaxDelaySec"].iter().any(|key| line.contains(key))
    };
    let faults: Vec<&str> = said.lines().filter(foreign).collect();
    ensure!(faults.is_empty(), "{faults:#?}");
    let score = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=30"])
        .arg(&copy)
        .output()?;
    ensure!(score.status.success(), "{}", String::from_utf8_lossy(&score.stdout));
    Ok(())
}
