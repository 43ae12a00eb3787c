//! `pointsman vrrp`: who is Active, and why.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::request::{GetStatus, Resign};
use api::status::{ForeignClaim, Status, Vrrp as Instance};
use clap::{Args, Subcommand};

use super::{Exit, default_socket, say};
use crate::serve::control_socket::{AskError, ask};

/// Show the VRRP instances, or have them give their VIPs away
#[derive(Debug, Args)]
pub(super) struct Vrrp {
    /// Print the instances as JSON
    #[arg(long)]
    json: bool,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket(), global = true)]
    socket: PathBuf,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give the VIPs to another node
    Resign {
        /// Do not take them back for so long while another node is Active
        #[arg(long = "for", value_parser = humantime_duration, default_value = "60s")]
        time: Duration,
        /// Name of one instance; default: all
        instance: Option<String>,
    },
}

impl Vrrp {
    pub(super) fn run(self) -> Exit {
        let Self { json, socket, action } = self;
        let result = match action {
            None => ask(&socket, GetStatus).map(|status| show(&status, json)),
            Some(Action::Resign { time, instance }) => resign(&socket, instance, time),
        };
        result.map_or_else(Exit::from, |()| Exit::Done)
    }
}

fn resign(socket: &Path, instance: Option<String>, time: Duration) -> Result<(), AskError> {
    let for_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for name in ask(socket, Resign { instance, for_ms })?.resigned {
        say(&format!("{name} resigns and does not preempt for {time:?}"));
    }
    Ok(())
}

fn show(status: &Status, json: bool) {
    if json {
        return say(&format!("{:#}", serde_json::json!(status.vrrp)));
    }
    if status.vrrp.is_empty() {
        return say("no VRRP instances");
    }
    let mut out = String::new();
    for instance in &status.vrrp {
        // Writing to a String cannot fail.
        let _ = write_instance(&mut out, instance);
    }
    say(out.trim_end());
}

fn write_instance(out: &mut String, instance: &Instance) -> std::fmt::Result {
    let state = instance.state.shown();
    let since = instance.since_seconds.map(|s| format!(" for {s:.1} s")).unwrap_or_default();
    writeln!(out, "{}  {state}{since}: {}", instance.name, instance.why)?;
    let Instance { interface, vrid, version, .. } = instance;
    writeln!(
        out,
        "  {interface}, VRID {vrid}, version {version}, every {} s, checksum {}",
        instance.advert_interval_seconds,
        instance.checksum.name()
    )?;
    let held = if instance.vips_active { "active here" } else { "not active here" };
    let vips: Vec<String> = instance.vips.iter().map(ToString::to_string).collect();
    writeln!(out, "  VIPs {held}: {}", vips.join(", "))?;
    writeln!(
        out,
        "  priority {} (configured {}): {}",
        instance.effective_priority, instance.configured_priority, instance.priority_why
    )?;
    if let Some(blocked) = &instance.blocked {
        writeln!(out, "  cannot forward: {}", blocked.help())?;
    }
    if let Some(seconds) = instance.resigned_seconds {
        writeln!(out, "  resigned: does not preempt for {seconds:.0} s")?;
    }
    if let Some(trouble) = instance.two_owners() {
        writeln!(out, "  DEGRADED: {trouble}")?;
    }
    for peer in &instance.peers {
        writeln!(
            out,
            "  peer {}: priority {}, heard {:.2} s ago, {} adverts",
            peer.address, peer.priority, peer.age_seconds, peer.adverts
        )?;
    }
    if let Some(claim) = &instance.last_foreign_claim {
        let ForeignClaim { vip, mac, backend, age_seconds } = claim;
        let owner = backend.as_ref().map(|name| format!(", backend {name}")).unwrap_or_default();
        writeln!(
            out,
            "  claimed by others: {} times, last {vip} by {mac}{owner}, {age_seconds:.1} s ago",
            instance.foreign_claims
        )?;
    }
    let rejected: u64 = instance.rejected.iter().map(|count| count.value).sum();
    writeln!(
        out,
        "  adverts: {} sent, {} received, {rejected} discarded, {} not sent, {} lost\n",
        instance.sent, instance.received, instance.send_failed, instance.overflowed
    )
}

fn humantime_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}
