//! The Prometheus view of [`Status`]: a registry is filled at each scrape, so a metric cannot
//! disagree with the status document. Every series exists from the start, with 0.

mod health;
mod histogram;
mod vrrp;

use prometheus::core::{AtomicU64, GenericCounterVec};
use prometheus::{GaugeVec, Opts, Registry, TextEncoder};

use crate::status::{Backend, Status, Worker};

type CounterVec = GenericCounterVec<AtomicU64>;

/// The exposition text of a status document.
///
/// # Errors
/// A name or label set is used twice: a bug, reported instead of a panic.
pub fn render(status: &Status) -> prometheus::Result<String> {
    let page = Page { registry: Registry::new() };
    page.node(status)?;
    page.interfaces(status)?;
    page.workers(status)?;
    vrrp::add(&page, status)?;
    page.services(status)?;
    page.backends(status)?;
    health::add(&page, status)?;
    page.persistence(status)?;
    TextEncoder::new().encode_to_string(&page.registry.gather())
}

struct Page {
    registry: Registry,
}

impl Page {
    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let vec = GaugeVec::new(Opts::new(format!("pointsman_{name}"), help), labels)?;
        self.registry.register(Box::new(vec.clone()))?;
        Ok(vec)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        let vec = CounterVec::new(Opts::new(format!("pointsman_{name}"), help), labels)?;
        self.registry.register(Box::new(vec.clone()))?;
        Ok(vec)
    }

    fn node(&self, status: &Status) -> prometheus::Result<()> {
        self.gauge("build_info", "Version of the program; always 1.", &["version"])?
            .with_label_values(&[&status.program])
            .set(1.0);
        self.gauge("up_seconds", "Seconds since start.", &[])?
            .with_label_values::<&str>(&[])
            .set(status.uptime_seconds);
        self.gauge("ready", "1 when a client would be served now.", &[])?
            .with_label_values::<&str>(&[])
            .set(flag(status.ready));
        self.counter(
            "netlink_overruns_total",
            "Times that notifications of the kernel were lost and everything was read anew.",
            &[],
        )?
        .with_label_values::<&str>(&[])
        .inc_by(status.netlink_overruns);
        let generation = self.gauge(
            "snapshot_generation",
            "Generation of the packet path's configuration.",
            &["stage"],
        )?;
        generation.with_label_values(&["published"]).set(number(status.generation));
        generation.with_label_values(&["acknowledged"]).set(number(status.acknowledged));
        self.counter("log_lines_lost_total", "Lines of the log that could not be written.", &[])?
            .with_label_values::<&str>(&[])
            .inc_by(status.log_lines_lost);
        self.counter("panics_total", "Panics that ended only a page or a connection.", &[])?
            .with_label_values::<&str>(&[])
            .inc_by(status.panics);
        let dropped =
            self.counter("dropped_total", "Frames dropped by the workers.", &["reason"])?;
        for count in &status.dropped {
            dropped.with_label_values(&[&count.name]).inc_by(count.value);
        }
        Ok(())
    }

    fn interfaces(&self, status: &Status) -> prometheus::Result<()> {
        let labels = &["interface"];
        let up = self.gauge("interface_up", "1 when the device exists and has a link.", labels)?;
        let native = self.gauge(
            "interface_xdp_mode",
            "1 for the mode that the XDP program is attached in.",
            &["interface", "mode"],
        )?;
        let blind = self.gauge(
            "interface_blind",
            "1 when the card receives frames, the XDP program sees none, and no other mode is left.",
            labels,
        )?;
        let fallbacks = self.counter(
            "interface_fallbacks_total",
            "Faster modes given up, since the XDP program saw nothing in them.",
            labels,
        )?;
        let queues = self.gauge("interface_queues", "RX queues of the device.", labels)?;
        let offloads = self.gauge(
            "interface_offloads_off",
            "Offloads that are off while the interface is served.",
            labels,
        )?;
        let altered = self.gauge(
            "interface_frames_altered",
            "1 while frames are not seen as they were on the wire: without VLAN tag, or merged.",
            labels,
        )?;
        let outcomes = self.counter(
            "xdp_packets_total",
            "Frames seen by the XDP program, by what became of them.",
            &["interface", "outcome"],
        )?;
        let passed = self.counter(
            "passed_total",
            "Frames that the XDP program left to the kernel.",
            labels,
        )?;
        let fast_path = self.gauge(
            "interface_fast_path",
            "1 while the XDP program forwards the packets of known flows itself.",
            labels,
        )?;
        let fast_path_packets = self.counter(
            "fast_path_packets_total",
            "Frames that the XDP program forwarded itself, as the worker would have.",
            labels,
        )?;
        for interface in &status.interfaces {
            let name = interface.name.as_str();
            fast_path.with_label_values(&[name]).set(flag(interface.fast_path));
            fast_path_packets.with_label_values(&[name]).inc_by(interface.forwarded());
            up.with_label_values(&[name]).set(flag(interface.up));
            for mode in ["native", "generic"] {
                native.with_label_values(&[name, mode]).set(flag(interface.xdp == mode));
            }
            blind.with_label_values(&[name]).set(flag(interface.blind));
            fallbacks.with_label_values(&[name]).inc_by(interface.fallbacks);
            queues.with_label_values(&[name]).set(f64::from(interface.queues));
            let off = u32::try_from(interface.offloads_off.len()).unwrap_or(u32::MAX);
            offloads.with_label_values(&[name]).set(f64::from(off));
            altered.with_label_values(&[name]).set(flag(interface.trouble.is_some()));
            passed.with_label_values(&[name]).inc_by(interface.passed);
            for count in &interface.outcomes {
                outcomes.with_label_values(&[name, &count.name]).inc_by(count.value);
            }
        }
        Ok(())
    }

    fn workers(&self, status: &Status) -> prometheus::Result<()> {
        let labels = &["interface", "queue"];
        let bound = self.gauge("queue_bound", "1 when the queue has a bound socket.", labels)?;
        let zero_copy =
            self.gauge("queue_zero_copy", "1 when frames are shared with the driver.", labels)?;
        let packet_socket = self.gauge(
            "queue_packet_socket",
            "1 when frames leave by a packet socket, for want of a TX queue of this number.",
            labels,
        )?;
        let stalled = self.gauge(
            "queue_stalled",
            "1 when what the worker sends does not leave, though the kernel reports success.",
            labels,
        )?;
        let age = self.gauge(
            "worker_heartbeat_age_seconds",
            "Time since the worker was last seen alive.",
            labels,
        )?;
        let busy =
            self.gauge("worker_busy_ratio", "Share of time spent on frames, 0-1.", labels)?;
        let flows = self.gauge("worker_flows", "Flows remembered.", labels)?;
        let frames = self.gauge(
            "frames",
            "Frames of the worker's UMEM, by where they are.",
            &["interface", "queue", "place"],
        )?;
        for worker in &status.workers {
            let queue = worker.queue.to_string();
            let at = &[worker.interface.as_str(), &queue];
            bound.with_label_values(at).set(flag(worker.bound));
            zero_copy.with_label_values(at).set(flag(worker.zero_copy));
            packet_socket.with_label_values(at).set(flag(worker.packet_socket));
            stalled.with_label_values(at).set(flag(worker.stalled));
            age.with_label_values(at).set(worker.heartbeat_age_seconds);
            busy.with_label_values(at).set(worker.busy_ratio);
            flows.with_label_values(at).set(number(worker.flows));
            let places = [
                ("total", worker.frames.total),
                ("fill", worker.frames.fill),
                ("tx", worker.frames.tx),
                ("held", worker.frames.held),
            ];
            for (place, value) in places {
                frames.with_label_values(&[at[0], at[1], place]).set(number(value));
            }
        }
        self.worker_counters(&status.workers)
    }

    fn worker_counters(&self, workers: &[Worker]) -> prometheus::Result<()> {
        let packets = self.counter(
            "worker_packets_total",
            "Frames by fate: received + adopted = forwarded + answered + handed_over + dropped, but for \
             fragments_waiting; originated (resets sent unasked) and originated_lost come on top.",
            &["interface", "queue", "fate"],
        )?;
        let closed = self.counter(
            "closed_port_answers_total",
            "Answers that say that a port or protocol of a VIP is closed.",
            &["interface", "queue"],
        )?;
        let waiting = self.gauge(
            "fragments_waiting",
            "Fragments that wait for the first one of their datagram, 100 ms at most.",
            &["interface", "queue"],
        )?;
        let unplaced = self.counter(
            "flow_exceptions_total",
            "Packets forwarded without a flow entry of their own history.",
            &["interface", "queue", "kind"],
        )?;
        let finished = self.counter(
            "checksums_finished_total",
            "Frames whose checksum their sender, on this host, had left to a card.",
            &["interface", "queue"],
        )?;
        let mut sockets: std::collections::BTreeMap<&str, CounterVec> =
            std::collections::BTreeMap::new();
        for worker in workers {
            let queue = worker.queue.to_string();
            let at = [worker.interface.as_str(), queue.as_str()];
            let counters = &worker.counters;
            let fates = [
                ("received", counters.received),
                ("adopted", counters.adopted),
                ("forwarded", counters.forwarded),
                ("answered", counters.answered),
                ("handed_over", counters.handed_over),
                ("dropped", counters.dropped),
                ("originated", counters.originated),
                ("originated_lost", counters.originated_lost),
            ];
            for (fate, value) in fates {
                packets.with_label_values(&[at[0], at[1], fate]).inc_by(value);
            }
            closed.with_label_values(&at).inc_by(counters.closed);
            waiting.with_label_values(&at).set(number(counters.waiting));
            for (kind, value) in
                [("table_full", counters.flow_table_full), ("picked_up", counters.picked_up)]
            {
                unplaced.with_label_values(&[at[0], at[1], kind]).inc_by(value);
            }
            finished.with_label_values(&at).inc_by(counters.checksums_finished);
            for count in &worker.socket {
                if !sockets.contains_key(count.name.as_str()) {
                    let name = format!("xsk_{}_total", count.name);
                    let help = format!("AF_XDP socket counter {}.", count.name);
                    let vec = self.counter(&name, &help, &["interface", "queue"])?;
                    sockets.insert(&count.name, vec);
                }
                if let Some(vec) = sockets.get(count.name.as_str()) {
                    vec.with_label_values(&at).inc_by(count.value);
                }
            }
        }
        Ok(())
    }

    fn services(&self, status: &Status) -> prometheus::Result<()> {
        let packets =
            self.counter("packets_total", "Frames for a service.", &["service", "result"])?;
        let bytes = self.counter("bytes_total", "Bytes forwarded for a service.", &["service"])?;
        let steered = self.gauge("vip_steered", "1 when the VIP is steered.", &["service"])?;
        for service in &status.services {
            let name = service.name.as_str();
            packets.with_label_values(&[name, "forwarded"]).inc_by(service.packets);
            packets.with_label_values(&[name, "dropped"]).inc_by(service.dropped);
            bytes.with_label_values(&[name]).inc_by(service.bytes);
            steered.with_label_values(&[name]).set(flag(service.steered));
        }
        Ok(())
    }

    fn backends(&self, status: &Status) -> prometheus::Result<()> {
        let labels = &["service", "backend"];
        let states = self.gauge(
            "backend_state",
            "1 for the state that the backend is in.",
            &["service", "backend", "state"],
        )?;
        let resolved = self.gauge(
            "backend_neighbour_resolved",
            "1 when the backend's MAC address is known.",
            labels,
        )?;
        let weight = self.gauge("backend_weight", "Weight, as configured.", labels)?;
        let effective = self.gauge(
            "backend_effective_weight",
            "Weight that counts for new sources now.",
            labels,
        )?;
        let sessions = self.gauge(
            "backend_sessions",
            "Flows remembered: that live, that ended, and that nothing proves to be connections.",
            &["service", "backend", "state"],
        )?;
        let templates =
            self.gauge("backend_templates", "Persistence templates that name it.", labels)?;
        let packets = self.counter("backend_packets_total", "Frames forwarded.", labels)?;
        let bytes = self.counter("backend_bytes_total", "Bytes forwarded.", labels)?;
        let connections = self.counter(
            "backend_connections_total",
            "Flows entered: TCP connections that it answered, those that came midway or from another \
             queue, UDP flows.",
            labels,
        )?;
        let transitions = self.counter(
            "backend_transitions_total",
            "How often the backend came to carry flows, or ceased to.",
            labels,
        )?;
        let attempted = self.counter(
            "backend_handshakes_attempted_total",
            "New TCP connections tried: SYNs, but for the retransmissions that were recognised.",
            labels,
        )?;
        let resets = self.counter(
            "backend_resets_total",
            "Resets to its clients on its behalf, as answers and unasked: also those that could not be \
             written or that the transmit ring refused.",
            labels,
        )?;
        for service in &status.services {
            for backend in &service.backends {
                let at = &[service.name.as_str(), backend.name.as_str()];
                for state in STATES {
                    states
                        .with_label_values(&[at[0], at[1], state])
                        .set(flag(backend.state == state));
                }
                resolved.with_label_values(at).set(flag(backend.mac.is_some()));
                weight.with_label_values(at).set(f64::from(backend.weight));
                effective.with_label_values(at).set(backend.effective_weight);
                for (state, value) in sessions_of(backend) {
                    sessions.with_label_values(&[at[0], at[1], state]).set(number(value));
                }
                templates.with_label_values(at).set(number(backend.templates));
                packets.with_label_values(at).inc_by(backend.packets);
                bytes.with_label_values(at).inc_by(backend.bytes);
                connections.with_label_values(at).inc_by(backend.connections);
                transitions.with_label_values(at).inc_by(backend.transitions);
                attempted.with_label_values(at).inc_by(backend.handshakes_attempted);
                resets.with_label_values(at).inc_by(backend.resets);
            }
        }
        Ok(())
    }

    fn persistence(&self, status: &Status) -> prometheus::Result<()> {
        let table = &status.persistence;
        let gauges = [
            ("persistence_entries", "Persistence templates.", table.entries),
            ("persistence_entries_max", "Most persistence templates.", table.capacity),
        ];
        for (name, help, value) in gauges {
            self.gauge(name, help, &[])?.with_label_values::<&str>(&[]).set(number(value));
        }
        let counters = [
            ("persistence_created_total", "Templates made.", table.created),
            ("persistence_expired_total", "Templates that timed out.", table.expired),
            ("persistence_replaced_total", "Templates given another backend.", table.replaced),
            (
                "persistence_evicted_total",
                "Templates pushed out by newer ones: always 0, a full table refuses the newer.",
                0,
            ),
            (
                "persistence_stateless_fallback_total",
                "Connections without a template because the table was full.",
                table.refused,
            ),
        ];
        for (name, help, value) in counters {
            self.counter(name, help, &[])?.with_label_values::<&str>(&[]).inc_by(value);
        }
        Ok(())
    }
}

/// The states a backend can be in.
pub const STATES: [&str; 8] =
    ["up", "suspected", "down", "held", "resolving", "checking", "draining", "disabled"];

fn sessions_of(backend: &Backend) -> [(&'static str, u64); 3] {
    let Backend { active, inactive, unproven, .. } = *backend;
    [("active", active), ("inactive", inactive), ("unproven", unproven)]
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53, and a gauge is a float anyway")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
