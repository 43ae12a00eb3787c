//! `pointsman-lab`: shows the product at work in a network in a box.
//!
//! Reads the command line and nothing else; the lab itself is the library.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command-line program talks on its standard output")]
#![expect(clippy::print_stderr, reason = "and says on its standard error what went wrong")]

mod demo;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use lab::{Lab, Node, ServiceText, clean, node::Role};

/// Clients, a switch, balancers and backends in network namespaces.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show in about a minute what the product does, and write a report.
    Demo(demo::Options),
    /// Keep a lab running until Ctrl-C.
    Up(Up),
    /// Remove what labs of dead processes left behind, and kill what still runs in them.
    Clean,
}

#[derive(Debug, clap::Args)]
struct Up {
    /// Number of clients.
    #[arg(long, default_value_t = 1)]
    clients: u8,
    /// Number of balancers.
    #[arg(long, default_value_t = 1)]
    balancers: u8,
    /// Number of backends.
    #[arg(long, default_value_t = 3)]
    backends: u8,
    /// Queues of each balancer's interface.
    #[arg(long, default_value_t = 1)]
    queues: u8,
    /// Do not start pointsman on the first balancer.
    #[arg(long)]
    no_pointsman: bool,
}

fn main() -> ExitCode {
    let result = run(Cli::parse());
    clean::wait_if_ending();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pointsman-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    clean::clean_up_on_signals()?;
    match cli.verb {
        Verb::Demo(options) => demo::run(&options),
        Verb::Up(up) => keep_up(&up),
        Verb::Clean => {
            lab::host::require_root()?;
            let removed = clean::dead_labs()?;
            let (namespaces, directories) = (removed.namespaces.len(), removed.directories.len());
            println!(
                "removed {namespaces} namespaces and {directories} directories, killed {} processes",
                removed.processes
            );
            Ok(())
        }
    }
}

fn keep_up(up: &Up) -> anyhow::Result<()> {
    let lab = Lab::builder()
        .clients(up.clients)
        .balancers(up.balancers)
        .backends(up.backends)
        .queues(up.queues)
        .build()
        .context("build the lab")?;
    let _web = lab.start_web()?;
    for name in ["1b", "50k", "100k", "1m", "100m"] {
        lab.files().ensure(name)?;
    }
    let balancer = match up.no_pointsman || up.balancers == 0 {
        true => None,
        false => {
            Some(lab.start_pointsman(0, &ServiceText::web(&lab).persistence("50s").to_toml())?)
        }
    };
    println!("The lab is up. VIP {}, files /1b /50k /100k /1m /100m.\n", lab.vip());
    let enter = |node: &Node| {
        let (name, netns) = (node.name(), node.netns().name());
        println!("  {name:9} {:12} ip netns exec {netns} bash", node.address().to_string());
    };
    [Role::Client, Role::Balancer, Role::Backend]
        .into_iter()
        .for_each(|role| lab.nodes_of(role).for_each(enter));
    println!("  {:9} {:12} ip netns exec {} bash", "switch", "", lab.switch().name());
    if let Some(balancer) = &balancer {
        println!("\npointsman runs on lb1 with {}", balancer.config().display());
        println!("  its log: {}", balancer.config().with_file_name("pointsman.log").display());
    }
    println!("\nTry: ip netns exec {} curl -sI {}/1b", lab.client(0).netns().name(), lab.vip());
    println!("Ctrl-C ends it and removes everything.");
    loop {
        std::thread::park();
    }
}
