//! What runs in processes of its own, pinned to a CPU: the sender, the bare AF_XDP loop, and the balancer.

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lab::{NetNs, Process};
use xsk::{Batch, OpenConfig};

use super::programs::Programs;
use super::traffic::Traffic;

/// The same program, started to be one of them.
#[derive(Debug, Parser)]
pub enum Child {
    /// Sends.
    Send(Sender),
    /// Sends back what comes in by `eth0`, through an AF_XDP socket.
    Forward {
        /// Index of the device.
        #[arg(long)]
        ifindex: u32,
    },
}

/// Where and what.
#[derive(Clone, Debug, Parser)]
pub struct Sender {
    #[command(flatten)]
    traffic: Traffic,
    /// Index of the device.
    #[arg(long)]
    ifindex: u32,
}

impl Child {
    /// Runs until it is killed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Send(Sender { traffic, ifindex }) => Programs::load()?.send(&traffic, ifindex),
            Self::Forward { ifindex } => forward(ifindex),
        }
    }
}

/// Starts this program as another one of its names, or another program, on a CPU and before all else there.
///
/// # Errors
/// When it cannot be started.
pub fn start(
    ns: &NetNs,
    cpu: u32,
    program: &str,
    args: &[String],
    log: &std::path::Path,
) -> Result<Process> {
    let (cpu, own) = (cpu.to_string(), std::env::current_exe()?);
    let own = own.display().to_string();
    let mut argv = vec![
        "nice",
        "-n",
        "-20",
        "taskset",
        "-c",
        &cpu,
        if program == SELF { &own } else { program },
    ];
    argv.extend(args.iter().map(String::as_str));
    Ok(Process::start(ns, program, &argv, log)?)
}

/// This very program.
pub const SELF: &str = "bench";

/// Rings, MACs swapped, rings: no look at the packet.
fn forward(ifindex: u32) -> Result<()> {
    let programs = Programs::load()?;
    let config = OpenConfig { frames: 8192, ..OpenConfig::new("eth0", 0) };
    let (mut port, bound) = xsk::open(&config)?;
    ensure!(!bound.packet_socket, "no TX ring");
    programs.set_socket(port.fd().context("no socket")?)?;
    let _link = programs.attach("to_socket", ifindex)?;
    let mut batch = Batch::new();
    loop {
        port.reap();
        if port.receive(&mut batch) == 0 {
            // As a worker does; in copy mode there is nothing to wake most of the time.
            port.wake_rx()?;
        }
        for frame in batch.iter_mut() {
            let bytes = port.bytes(frame);
            if let Some(([to, from], _)) = macs(bytes) {
                to.swap_with_slice(from);
            }
        }
        port.send_all(&mut batch);
        // What the TX ring refuses does not arrive, and is seen there.
        let _ = port.flush();
    }
}

fn macs(bytes: &mut [u8]) -> Option<([&mut [u8]; 2], &mut [u8])> {
    let (macs, rest) = bytes.split_at_mut_checked(12)?;
    let (to, from) = macs.split_at_mut(6);
    Some(([to, from], rest))
}
