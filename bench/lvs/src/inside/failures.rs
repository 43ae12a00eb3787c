//! What clients notice when something fails. Ten of them ask for 50 KiB over and over, each request
//! on a connection of its own with a second's patience.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Lab, LoadClient, LoadReport, NetNs, Nginx};
use rustix::process::Signal;

use super::balancers::{Kind, Running, Settings, signal_all, wait_served};
use super::{complain, print};
use crate::rows::{Failure, Row};

/// Runs all tests that are wanted.
///
/// # Errors
/// When a row cannot be written.
pub(super) fn run(wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    for (test, settings, body) in tests() {
        if !wanted(&test) {
            continue;
        }
        for kind in Kind::BOTH {
            let scene = Scene { kind, settings, test: &test };
            match body(&scene) {
                Ok(rows) => rows.into_iter().try_for_each(|row| print(&Row::Failure(row)))?,
                Err(error) => complain(&format!("{test}, {}", kind.name()), &error),
            }
        }
    }
    Ok(())
}

type Body = fn(&Scene<'_>) -> Result<Vec<Failure>>;

fn tests() -> Vec<(String, Settings, Body)> {
    let mut tests: Vec<(String, Settings, Body)> = Vec::new();
    let slow = Settings { adverts: Duration::from_secs(1), checks: Duration::from_secs(1) };
    tests.push(("steady load".into(), slow, steady));
    for seconds in [1, 6] {
        let settings = Settings { checks: Duration::from_secs(seconds), ..slow };
        tests.push((
            format!("kill -9 of the httpd in use, checks every {seconds} s"),
            settings,
            httpd,
        ));
    }
    for adverts in [1000, 100] {
        let settings = Settings { adverts: Duration::from_millis(adverts), ..slow };
        let with = |test: &str| format!("{test}, adverts every {adverts} ms");
        tests.push((with("link of the active node"), settings, link));
        tests.push((with("kill -9 of the active node's processes"), settings, |scene| {
            active(scene, Signal::KILL)
        }));
        tests.push((with("SIGSTOP of the active node's processes"), settings, |scene| {
            active(scene, Signal::STOP)
        }));
    }
    tests.push(("one node: kill -9 and start".into(), slow, |scene| restart(scene, Signal::KILL)));
    tests.push(("one node: SIGTERM and start".into(), slow, |scene| restart(scene, Signal::TERM)));
    tests
}

/// One test of one side.
struct Scene<'a> {
    kind: Kind,
    settings: Settings,
    test: &'a str,
}

/// Dropped from the top: the balancers end before their nodes.
struct Stage {
    balancers: Vec<Running>,
    web: Vec<Nginx>,
    lab: Lab,
}

impl Scene<'_> {
    /// So many balancers, of which the first is active, and clients that are served.
    fn stage(&self, balancers: u8) -> Result<Stage> {
        let lab = Lab::builder().balancers(2).backends(2).build()?;
        let web = lab.start_web()?;
        let mut running = vec![self.kind.start(&lab, 0, self.settings)?];
        wait_served(&lab)?;
        if balancers > 1 {
            running.push(self.kind.start(&lab, 1, self.settings)?);
            // The second one hears adverts, and has checked its backends.
            thread::sleep(self.settings.adverts * 3 + Duration::from_secs(2));
        }
        Ok(Stage { balancers: running, web, lab })
    }

    fn row(&self, part: &str, report: &LoadReport) -> Failure {
        let failed = report.timeline().records().iter().filter(|one| !one.outcome.is_ok());
        let begin = failed.clone().map(|one| one.start).min().unwrap_or_default();
        let end = failed.map(|one| one.end).max().unwrap_or_default();
        let failures = report.failures().into_iter();
        Failure {
            test: format!("{}{part}", self.test),
            balancer: self.kind.name().to_owned(),
            seconds: report.timeline().length().as_secs_f64(),
            done: report.done(),
            failed: report.failed(),
            gap_ms: millis(report.longest_gap().length),
            span_ms: millis(end.saturating_sub(begin)),
            failures: failures.map(|(kind, count)| (kind.label().to_owned(), count)).collect(),
            owners: None,
        }
    }

    /// A second of the load, then `event`, then the rest of it.
    fn under_load(
        &self,
        stage: &mut Stage,
        rest: Duration,
        event: impl FnOnce(&mut Stage) -> Result<()>,
    ) -> Result<LoadReport> {
        let file = stage.lab.files().ensure("50k")?;
        let patience = Duration::from_secs(1);
        let load = LoadClient::new(stage.lab.vip_port(80), &file).threads(10);
        let load = load.timeouts(patience, patience).duration(LEAD + rest);
        let load = load.start(stage.lab.client(0).netns())?;
        thread::sleep(LEAD);
        event(stage)?;
        Ok(load.finish())
    }

    /// Long enough for a node to be missed and followed.
    fn until_followed(&self) -> Duration {
        self.settings.adverts * 4 + Duration::from_secs(3)
    }
}

fn steady(scene: &Scene<'_>) -> Result<Vec<Failure>> {
    let mut stage = scene.stage(2)?;
    let report = scene.under_load(&mut stage, Duration::from_secs(4), |_| Ok(()))?;
    Ok(vec![scene.row("", &report)])
}

/// The httpd that answers a client is killed under load.
fn httpd(scene: &Scene<'_>) -> Result<Vec<Failure>> {
    let mut stage = scene.stage(2)?;
    let report = scene.under_load(&mut stage, Duration::from_secs(14), |stage| {
        let file = stage.lab.files().ensure("1b")?;
        let one = LoadClient::new(stage.lab.vip_port(80), &file).requests(1);
        let one = one.run(stage.lab.client(0).netns())?;
        let (used, _) = one.per_backend().pop_first().context("no backend answered")?;
        let used = stage.web.iter_mut().find(|web| web.name() == used);
        Ok(used.context("a backend that is not there answered")?.process().kill().map(drop)?)
    })?;
    Ok(vec![scene.row("", &report)])
}

/// The cable of the active node is pulled, and plugged in again.
fn link(scene: &Scene<'_>) -> Result<Vec<Failure>> {
    let mut stage = scene.stage(2)?;
    let rest = scene.until_followed();
    let down = scene
        .under_load(&mut stage, rest, |stage| Ok(stage.lab.unplug(stage.lab.balancer(0))?))?;
    let back = scene.under_load(&mut stage, rest + Duration::from_secs(2), |stage| {
        Ok(stage.lab.plug(stage.lab.balancer(0))?)
    })?;
    Ok(vec![scene.row(": down", &down), scene.row(": back", &back)])
}

fn active(scene: &Scene<'_>, signal: Signal) -> Result<Vec<Failure>> {
    let mut stage = scene.stage(2)?;
    let report = scene.under_load(&mut stage, scene.until_followed(), |stage| {
        signal_all(stage.lab.balancer(0), signal)
    })?;
    let owners = owners(&stage.lab)?;
    if signal == Signal::STOP {
        // Else what ends the processes would wait for them.
        signal_all(stage.lab.balancer(0), Signal::CONT)?;
    }
    Ok(vec![Failure { owners: Some(owners), ..scene.row("", &report) }])
}

fn restart(scene: &Scene<'_>, signal: Signal) -> Result<Vec<Failure>> {
    let mut stage = scene.stage(1)?;
    let (kind, settings) = (scene.kind, scene.settings);
    let report = scene.under_load(&mut stage, Duration::from_secs(9), |stage| {
        signal_all(stage.lab.balancer(0), signal)?;
        if signal == Signal::KILL {
            thread::sleep(Duration::from_millis(100));
        } else {
            wait_gone(stage.lab.balancer(0).netns())?;
        }
        stage.balancers = vec![kind.start(&stage.lab, 0, settings)?];
        Ok(())
    })?;
    Ok(vec![scene.row("", &report)])
}

/// Waits for the end of all processes of a namespace, at most ten seconds.
fn wait_gone(netns: &NetNs) -> Result<()> {
    for _ in 0..500 {
        // What it lists besides: the command itself.
        let pids = netns.run(&["ip", "netns", "pids", netns.name()], ASKING)?.ok()?;
        if pids.split_whitespace().count() <= 1 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("the balancer does not end")
}

/// How many MAC addresses answer for the VIP.
fn owners(lab: &Lab) -> Result<usize> {
    let vip = lab.vip().to_string();
    let argv = ["arping", "-c", "2", "-I", "eth0", &vip];
    let text = lab.client(0).netns().run(&argv, ASKING)?.stdout;
    let macs: BTreeSet<&str> = text.split_whitespace().filter(|word| is_mac(word)).collect();
    if macs.is_empty() {
        anyhow::bail!("nobody answers for the VIP: {text}");
    }
    Ok(macs.len())
}

fn is_mac(word: &str) -> bool {
    word.len() == 17
        && word.split(':').filter(|byte| u8::from_str_radix(byte, 16).is_ok()).count() == 6
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Load before the event.
const LEAD: Duration = Duration::from_secs(1);
const ASKING: Duration = Duration::from_secs(10);
