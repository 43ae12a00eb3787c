//! The process comes and goes: started, killed, stopped. Nothing stays behind, and what is not VIP
//! traffic does not notice.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use lab::pointsman::write_config;
use lab::{Lab, Pointsman, Process, ServiceText, pointsman_binary};
use tests::close_books;
use tests::lifecycle::{
    Session, attached, config, detach, fetch, nothing_attached, processor_time, status, wait_for,
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

/// Two that are started at the same moment, with one configuration: one runs, the other says why not.
#[test]
fn of_two_that_start_at_once_one_runs() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let node = lab.balancer(0);
    let path = write_config(node, &config(&ServiceText::web(&lab)))?;
    let binary = pointsman_binary()?;
    let argv = [&*binary.to_string_lossy(), "run", "--config", &*path.to_string_lossy()];
    let socket = node.dir().join("control.sock");
    for round in 0..5 {
        let start = |number: u32| {
            let log = node.dir().join(format!("round-{round}-{number}.log"));
            Process::start(node.netns(), "pointsman", &argv, &log)
        };
        let mut both = [start(0)?, start(1)?];
        let mut ended = None;
        wait_for("one of them ends", Duration::from_secs(10), || {
            ended = both.iter_mut().position(|process| !process.running());
            Ok(ended.is_some())
        })?;
        let loser = ended.unwrap_or_default();
        let exit = both[loser].wait(Duration::from_secs(1))?;
        let said = both[loser].log();
        ensure!(exit.code() == Some(1), "{exit}");
        ensure!(said.contains("another pointsman answers on the control socket"), "{said}");
        let winner = &mut both[1 - loser];
        winner.wait_until("ready", Duration::from_secs(10), |process| {
            Ok(process.log().contains("ready: a client would be served"))
        })?;
        ensure!(socket.exists(), "its control socket was taken away");
        winner.stop(Duration::from_secs(5))?;
    }
    Ok(())
}

/// Signals that mean nothing to the daemon do nothing to it.
#[test]
fn signals_that_ask_for_nothing_change_nothing() -> Result<()> {
    use rustix::process::Signal;
    let lab = Lab::builder().backends(2).build()?;
    let _web = lab.start_web()?;
    let mut lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    let signals = [
        ("SIGUSR1", Signal::USR1),
        ("SIGUSR2", Signal::USR2),
        ("SIGALRM", Signal::ALARM),
        ("SIGVTALRM", Signal::VTALARM),
        ("SIGPROF", Signal::PROF),
        ("SIGIO", Signal::IO),
        ("SIGPWR", Signal::POWER),
        ("SIGSTKFLT", Signal::STKFLT),
        ("SIGXCPU", Signal::XCPU),
        ("SIGXFSZ", Signal::XFSZ),
    ];
    for (name, signal) in signals {
        for _ in 0..2 {
            lb.process().signal(signal)?;
            wait_for(name, Duration::from_secs(2), || Ok(lb.log().contains(name)))?;
            ensure!(lb.process().running(), "{name} ended it:\n{}", lb.log());
        }
        let lines = lb.log().matches(&format!("{name} is ignored")).count();
        ensure!(lines == 1, "{lines} lines for {name}");
    }
    fetch(&lab)?;
    close_books(&lb);
    lb.process().signal(Signal::QUIT)?;
    let exit = lb.process().wait(Duration::from_secs(2))?;
    ensure!(exit.code() == Some(0), "SIGQUIT: {exit}");
    nothing_attached(lab.balancer(0), Duration::from_millis(200))?;
    Ok(())
}

/// While another process holds a queue, start waits for it; that must not make it deaf.
#[test]
fn sigterm_is_heard_while_queues_are_being_bound() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let text = config(&ServiceText::web(&lab));
    let mut first = lab.start_pointsman(0, &text)?;
    // Detaches the program, not the socket: the second one gets past the first check. The first one
    // would attach it anew if it could.
    first.process().pause()?;
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
    first.process().resume()?;
    wait_for("the first one serves", Duration::from_secs(5), || Ok(first.ready()?))?;
    Ok(())
}

/// As many services as there may be, each with a check: some seconds, where it once was a minute.
#[test]
fn a_start_with_1024_services_takes_seconds() -> Result<()> {
    let lab = Lab::builder().backends(4).build()?;
    let _web = lab.start_web()?;
    let service = |number: u16| {
        let web = ServiceText::web(&lab).name(&format!("s{number}")).port(10_000 + number);
        web.health("tcp = {}\nport = 80").service_toml()
    };
    let services: String = (0..1023).map(service).collect();
    let text = format!("{}{services}", config(&ServiceText::web(&lab)));
    let begin = Instant::now();
    let mut lb = Pointsman::spawn(lab.balancer(0), &text)?;
    lb.wait_ready(Duration::from_secs(20))?;
    let took = begin.elapsed();
    let cpu = processor_time(lb.pid())?;
    let memory = std::fs::read_to_string(format!("/proc/{}/status", lb.pid()))?;
    let resident =
        memory.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    let resident: Vec<&str> = resident.collect();
    println!(
        "1,024 services with 4 backends: ready after {took:?}, {cpu:?} of processor, {resident:?}"
    );
    fetch(&lab)?;
    let changed = text.replacen("weight = 1", "weight = 2", 1);
    std::fs::write(lb.config(), format!("{changed}\n[control]\nsocket = {:?}\n", lb.socket()))?;
    let (binary, socket) = (pointsman_binary()?, lb.socket().display().to_string());
    let argv = [&*binary.to_string_lossy(), "reload", "--socket", &socket];
    let begin = Instant::now();
    let output = lab.balancer(0).netns().run(&argv, Duration::from_secs(20))?;
    println!("one weight of them changed by a reload in {:?}", begin.elapsed());
    ensure!(output.status.success() && output.stdout.contains("weight 1 -> 2"), "{output:?}");
    fetch(&lab)?;
    pages_are_made_from_few_looks(&lb)?;
    Ok(())
}

/// Asks for the state of many backends as often as it is given: gathering it takes a part of the
/// control thread's time that does not grow with the questions.
fn pages_are_made_from_few_looks(lb: &Pointsman) -> Result<()> {
    let begin = Instant::now();
    let ask = || -> Result<Vec<u64>> {
        let mut seen = Vec::new();
        while begin.elapsed() < Duration::from_secs(5) {
            // On a busy machine one takes longer than the client waits.
            let Ok(page) = status(lb) else { continue };
            seen.push(page["uptime_seconds"].as_f64().context("no uptime")?.to_bits());
        }
        Ok(seen)
    };
    let pages = std::thread::scope(|scope| -> Result<Vec<u64>> {
        let askers: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        let mut all = Vec::new();
        for asker in askers {
            all.extend(asker.join().map_err(|_| anyhow!("a panic"))??);
        }
        Ok(all)
    })?;
    let looks = pages.iter().collect::<BTreeSet<_>>().len();
    println!("{} pages from {looks} looks at 4,096 backends in {:?}", pages.len(), begin.elapsed());
    ensure!(looks < pages.len(), "{looks} looks for {} pages", pages.len());
    Ok(())
}
