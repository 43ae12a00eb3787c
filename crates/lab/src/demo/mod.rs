//! `pointsman-lab demo`: shows in about a minute what the product does, and checks it.
//!
//! Owns the order of the steps and the verdicts. A verdict that is not met makes the demo fail, at
//! the end: the report is written all the same.

mod packets;
mod report;
mod svg;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lab::{
    Lab, LoadClient, LoadReport, Served, ServiceText,
    host::{require_root, require_tools},
    node::Role,
    pointsman_binary,
};

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the report goes.
    #[arg(long, default_value = "demo-report.html")]
    report: PathBuf,
    /// Two seconds per step instead of nine.
    #[arg(long)]
    quick: bool,
}

/// One load that was run.
pub(crate) struct Run {
    /// For example `50 KB`.
    file: &'static str,
    route: Route,
    report: LoadReport,
}

/// Which way, and from how many addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Through the balancer, from that many client addresses.
    Vip(u16),
    /// Straight to the first backend, beside it.
    Direct,
}

/// A statement that the demo checked.
pub(crate) struct Verdict {
    met: bool,
    text: String,
}

/// All that the report shows.
pub(crate) struct Results {
    packets: packets::Evidence,
    runs: Vec<Run>,
    verdicts: Vec<Verdict>,
    /// Name, address and MAC of every node.
    nodes: Vec<(String, String, String)>,
    vip: IpAddr,
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    require_root()?;
    require_tools(&["ip", "tc", "ethtool", "setpriv", "nginx", "tcpdump"])?;
    pointsman_binary()?;
    let begin = Instant::now();
    let lab = Lab::builder().backends(BACKENDS).queues(4).build().context("build the lab")?;
    let _web = lab.start_web().context("start the backends")?;
    let config = ServiceText::web(&lab).persistence("50s").to_toml();
    let balancer = lab.start_pointsman(0, &config).context("start the balancer")?;
    print_lab(&lab, begin.elapsed());

    println!("\n1. What happens to a packet\n");
    let packets = packets::show(&lab).context("capture packets")?;
    println!("{packets}");

    println!("2. Ten threads, a new connection for every request, persistence 50 s\n");
    let seconds = if options.quick { 2 } else { 9 };
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
            let client = client(&lab, &served, route, sources, seconds);
            let report = watch(&lab, client, &format!("{file}, {}", route.label()))?;
            let run = Run { file, route, report };
            print_run(&run);
            runs.push(run);
        }
    }
    let verdicts = verdicts(&packets, &runs);
    println!("3. Verdict\n");
    for verdict in &verdicts {
        println!("  {} {}", if verdict.met { "yes" } else { "NO " }, verdict.text);
    }
    drop(balancer);
    let results = Results { nodes: nodes(&lab), vip: lab.vip().into(), packets, runs, verdicts };
    std::fs::write(&options.report, report::html(&results))
        .with_context(|| format!("write {}", options.report.display()))?;
    println!("\nReport with plots: {}", options.report.display());
    println!("Whole demo: {:.0} s", begin.elapsed().as_secs_f64());
    let missed = results.verdicts.iter().filter(|verdict| !verdict.met).count();
    anyhow::ensure!(missed == 0, "{missed} of {} statements do not hold", results.verdicts.len());
    Ok(())
}

impl Route {
    /// For tables.
    fn label(self) -> String {
        match self {
            Self::Vip(1) => "VIP, 1 client address".into(),
            Self::Vip(count) => format!("VIP, {count} client addresses"),
            Self::Direct => "straight to rs1, no balancer".into(),
        }
    }
}

fn print_lab(lab: &Lab, took: Duration) {
    println!("A network of {} machines (network namespaces), up in {took:.1?}:", 3 + BACKENDS);
    println!("  VIP      {}", lab.vip());
    for (name, address, mac) in nodes(lab) {
        println!("  {name:8} {address:12} {mac}");
    }
    println!("  all on one switch; the backends run nginx and hold the VIP on lo, silently.");
}

fn nodes(lab: &Lab) -> Vec<(String, String, String)> {
    let roles = [Role::Client, Role::Balancer, Role::Backend];
    let all = roles.into_iter().flat_map(|role| lab.nodes_of(role));
    all.map(|node| (node.name(), node.address().to_string(), lab::pcap::mac(node.mac()))).collect()
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
    let mut out = std::io::stdout();
    let terminal = out.is_terminal();
    let mut last = Instant::now();
    while !running.is_finished() {
        thread::sleep(Duration::from_millis(100));
        let (done, failed) = running.progress();
        if terminal {
            write!(out, "\r  {what}: {done} done, {failed} failed ")?;
            out.flush()?;
        } else if last.elapsed() > Duration::from_secs(3) {
            last = Instant::now();
            writeln!(out, "  {what}: {done} done, {failed} failed so far")?;
        }
    }
    if terminal {
        write!(out, "\r\x1b[K")?;
    }
    Ok(running.finish())
}

fn print_run(run: &Run) {
    println!("  {}, {}:", run.file, run.route.label());
    for line in run.report.to_string().lines() {
        println!("    {line}");
    }
    println!();
}

fn verdicts(packets: &packets::Evidence, runs: &[Run]) -> Vec<Verdict> {
    let failed: usize = runs.iter().map(|run| run.report.failed()).sum();
    let done: usize = runs.iter().map(|run| run.report.done()).sum();
    let mut all = vec![
        Verdict {
            met: packets.unchanged(),
            text: format!(
                "{} frames on both sides of the balancer: all bytes equal but the two MAC addresses",
                packets.comparison.equal
            ),
        },
        Verdict {
            met: packets.only_client_and_vip(),
            text: "at the backend only the client's address and the VIP appear".into(),
        },
        Verdict { met: failed == 0 && done > 0, text: format!("{done} requests, {failed} failed") },
    ];
    let through = |count| runs.iter().filter(move |run| run.route == Route::Vip(count));
    // Over all runs together: the time-out is longer than the pause between two of them.
    let mut seen: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for run in through(1).chain(through(SOURCES)) {
        for (source, backends) in run.report.backends_by_source() {
            seen.entry(source).or_default().extend(backends);
        }
    }
    let strayed = seen.values().filter(|backends| backends.len() != 1).count();
    all.push(Verdict {
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
fn shares(run: &Run) -> Verdict {
    let done = run.report.done().max(1) as f64;
    let per_backend = run.report.per_backend();
    let part = |count: &usize| 100.0 * *count as f64 / done;
    let fair = per_backend.values().all(|count| (18.0..48.0).contains(&part(count)));
    let list: Vec<String> =
        per_backend.iter().map(|(name, count)| format!("{name} {:.0} %", part(count))).collect();
    Verdict {
        met: fair && per_backend.len() == usize::from(BACKENDS),
        text: format!(
            "{}, {SOURCES} addresses: every backend has its share ({})",
            run.file,
            list.join(", ")
        ),
    }
}

const BACKENDS: u8 = 3;
const SOURCES: u16 = 200;

#[cfg(test)]
mod tests;
