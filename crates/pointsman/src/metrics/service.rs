//! Services and backends, without their health.

use api::status::{Backend, BackendState, Status};

use super::family::{Page, flag, number};
use super::histogram::Histograms;
use super::labels::{
    Delivery, OfBackend, OfBackendState, OfResult, OfService, OfSessions, Sessions,
};

/// Adds the services to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    let packets = page.counter("packets_total", "Frames for a service.")?;
    let bytes = page.counter("bytes_total", "Bytes forwarded for a service.")?;
    let acked = page.counter(
        "acked_bytes_total",
        "Bytes that clients of TCP acknowledged: what backends sent them, as far as it arrived.",
    )?;
    let steered = page.gauge("vip_steered", "1 when the VIP is steered.")?;
    for service in &status.services {
        let at = OfService { service: &service.name };
        packets
            .add(&OfResult { service: at.service, result: Delivery::Forwarded }, service.packets);
        packets.add(&OfResult { service: at.service, result: Delivery::Dropped }, service.dropped);
        bytes.add(&at, service.bytes);
        acked.add(&at, service.acked_bytes);
        steered.set(&at, flag(service.steered));
    }
    backends(page, status)
}

fn backends(page: &Page, status: &Status) -> prometheus::Result<()> {
    let states = page.gauge("backend_state", "1 for the state that the backend is in.")?;
    let resolved =
        page.gauge("backend_neighbour_resolved", "1 when the backend's MAC address is known.")?;
    let weight = page.gauge("backend_weight", "Weight, as configured.")?;
    let effective =
        page.gauge("backend_effective_weight", "Weight that counts for new sources now.")?;
    let sessions = page.gauge(
        "backend_sessions",
        "Flows remembered: that live, that ended, and that nothing proves to be connections.",
    )?;
    let templates = page.gauge("backend_templates", "Persistence templates that name it.")?;
    let packets = page.counter("backend_packets_total", "Frames forwarded.")?;
    let bytes = page.counter("backend_bytes_total", "Bytes forwarded.")?;
    let acked = page.counter(
        "backend_acked_bytes_total",
        "Bytes that clients of TCP acknowledged: what it sent them, as far as it arrived.",
    )?;
    let mut handshakes = Histograms::new(
        "backend_handshake_seconds",
        "How long handshakes took, from a client's SYN to its ACK; a sample of them.",
    )?;
    let connections = page.counter(
        "backend_connections_total",
        "Flows entered: TCP connections that it answered, those that came midway or from another \
         queue, UDP flows.",
    )?;
    let transitions = page.counter(
        "backend_transitions_total",
        "How often the backend came to carry flows, or ceased to.",
    )?;
    let attempted = page.counter(
        "backend_handshakes_attempted_total",
        "New TCP connections tried: SYNs, but for the retransmissions that were recognised.",
    )?;
    let resets = page.counter(
        "backend_resets_total",
        "Resets to its clients on its behalf, as answers and unasked: also those that could not be \
         written or that the transmit ring refused.",
    )?;
    for service in &status.services {
        for backend in &service.backends {
            let at = OfBackend { service: &service.name, backend: &backend.name };
            for state in BackendState::ALL {
                states.set(
                    &OfBackendState { service: at.service, backend: at.backend, state },
                    flag(backend.state == state),
                );
            }
            resolved.set(&at, flag(backend.mac.is_some()));
            weight.set(&at, f64::from(backend.weight));
            effective.set(&at, backend.effective_weight);
            for (state, value) in sessions_of(backend) {
                sessions.set(
                    &OfSessions { service: at.service, backend: at.backend, state },
                    number(value),
                );
            }
            templates.set(&at, number(backend.templates));
            packets.add(&at, backend.packets);
            bytes.add(&at, backend.bytes);
            acked.add(&at, backend.acked_bytes);
            handshakes.add(&at, &backend.handshake_seconds);
            connections.add(&at, backend.connections);
            transitions.add(&at, backend.transitions);
            attempted.add(&at, backend.handshakes_attempted);
            resets.add(&at, backend.resets);
        }
    }
    page.register(handshakes)
}

fn sessions_of(backend: &Backend) -> [(Sessions, u64); 3] {
    let Backend { active, inactive, unproven, .. } = *backend;
    [(Sessions::Active, active), (Sessions::Inactive, inactive), (Sessions::Unproven, unproven)]
}
