//! `pointsman vrrp`: who is Active, and why.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Exit, default_socket, print_error, say};
use crate::serve::control_socket::{AskError, Resign, ask, ask_with};
use crate::status::{ForeignClaim, Status, Vrrp as Instance};

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
        let result = match self.action {
            None => ask(&self.socket, "status").map(|value| show(&value, self.json)),
            Some(Action::Resign { time, instance }) => {
                let for_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let arguments = serde_json::json!(Resign { instance, for_ms });
                ask_with(&self.socket, "vrrp-resign", arguments).map(|told| {
                    let names = told.get("resigned").and_then(Value::as_array);
                    for name in names.into_iter().flatten().filter_map(Value::as_str) {
                        say(&format!("{name} resigns and does not preempt for {time:?}"));
                    }
                    Exit::Done
                })
            }
        };
        result.unwrap_or_else(|error| {
            print_error(&format!("error: {error}"));
            match error {
                AskError::NotRunning(..) => Exit::NotRunning,
                AskError::Refused(_) => Exit::Failed,
            }
        })
    }
}

fn show(value: &Value, json: bool) -> Exit {
    if json {
        let instances = value.get("vrrp").cloned().unwrap_or_default();
        say(&format!("{instances:#}"));
        return Exit::Done;
    }
    match serde_json::from_value::<Status>(value.clone()) {
        Ok(status) if status.vrrp.is_empty() => say("no VRRP instances"),
        Ok(status) => {
            let mut out = String::new();
            for instance in &status.vrrp {
                // Writing to a String cannot fail.
                let _ = write_instance(&mut out, instance);
            }
            say(out.trim_end());
        }
        Err(error) => {
            print_error(&format!("error: the daemon's status is not understood: {error}"));
            return Exit::Failed;
        }
    }
    Exit::Done
}

fn write_instance(out: &mut String, instance: &Instance) -> std::fmt::Result {
    let state = match instance.state.as_str() {
        "active" => "ACTIVE (MASTER)",
        "backup" => "BACKUP",
        _ => "INITIALIZE",
    };
    let since = instance.since_seconds.map(|s| format!(" for {s:.1} s")).unwrap_or_default();
    writeln!(out, "{}  {state}{since}: {}", instance.name, instance.why)?;
    let Instance { interface, vrid, version, .. } = instance;
    writeln!(
        out,
        "  {interface}, VRID {vrid}, version {version}, every {} s, checksum {}",
        instance.advert_interval_seconds, instance.checksum
    )?;
    let held = if instance.vips_active { "active here" } else { "not active here" };
    writeln!(out, "  VIPs {held}: {}", instance.vips.join(", "))?;
    writeln!(
        out,
        "  priority {} (configured {}): {}",
        instance.effective_priority, instance.configured_priority, instance.priority_why
    )?;
    if let Some(blocked) = &instance.blocked {
        writeln!(out, "  cannot forward: {blocked}")?;
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
        let who = backend.as_ref().map(|name| format!(", backend {name}")).unwrap_or_default();
        writeln!(
            out,
            "  claimed by others: {} times, last {vip} by {mac}{who}, {age_seconds:.1} s ago",
            instance.foreign_claims
        )?;
    }
    let rejected: u64 = instance.rejected.iter().map(|count| count.value).sum();
    writeln!(
        out,
        "  adverts: {} sent, {} received, {rejected} not believed, {} not sent, {} lost\n",
        instance.sent, instance.received, instance.send_failed, instance.overflowed
    )
}

fn humantime_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}
