//! The process comes and goes: started, killed, stopped. Nothing stays behind, and what is not VIP
//! traffic does not notice.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{Lab, Pointsman, ServiceText};
use tests::close_books;
use tests::lifecycle::{
    Session, attached, config, detach, fetch, nothing_attached, status, wait_for,
};

#[test]
fn a_killed_process_leaves_nothing_and_starts_again_twenty_times() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(4).build()?;
    let _web = lab.start_web()?;
    let text = config(&ServiceText::web(&lab));
    let session = Session::start(lab.client(0), lab.balancer(0))?;
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    for round in 0..=20 {
        let begin = Instant::now();
        let mut lb = lab.start_pointsman(0, &text)?;
        let started = begin.elapsed();
        fetch(&lab)?;
        if round == 0 {
            let found = attached(lab.balancer(0))?;
            ensure!(found.contains("xdp") && found.contains(" 4 AF_XDP"), "attached: {found:?}");
        }
        if round == 20 {
            close_books(&lb);
        }
        lb.process().kill()?;
        // Every second restart is immediate: its queues may still be held for a moment.
        let gone = if round % 2 == 0 {
            nothing_attached(lab.balancer(0), Duration::from_secs(2))?
        } else {
            Duration::ZERO
        };
        slowest = (slowest.0.max(started), slowest.1.max(gone));
    }
    let seen = session.finish()?;
    println!("slowest start {:?}, slowest end {:?}, session {seen:?}", slowest.0, slowest.1);
    ensure!(seen.longest_gap < Duration::from_millis(500), "{seen:?}");
    ensure!(seen.messages > 100, "{seen:?}");
    Ok(())
}

#[test]
fn sigterm_stops_within_a_second_and_leaves_nothing() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(4).build()?;
    let _web = lab.start_web()?;
    let session = Session::start(lab.client(0), lab.balancer(0))?;
    for _ in 0..3 {
        let mut lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
        fetch(&lab)?;
        close_books(&lb);
        let mode = std::fs::metadata(lb.socket())?.permissions().mode();
        ensure!(mode & 0o777 == 0o660, "control socket has mode {mode:o}");
        let (exit, took) = lb.process().stop(Duration::from_secs(5))?;
        println!("stopped after {took:?}");
        ensure!(exit.code() == Some(0), "{exit}: {}", lb.log());
        ensure!(took < Duration::from_secs(1), "took {took:?}");
        nothing_attached(lab.balancer(0), Duration::from_millis(200))?;
        ensure!(!lb.socket().exists(), "the control socket is still there");
    }
    let seen = session.finish()?;
    ensure!(seen.longest_gap < Duration::from_millis(500), "{seen:?}");
    Ok(())
}

/// While another process holds a queue, start waits for it; that must not make it deaf.
#[test]
fn sigterm_is_heard_while_queues_are_being_bound() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let text = config(&ServiceText::web(&lab));
    let first = lab.start_pointsman(0, &text)?;
    // Detaches the program, not the socket: the second one gets past the first check.
    detach(lab.balancer(0))?;
    let own = lab.balancer(0).dir().join("second.sock");
    let second = format!(
        "[metrics]\nlisten = \"127.0.0.1:9478\"\n[control]\nsocket = \"{}\"\n{text}",
        own.display()
    );
    let mut waiting = Pointsman::spawn(lab.balancer(0), &second)?;
    wait_for("second attached", Duration::from_secs(5), || {
        Ok(waiting.log().matches("XDP program attached").count() == 2)
    })?;
    let (exit, took) = waiting.process().stop(Duration::from_secs(5))?;
    println!("stopped after {took:?}: {exit}");
    ensure!(exit.code() == Some(1) && took < Duration::from_secs(1), "{exit} after {took:?}");
    ensure!(waiting.log().contains("told to stop before it was ready"), "{}", waiting.log());
    ensure!(!own.exists(), "the control socket is still there");
    ensure!(status(&first)?["ready"] == true, "the first one is disturbed");
    Ok(())
}
