//! The state for people: at most 100 columns, but for long names and reasons.

use std::fmt::{self, Write};

use api::status::{
    Backend, BackendState, Interface, OperatorChange, Service, Status, Vrrp, XdpMode,
};

/// The whole state; with every backend if `backends`.
pub(super) fn table(status: &Status, backends: bool) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_table(&mut out, status, backends);
    out
}

fn write_table(out: &mut String, status: &Status, backends: bool) -> fmt::Result {
    write_head(out, status)?;
    for instance in &status.vrrp {
        write_instance(out, instance)?;
    }
    for interface in &status.interfaces {
        write_interface(out, status, interface)?;
    }
    if !status.services.is_empty() {
        writeln!(
            out,
            "\n{:<15} {:<9} {:<13} {:>12} {:>8} {:>9} {:>9} {:>9}  SERVICE",
            "VIP", "PORT", "BACKENDS", "SESSIONS", "NEW/S", "PPS", "IN Mb/s", "OUT Mb/s"
        )?;
    }
    for service in &status.services {
        write_service(out, status, service)?;
        if backends {
            write_backends(out, service)?;
        }
    }
    write_troubles(out, status)?;
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
        .map(|count| format!("{} {}", count.name.name(), grouped(count.value)))
        .collect();
    if drops.is_empty() { Ok(()) } else { writeln!(out, "\ndropped: {}", drops.join(", ")) }
}

fn write_head(out: &mut String, status: &Status) -> fmt::Result {
    let Status { program, node, uptime_seconds, configuration, .. } = status;
    let ready = if status.ready { "ready" } else { "NOT READY" };
    write!(out, "pointsman {program} on {node}   up {}   {ready}", duration(*uptime_seconds))?;
    if configuration.hash.is_empty() {
        return writeln!(out);
    }
    let age = duration(configuration.age_seconds);
    writeln!(out, "   configuration {} for {age}", configuration.hash)
}

fn write_instance(out: &mut String, instance: &Vrrp) -> fmt::Result {
    let Vrrp { name, effective_priority, configured_priority, .. } = instance;
    let since = instance.since_seconds.map(duration).unwrap_or_default();
    write!(
        out,
        "VRRP  {name}  {}  {since}  priority {effective_priority}",
        instance.state.shown()
    )?;
    if effective_priority != configured_priority {
        write!(out, " of {configured_priority}: {}", instance.priority_why)?;
    }
    for peer in &instance.peers {
        let (address, priority, age) = (peer.address, peer.priority, peer.age_seconds);
        write!(out, "  peer {address} priority {priority} heard {age:.1} s ago")?;
    }
    writeln!(out)
}

fn write_interface(out: &mut String, status: &Status, interface: &Interface) -> fmt::Result {
    let mut workers = status.workers.iter().filter(|worker| worker.interface == interface.name);
    writeln!(
        out,
        "NIC   {}  {}/{}  {}/{} queues bound  link {}",
        interface.name,
        interface.xdp.map_or("-", XdpMode::name),
        if workers.any(|worker| worker.zero_copy) { "zero-copy" } else { "copy" },
        interface.queues_bound,
        interface.queues_wanted,
        if interface.up { "up" } else { "DOWN" },
    )?;
    let (on, why) = (interface.fast_path, &interface.fast_path_reason);
    let mut text = format!("fast path {}: {why}", if on { "on" } else { "off" });
    if interface.fast_path_lost > 0 {
        write!(text, "; {} packets lost in the driver", interface.fast_path_lost)?;
    }
    write_wrapped(out, &text)
}

/// Writes lines that are indented and no wider than a terminal of 100 columns, broken at blanks.
fn write_wrapped(out: &mut String, text: &str) -> fmt::Result {
    const INDENT: &str = "      ";
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && INDENT.len() + line.chars().count() + 1 + word.len() > 100 {
            writeln!(out, "{INDENT}{line}")?;
            line.clear();
        }
        line.push_str(if line.is_empty() { "" } else { " " });
        line.push_str(word);
    }
    writeln!(out, "{INDENT}{line}")
}

fn write_service(out: &mut String, status: &Status, service: &Service) -> fmt::Result {
    let port = port(service);
    let (up, others) = count(service);
    let others = if others == 0 { "0 down".to_owned() } else { format!("{others} NOT UP") };
    let sessions: u64 = service.backends.iter().map(|backend| backend.active).sum();
    let sessions = format!("{}/{}", grouped(sessions), short(status.flow_capacity));
    let rates = &service.rates;
    writeln!(
        out,
        "{:<15} {port:<9} {:<13} {sessions:>12} {:>8} {:>9} {:>9.1} {:>9.1}  {}",
        service.vip.to_string(),
        format!("{up} up {others}"),
        grouped(whole(rates.connections)),
        grouped(whole(rates.packets)),
        megabits(rates.bytes),
        megabits(rates.acked_bytes),
        service.name,
    )
}

/// Backends that are up, and others; a fallback that is not in use is neither.
fn count(service: &Service) -> (usize, usize) {
    let counted = service.backends.iter().filter(|one| !one.fallback || service.fallback_active);
    let (up, others): (Vec<_>, Vec<_>) = counted.partition(|one| one.state == BackendState::Up);
    (up.len(), others.len())
}

fn write_backends(out: &mut String, service: &Service) -> fmt::Result {
    writeln!(
        out,
        "  -> {:<28} {:>6} {:>10} {:>10} {:>14}  STATE",
        "BACKEND", "WEIGHT", "ACTIVE", "INACTIVE", "PACKETS"
    )?;
    for backend in &service.backends {
        writeln!(
            out,
            "  -> {:<28} {:>6} {:>10} {:>10} {:>14}  {}",
            name(backend),
            backend.weight,
            backend.active,
            backend.inactive,
            backend.packets,
            state(backend),
        )?;
    }
    Ok(())
}

/// Everything that is not well, a line each.
fn write_troubles(out: &mut String, status: &Status) -> fmt::Result {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(
        status.vrrp.iter().filter_map(Vrrp::two_owners).map(|why| format!("degraded: {why}")),
    );
    if let Some(seconds) = status.configuration.rollback_seconds {
        let left = duration(seconds);
        lines
            .push(format!("configuration: rolled back in {left} unless `pointsman confirm` comes"));
    }
    if status.configuration.last_refused {
        lines.push("configuration: the last reload was refused, the file has a mistake".to_owned());
    }
    lines.extend(status.not_ready.iter().cloned());
    lines.extend(status.interfaces.iter().flat_map(interface_troubles));
    for worker in &status.workers {
        let at = format!("{} queue {}", worker.interface, worker.queue);
        lines.extend(worker.error.iter().map(|error| format!("{at}: {error}")));
        lines.extend(worker.stalled.then(|| format!("{at}: what it sends does not leave")));
    }
    lines.extend(status.services.iter().flat_map(service_troubles));
    lines.extend(table_troubles(status));
    if !lines.is_empty() {
        writeln!(out)?;
    }
    lines.iter().try_for_each(|line| writeln!(out, "!  {line}"))
}

fn interface_troubles(interface: &Interface) -> Vec<String> {
    let name = &interface.name;
    let mut lines: Vec<String> =
        interface.trouble.iter().map(|trouble| format!("{name}: {trouble}")).collect();
    if interface.blind {
        lines.push(format!("{name}: the card receives frames and the XDP program sees none"));
    }
    lines
}

fn service_troubles(service: &Service) -> Vec<String> {
    let at = format!("{} {}", service.name, port(service));
    let mut lines = Vec::new();
    if !service.quorum {
        let (healthy, total) = (service.healthy_weight, service.total_weight);
        let fallback = if service.fallback_active { ", fallback active" } else { "" };
        lines.push(format!("{at}: NO QUORUM, {healthy} of {total} weight up{fallback}"));
    }
    if !service.steered {
        lines.push(format!("{at}: the VIP is not steered yet"));
    }
    let troubled = service.backends.iter().filter(|backend| backend.state != BackendState::Up);
    lines.extend(troubled.map(|one| format!("{at} backend {} {}", name(one), state(one))));
    lines
}

/// Tables that fill up.
fn table_troubles(status: &Status) -> Vec<String> {
    let flows: u64 = status.workers.iter().map(|worker| worker.flows).sum();
    let persistence = &status.persistence;
    let tables = [
        ("flow table", flows, status.flow_capacity),
        ("persistence table", persistence.entries, persistence.capacity),
    ];
    let full = tables.into_iter().filter(|(_, used, of)| *of > 0 && used * 10 >= of * 9);
    full.map(|(what, used, of)| format!("{what}: {} of {}", grouped(used), grouped(of))).collect()
}

fn port(service: &Service) -> String {
    format!("{}/{}", service.port, service.protocol.name())
}

/// State, since when, and why; what is not well stands out.
fn state(backend: &Backend) -> String {
    let word = backend.state.name();
    let word =
        if backend.state == BackendState::Up { word.to_owned() } else { word.to_uppercase() };
    let why = match (&backend.operator, &backend.reason) {
        (Some(OperatorChange::Drained), _) => ": by an operator".to_owned(),
        (Some(OperatorChange::Weight), _) => ": weight by an operator".to_owned(),
        (None, Some(why)) => format!(": {why}"),
        (None, None) => String::new(),
    };
    format!("{word} {}{why}", duration(backend.since_seconds))
}

fn name(backend: &Backend) -> String {
    let Backend { name, address, .. } = backend;
    let role = if backend.fallback { " (fallback)" } else { "" };
    format!("{name} {address}{role}")
}

fn megabits(bytes_per_second: f64) -> f64 {
    bytes_per_second * 8.0 / 1e6
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

/// With a space before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `16k`, `1M`: whole thousands or millions where it is a round number.
fn short(number: u64) -> String {
    match number {
        1_000_000.. => format!("{}M", number / 1_000_000),
        1_000.. => format!("{}k", number / 1_000),
        _ => number.to_string(),
    }
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
    use api::status::{Rates, example};

    use super::*;

    fn busy() -> Status {
        let mut status = example();
        status.flow_capacity = 1_000_000;
        status.services[0].rates =
            Rates { connections: 410.2, packets: 96_100.0, bytes: 7.76e6, acked_bytes: 1.2e8 };
        status
    }

    #[test]
    fn what_is_not_well_is_seen_at_once() {
        let expected = "\
pointsman 0.0.0 on lb1   up 00:01:40   ready

VIP             PORT      BACKENDS          SESSIONS    NEW/S       PPS   IN Mb/s  OUT Mb/s  SERVICE
192.0.2.10      80/tcp    2 up 1 NOT UP         2/1M      410    96 100      62.1     960.0  web

!  web 80/tcp: NO QUORUM, 1 of 3 weight up, fallback active
!  web 80/tcp backend rs2 192.0.2.12 DOWN 00:00:03: sentinel closed, connect refused
";
        assert_eq!(table(&busy(), false), expected);
    }

    #[test]
    fn backends_are_listed_if_asked_for() {
        let text = table(&busy(), true);
        let row = "  -> rs1 192.0.2.11                    1          2          3              7  \
                   up 00:01:30: 2 successes\n";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("sorry 192.0.2.99 (fallback)"), "{text}");
    }

    #[test]
    fn a_vip_that_is_active_here_is_said_to_be_silent_here() {
        let mut status = busy();
        let said = |status: &Status| table(status, false).contains("try them from another host");
        assert!(!said(&status), "a Backup reaches the VIP like any host");
        status.services[0].silent_here = true;
        assert!(said(&status), "{}", table(&status, false));
    }

    #[test]
    fn a_table_that_is_nearly_full_is_not_well() {
        let mut status = busy();
        (status.persistence.entries, status.persistence.capacity) = (899_999, 1_000_000);
        assert!(!table(&status, false).contains("persistence table"));
        status.persistence.entries += 1;
        let text = table(&status, false);
        assert!(text.contains("!  persistence table: 900 000 of 1 000 000\n"), "{text}");
    }

    #[test]
    fn numbers_as_operators_read_them() {
        assert_eq!(
            [0, 999, 1000, 18_220, 1_234_567].map(grouped),
            ["0", "999", "1 000", "18 220", "1 234 567"]
        );
        assert_eq!([999, 16_384, 1_000_000].map(short), ["999", "16k", "1M"]);
        assert_eq!(duration(0.9), "00:00:00");
        assert_eq!(duration(86_399.0), "23:59:59");
        assert_eq!(duration(273_600.0), "3d 04:00:00");
        assert_eq!(duration(-1.0), "00:00:00");
    }
}
