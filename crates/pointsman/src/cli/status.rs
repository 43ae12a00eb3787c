//! `pointsman status`: what the running daemon does.

use std::fmt::Write;
use std::path::PathBuf;

use api::request::GetStatus;
use api::status::{self, Backend, BackendState, Interface, OperatorChange, Service, XdpMode};
use clap::Args;

use super::{Exit, default_socket, say};
use crate::serve::control_socket::ask;

/// Show what the running balancer does
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print the whole state as JSON
    #[arg(long)]
    json: bool,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
    /// Exit with 4 unless every queue is bound and every backend up
    #[arg(long)]
    exit_code: bool,
}

impl Status {
    pub(super) fn run(&self) -> Exit {
        let status = match ask(&self.socket, GetStatus) {
            Ok(status) => status,
            Err(error) => return error.into(),
        };
        if self.json {
            say(&format!("{:#}", serde_json::json!(status)));
        } else {
            say(table(&status).trim_end());
        }
        let one_owner = status.vrrp.iter().all(|instance| instance.two_owners().is_none());
        let well =
            status.ready && one_owner && backends(&status).all(|backend| backend.state.serves());
        if self.exit_code && !well { Exit::Degraded } else { Exit::Done }
    }
}

fn backends(status: &status::Status) -> impl Iterator<Item = &Backend> {
    status.services.iter().flat_map(|service| &service.backends)
}

/// The state for people, at most 100 columns.
fn table(status: &status::Status) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut out, status);
    out
}

fn write_table(out: &mut String, status: &status::Status) -> std::fmt::Result {
    let ready = if status.ready { "ready" } else { "NOT READY" };
    writeln!(
        out,
        "pointsman {} on {}   up {}   {ready}",
        status.program,
        status.node,
        duration(status.uptime_seconds)
    )?;
    write_troubles(out, status)?;
    write_interfaces(out, status)?;
    for service in &status.services {
        write_service(out, service)?;
    }
    if status.services.iter().any(|service| service.silent_here) {
        writeln!(
            out,
            "\nVIPs that are active here do not answer programs on this node: try them from another \
             host."
        )?;
    }
    let drops: Vec<String> = status
        .dropped
        .iter()
        .filter(|count| count.value > 0)
        .map(|count| format!("{} {}", count.name.name(), count.value))
        .collect();
    if !drops.is_empty() {
        writeln!(out, "\ndropped: {}", drops.join(", "))?;
    }
    Ok(())
}

/// What an operator must know before all else.
fn write_troubles(out: &mut String, status: &status::Status) -> std::fmt::Result {
    for trouble in status.vrrp.iter().filter_map(status::Vrrp::two_owners) {
        writeln!(out, "!  degraded: {trouble}")?;
    }
    if let Some(seconds) = status.configuration.rollback_seconds {
        writeln!(
            out,
            "!  configuration: rolled back in {} unless `pointsman confirm` comes",
            duration(seconds)
        )?;
    }
    if status.configuration.last_refused {
        writeln!(out, "!  configuration: the last reload was refused, the file has a mistake")?;
    }
    for reason in &status.not_ready {
        writeln!(out, "!  {reason}")?;
    }
    Ok(())
}

fn write_interfaces(out: &mut String, status: &status::Status) -> std::fmt::Result {
    for interface in &status.interfaces {
        nic(out, status, interface)?;
    }
    Ok(())
}

fn write_service(out: &mut String, service: &Service) -> std::fmt::Result {
    writeln!(
        out,
        "\n{} {}:{} {} {}  {}{}{}",
        service.protocol.name().to_uppercase(),
        service.vip,
        service.port,
        service.name,
        service.scheduler.name(),
        service
            .persistence_seconds
            .map(|seconds| format!("persistent {seconds} s{}  ", group(service)))
            .unwrap_or_default(),
        quorum(service),
        if service.steered { "" } else { "not steered yet" },
    )?;
    writeln!(
        out,
        "  -> {:<28} {:>6} {:>10} {:>10} {:>14}  STATE",
        "BACKEND", "WEIGHT", "ACTIVE", "INACTIVE", "PACKETS"
    )?;
    for backend in &service.backends {
        writeln!(
            out,
            "  -> {:<28} {:>6} {:>10} {:>10} {:>14}  {} {}{}",
            name(backend),
            backend.weight,
            backend.active,
            backend.inactive,
            backend.packets,
            state(backend.state),
            duration(backend.since_seconds),
            why(backend),
        )?;
    }
    Ok(())
}

fn nic(out: &mut String, status: &status::Status, interface: &Interface) -> std::fmt::Result {
    let mut workers = status.workers.iter().filter(|worker| worker.interface == interface.name);
    writeln!(
        out,
        "NIC  {}  {}/{}  {}/{} queues bound  link {}",
        interface.name,
        interface.xdp.map_or("-", XdpMode::name),
        if workers.any(|worker| worker.zero_copy) { "zero-copy" } else { "copy" },
        interface.queues_bound,
        interface.queues_wanted,
        if interface.up { "up" } else { "DOWN" },
    )?;
    let (on, why) = (interface.fast_path, &interface.fast_path_reason);
    write!(out, "     fast path {}: {why}", if on { "on" } else { "off" })?;
    match interface.fast_path_lost {
        0 => writeln!(out),
        lost => writeln!(out, "; {lost} packets lost in the driver"),
    }
}

/// The group that a service shares its templates with.
fn group(service: &Service) -> String {
    let group = service.persistence_group.as_ref();
    group.map(|group| format!(" with group {group}")).unwrap_or_default()
}

/// What there is to say of a service that is not whole.
fn quorum(service: &Service) -> String {
    let (healthy, total) = (service.healthy_weight, service.total_weight);
    let fallback = if service.fallback_active { ", fallback active" } else { "" };
    if service.quorum {
        return String::new();
    }
    format!("NO QUORUM: {healthy} of {total} weight up{fallback}  ")
}

/// What is not well stands out.
fn state(state: BackendState) -> String {
    let name = state.name();
    if state == BackendState::Up { name.to_owned() } else { name.to_uppercase() }
}

fn why(backend: &Backend) -> String {
    match (&backend.operator, &backend.reason) {
        (Some(OperatorChange::Drained), _) => ": by an operator".to_owned(),
        (Some(OperatorChange::Weight), _) => ": weight by an operator".to_owned(),
        (None, Some(why)) => format!(": {why}"),
        (None, None) => String::new(),
    }
}

fn name(backend: &Backend) -> String {
    let Backend { name, address, .. } = backend;
    let role = if backend.fallback { " (fallback)" } else { "" };
    format!("{name} {address}{role}")
}

/// `3d 04:11:09`, or without the days below one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds")]
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, rest) = (whole / 86_400, whole % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}d {clock}") } else { clock }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_quorum_is_seen_at_once() {
        let status = status::example();
        let expected = "\
pointsman 0.0.0 on lb1   up 00:01:40   ready

TCP 192.0.2.10:80 web maglev  NO QUORUM: 1 of 3 weight up, fallback active  \n  \
-> BACKEND                      WEIGHT     ACTIVE   INACTIVE        PACKETS  STATE
  -> rs1 192.0.2.11                    1          2          3              7  \
up 00:01:30: 2 successes
  -> rs2 192.0.2.12                    2          0          0              0  \
DOWN 00:00:03: sentinel closed, connect refused
  -> sorry 192.0.2.99 (fallback)       1          0          0              0  up 00:01:40
";
        assert_eq!(table(&status), expected);
    }

    #[test]
    fn a_vip_that_is_active_here_is_said_to_be_silent_here() {
        let mut status = status::example();
        let said = |status: &status::Status| table(status).contains("try them from another host");
        assert!(!said(&status), "a Backup reaches the VIP like any host");
        status.services[0].silent_here = true;
        assert!(said(&status), "{}", table(&status));
    }

    #[test]
    fn durations_as_operators_read_them() {
        assert_eq!(duration(0.9), "00:00:00");
        assert_eq!(duration(86_399.0), "23:59:59");
        assert_eq!(duration(273_600.0), "3d 04:00:00");
        assert_eq!(duration(-1.0), "00:00:00");
    }
}
