//! The second part of the demo: ten client threads, through the balancer and past it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use lab::{Lab, LoadClient, LoadReport, Served};

use super::{BACKENDS, Statement, progress::Progress};

/// One load that was run.
pub(crate) struct Run {
    /// For example `50 KB`.
    pub(super) file: &'static str,
    pub(super) route: Route,
    pub(super) report: LoadReport,
}

/// Which way, and from how many addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Through the balancer, from that many client addresses.
    Vip(u16),
    /// Straight to the first backend, beside it.
    Direct,
}

/// Runs all of them, `seconds` each, and prints what came out.
pub(super) fn show(lab: &Lab, seconds: u32) -> anyhow::Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (file, name, alone) in [("50 KB", "50k", 1), ("100 KB", "100k", 2)] {
        let served = lab.files().ensure(name)?;
        // An address of its own for each: the ports of the last one are still in TIME_WAIT.
        let alone = lab.client(0).sources(SOURCES + alone).pop();
        for route in [Route::Vip(1), Route::Vip(SOURCES), Route::Direct] {
            let sources = match route {
                Route::Vip(1) => alone.into_iter().collect(),
                Route::Vip(_) | Route::Direct => lab.client(0).sources(SOURCES),
            };
            let client = client(lab, &served, route, sources, seconds);
            let report = watch(lab, client, &format!("{file}, {}", route.label()))?;
            let run = Run { file, route, report };
            print_run(&run);
            runs.push(run);
        }
    }
    Ok(runs)
}

impl Route {
    /// For tables.
    pub(super) fn label(self) -> String {
        match self {
            Self::Vip(1) => "VIP, 1 client address".into(),
            Self::Vip(count) => format!("VIP, {count} client addresses"),
            Self::Direct => "straight to rs1, no balancer".into(),
        }
    }
}

fn client(
    lab: &Lab,
    served: &Served,
    route: Route,
    sources: Vec<IpAddr>,
    seconds: u32,
) -> LoadClient {
    let target: SocketAddr = match route {
        Route::Vip(_) => lab.vip_port(80),
        Route::Direct => (lab.backend(0).address(), 80).into(),
    };
    let length = Duration::from_secs(seconds.into());
    let client = LoadClient::new(target, served).threads(10).duration(length);
    // One address has 64,512 ports, and each is in TIME_WAIT for a minute.
    let most = sources.len() as f64 * 60_000.0 / f64::from(seconds);
    client.sources(sources).rate(most)
}

/// Runs a load and shows how far it is.
fn watch(lab: &Lab, client: LoadClient, what: &str) -> anyhow::Result<LoadReport> {
    let running = client.start(lab.client(0).netns())?;
    let mut progress = Progress::new();
    while !running.is_finished() {
        thread::sleep(Duration::from_millis(100));
        progress.show(what, &running)?;
    }
    progress.clear()?;
    Ok(running.finish())
}

fn print_run(run: &Run) {
    println!("  {}, {}:", run.file, run.route.label());
    for line in run.report.to_string().lines() {
        println!("    {line}");
    }
    println!();
}

/// What must hold for all of them.
pub(super) fn statements(runs: &[Run]) -> Vec<Statement> {
    let failed: usize = runs.iter().map(|run| run.report.failed()).sum();
    let done: usize = runs.iter().map(|run| run.report.done()).sum();
    let mut all = vec![Statement {
        met: failed == 0 && done > 0,
        text: format!("{done} requests, {failed} failed"),
    }];
    let through = |count| runs.iter().filter(move |run| run.route == Route::Vip(count));
    // Over all runs together: the time-out is longer than the pause between two of them.
    let mut seen: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for run in through(1).chain(through(SOURCES)) {
        for (source, backends) in run.report.backends_by_source() {
            seen.entry(source).or_default().extend(backends);
        }
    }
    let strayed = seen.values().filter(|backends| backends.len() != 1).count();
    all.push(Statement {
        met: strayed == 0 && !seen.is_empty(),
        text: format!(
            "each of {} client addresses stayed on one backend ({strayed} did not)",
            seen.len()
        ),
    });
    all.extend(through(SOURCES).map(shares));
    all
}

/// 200 sources over three backends by hash: each backend's part is 33 % with a standard deviation
/// of 3.3 %; 18 % to 48 % is 4.5 deviations to both sides.
pub(super) fn shares(run: &Run) -> Statement {
    let done = run.report.done().max(1) as f64;
    let per_backend = run.report.per_backend();
    let part = |count: &usize| 100.0 * *count as f64 / done;
    let fair = per_backend.values().all(|count| (18.0..48.0).contains(&part(count)));
    let list: Vec<String> =
        per_backend.iter().map(|(name, count)| format!("{name} {:.0} %", part(count))).collect();
    Statement {
        met: fair && per_backend.len() == usize::from(BACKENDS),
        text: format!(
            "{}, {SOURCES} addresses: every backend has its share ({})",
            run.file,
            list.join(", ")
        ),
    }
}

/// Client addresses of a load that comes from many.
pub(super) const SOURCES: u16 = 200;
