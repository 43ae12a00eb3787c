//! `pointsman-lab demo`: shows in a minute and a half what the product does, and checks it.
//!
//! Owns the order of the steps and whether all statements held. A statement that does not hold makes the demo fail,
//! at the end: the report is written all the same. Each step has a file: [`packets`] and [`loads`]
//! share a lab with one balancer; the others, such as [`killed`] and
//! [`failover`], have one each and record a [`story::Story`].

mod checks;
mod failover;
mod killed;
mod loads;
mod packets;
mod progress;
mod report;
mod silent;
mod story;
mod svg;

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lab::{
    Lab, ServiceText,
    host::{require_root, require_tools},
    node::Role,
    pointsman_binary,
};
use loads::Run;
use story::Story;

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the report goes.
    #[arg(long, default_value = "demo-report.html")]
    report: PathBuf,
    /// Shorter steps, for a first look.
    #[arg(long)]
    quick: bool,
}

/// A statement that the demo checked.
pub(crate) struct Statement {
    met: bool,
    text: String,
}

/// All that the report shows.
pub(crate) struct Results {
    packets: packets::Evidence,
    runs: Vec<Run>,
    stories: Vec<Story>,
    statements: Vec<Statement>,
    /// Name, address and MAC of every node.
    nodes: Vec<(String, String, String)>,
    vip: IpAddr,
}

impl Results {
    /// Prints a story and keeps it.
    fn tell(&mut self, (story, statements): (Story, Vec<Statement>)) {
        println!("{story}");
        self.stories.push(story);
        self.statements.extend(statements);
    }
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    require_root()?;
    require_tools(&["ip", "tc", "ethtool", "setpriv", "nginx", "tcpdump"])?;
    pointsman_binary()?;
    let begin = Instant::now();
    let mut results = one_balancer(options, begin)?;
    println!("3. The nginx in use is killed under load, and comes back\n");
    results.tell(killed::run(options.quick).context("Test I")?);
    println!("4. A host falls silent, a server is frozen, and both come back\n");
    results.tell(silent::run(options.quick).context("silent host, frozen server")?);
    println!("5. The Active balancer is lost under load, and comes back\n");
    results.tell(failover::run(options.quick).context("Test II")?);

    println!("6. Statement\n");
    for verdict in &results.statements {
        println!("  {} {}", if verdict.met { "yes" } else { "NO " }, verdict.text);
    }
    std::fs::write(&options.report, report::html(&results))
        .with_context(|| format!("write {}", options.report.display()))?;
    println!("\nReport with plots: {}", options.report.display());
    println!("Whole demo: {:.0} s", begin.elapsed().as_secs_f64());
    let missed = results.statements.iter().filter(|verdict| !verdict.met).count();
    anyhow::ensure!(missed == 0, "{missed} of {} statements do not hold", results.statements.len());
    Ok(())
}

/// The steps that one balancer is enough for.
fn one_balancer(options: &Options, begin: Instant) -> anyhow::Result<Results> {
    let lab = Lab::builder().backends(BACKENDS).queues(QUEUES).build().context("build the lab")?;
    let _web = lab.start_web().context("start the backends")?;
    let config = ServiceText::web(&lab).persistence("50s").to_toml();
    let _balancer = lab.start_pointsman(0, &config).context("start the balancer")?;
    print_lab(&lab, begin.elapsed());

    println!("\n1. What happens to a packet\n");
    let packets = packets::show(&lab).context("capture packets")?;
    println!("{packets}");

    println!("2. Ten threads, a new connection for every request, persistence 50 s\n");
    let runs = loads::show(&lab, if options.quick { 2 } else { 5 })?;
    let mut statements = packets.statements();
    statements.extend(loads::statements(&runs));
    let (nodes, vip) = (nodes(&lab), lab.vip().into());
    Ok(Results { packets, runs, stories: Vec::new(), statements, nodes, vip })
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

const BACKENDS: u8 = 3;
/// Receive queues of a balancer.
const QUEUES: u8 = 4;

#[cfg(test)]
mod tests;
