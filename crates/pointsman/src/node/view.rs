//! The node's state as a [`Status`].

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use control::operator::{Drain, Override};
use control::{BackendStatus, ServiceStatus};
use dataplane::{BackendCounters, BackendSlot, Counter, DropReason, Gauge, Tick};
use steer::{Outcome, Restored};
use xsk::KickError;

use super::Node;
use super::devices::{Device, xdp_mode};
use crate::worker::WorkerId;
use crate::worker::pool::Handle;
use crate::worker::shared::Report;
use crate::{clock, log, panics};
use api::status::{
    Backend, Count, Frames, Interface, OperatorChange, Persistence, Service, SocketCounter, Status,
    VERSION, Worker, WorkerCounters,
};

impl Node {
    /// The state now.
    pub(super) fn status(&self) -> Status {
        let now = clock::now();
        let not_ready: Vec<String> = self.unready().iter().map(ToString::to_string).collect();
        let (generation, acknowledged) = self.controller.generations();
        Status {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.name.clone(),
            uptime_seconds: now.saturating_since(self.started).as_secs_f64(),
            ready: not_ready.is_empty(),
            not_ready,
            configuration: self.configurations.status(now),
            netlink_overruns: self.overruns,
            generation,
            acknowledged,
            interfaces: self.devices.iter().map(interface).collect(),
            flow_capacity: self.flow_capacity(),
            workers: self.pool.iter().map(|(id, handle)| self.worker(id, handle, now)).collect(),
            vrrp: self.vrrp_status(),
            services: self.controller.services().map(|s| self.service(&s, now)).collect(),
            health_late: self.health_late(),
            persistence: self.persistence(),
            log_lines_lost: log::lost(),
            panics: panics::contained_so_far(),
            dropped: Count::list(DropReason::ALL, |reason| {
                self.sum(|counters| counters.dropped(reason).value())
            }),
        }
    }

    fn worker(&self, id: WorkerId, handle: &Handle, now: Tick) -> Worker {
        let Report { how, error, packet_socket, unsent, accounting, counters, statistics } =
            handle.shared.report();
        let totals = &handle.counters.totals;
        Worker {
            interface: self
                .devices
                .get(id.port.index())
                .map(|device| device.wanted.name.clone())
                .unwrap_or_default(),
            queue: id.queue,
            cpu: handle.cpu,
            bound: handle.shared.bound.load(Relaxed),
            error,
            zero_copy: how.is_some_and(|bound| bound.zero_copy),
            packet_socket,
            stalled: handle.shared.is_stalled(),
            heartbeat_age_seconds: now.saturating_since(handle.shared.last_beat()).as_secs_f64(),
            busy_ratio: Duration::from_micros(handle.shared.busy_ppm.load(Relaxed)).as_secs_f64(),
            flows: handle.shared.flows.load(Relaxed),
            fast_path: self
                .devices
                .get(id.port.index())
                .map_or(0, |device| device.fast_path_packets(id.queue)),
            counters: WorkerCounters {
                received: totals.received.value(),
                adopted: totals.adopted.value(),
                forwarded: totals.forwarded.value(),
                answered: totals.answered.value(),
                handed_over: totals.handed_over.value(),
                waiting: u64::try_from(totals.waiting.value()).unwrap_or_default(),
                dropped: DropReason::ALL
                    .iter()
                    .map(|reason| handle.counters.dropped(*reason).value())
                    .sum(),
                closed: totals.closed.value(),
                flow_table_full: totals.flow_table_full.value(),
                picked_up: totals.picked_up.value(),
                checksums_finished: totals.checksums_finished.value(),
                originated: totals.originated.value(),
                originated_lost: totals.originated_lost.value(),
            },
            socket: Count::list(SocketCounter::ALL, |counter| {
                socket_counter(counter, &counters, &statistics, unsent)
            }),
            frames: Frames {
                total: accounting.total,
                fill: accounting.fill + accounting.rx,
                tx: accounting.tx + accounting.completion,
                held: accounting.queued + accounting.free + accounting.held,
            },
        }
    }

    fn service(&self, service: &ServiceStatus<'_>, now: Tick) -> Service {
        let key = service.key;
        let sum = |value: fn(&dataplane::ServiceCounters) -> &Counter| {
            service
                .slot
                .map_or(0, |slot| self.sum(|counters| value(counters.service(slot)).value()))
        };
        let backends = service.backends.iter();
        let backends: Vec<Backend> =
            backends.map(|backend| self.backend(service.name, backend, now)).collect();
        Service {
            name: service.name.to_owned(),
            vip: key.vip.ip(),
            protocol: key.protocol,
            port: match (key.first_port, key.last_port) {
                (0, u16::MAX) => "any".to_owned(),
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            },
            scheduler: service.scheduler,
            persistence_seconds: service.persistence.map(|timeout| timeout.as_secs_f64()),
            persistence_prefix: service.persistence_prefix,
            persistence_group: service.group.map(ToOwned::to_owned),
            hash: service.hash,
            steered: self.controller.is_steered(key.vip),
            silent_here: self.vrrp.as_ref().is_some_and(|vrrp| vrrp.owns(service.vrrp)),
            packets: sum(|counters| &counters.packets),
            bytes: sum(|counters| &counters.bytes),
            acked_bytes: backends.iter().map(|backend| backend.acked_bytes).sum(),
            rates: backends.iter().map(|backend| backend.rates).sum(),
            dropped: sum(|counters| &counters.dropped),
            rejected: sum(|counters| &counters.rejected),
            healthy_weight: service.healthy_weight,
            total_weight: service.total_weight,
            quorum: service.quorum,
            fallback_active: service.fallback_active,
            backends,
        }
    }

    fn backend(&self, service: &str, backend: &BackendStatus<'_>, now: Tick) -> Backend {
        let slot = backend.slot;
        let count = |value: fn(&BackendCounters) -> &Counter| {
            slot.map_or(0, |slot| self.sum(|counters| value(counters.backend(slot)).value()))
        };
        let mut shown = Backend {
            name: backend.name.to_owned(),
            address: backend.address,
            fallback: backend.fallback,
            weight: backend.weight,
            effective_weight: backend.effective_weight,
            state: backend.state.into(),
            reason: Some(backend.why).filter(|why| !why.is_empty()).map(ToOwned::to_owned),
            since_seconds: now.saturating_since(backend.since).as_secs_f64(),
            mac: backend.usable.as_ref().ok().map(|(_, mac)| mac.to_string()),
            active: self.gauge(slot, |counters| &counters.active),
            inactive: self.gauge(slot, |counters| &counters.inactive),
            unproven: self.gauge(slot, |counters| &counters.unproven),
            templates: backend
                .named
                .map_or(0, |name| self.tables.persistence.templates_of(name).into()),
            transitions: backend.transitions,
            connections: count(|counters| &counters.connections),
            packets: count(|counters| &counters.packets),
            bytes: count(|counters| &counters.bytes),
            acked_bytes: slot.map_or(0, |slot| self.meters.acked(slot, count(|of| &of.acked))),
            rates: self.meters.of(slot),
            handshake_seconds: slot.map(|slot| self.handshake_seconds(slot)).unwrap_or_default(),
            handshakes_attempted: count(|counters| &counters.attempts),
            resets: count(|counters| &counters.resets),
            operator: None,
            drain_seconds: None,
            held_seconds: None,
            suspicions: 0,
            triggers_ignored: 0,
            checks: Vec::new(),
        };
        self.add_health(&mut shown, service, backend.address, now);
        if let Some(change) = self.overrides.of(service, backend.name) {
            shown.operator = Some(match change {
                Override::Drained(_) => OperatorChange::Drained,
                Override::Weight(_) => OperatorChange::Weight,
            });
            if let Override::Drained(drain) = change
                && shown.state == api::status::BackendState::Draining
            {
                shown.drain_seconds =
                    drain.deadline.map(|at| at.saturating_since(now).as_secs_f64());
                shown.reason = Some(drained(&drain, shown.active + shown.inactive, now));
            }
        }
        shown
    }

    fn persistence(&self) -> Persistence {
        let table = &self.tables.persistence;
        let stats = table.stats();
        Persistence {
            entries: table.len() as u64,
            capacity: table.capacity() as u64,
            created: stats.created,
            expired: stats.expired,
            replaced: stats.replaced,
            refused: stats.refused,
        }
    }

    /// Flows that all workers together were made for.
    fn flow_capacity(&self) -> u64 {
        let of_one = self.controller.desired().dataplane.flow_capacity;
        of_one.saturating_mul(self.pool.iter().count()) as u64
    }

    fn gauge(&self, slot: Option<BackendSlot>, value: fn(&BackendCounters) -> &Gauge) -> u64 {
        let Some(slot) = slot else { return 0 };
        let sum: i64 =
            self.pool.iter().map(|(_, handle)| value(handle.counters.backend(slot)).value()).sum();
        u64::try_from(sum).unwrap_or(0)
    }

    /// Over the workers, and the programs that forwarded in their stead.
    fn sum(&self, value: impl Fn(&dataplane::WorkerCounters) -> u64) -> u64 {
        self.all_counters().map(value).fold(0, u64::wrapping_add)
    }

    /// Of the workers, and of the programs that forward in their stead.
    pub(super) fn all_counters(&self) -> impl Iterator<Item = &dataplane::WorkerCounters> {
        let workers = self.pool.iter().map(|(_, handle)| &handle.counters);
        let programs = self.devices.iter().filter_map(|device| device.fast_path.counters.as_ref());
        workers.chain(programs).map(|counters| &**counters)
    }
}

fn interface(device: &Device) -> Interface {
    let (fast_path, fast_path_reason) = device.fast_path_state();
    let outcomes = device.outcomes();
    let Restored { restored: tags_restored, dropped: tags_dropped } = device.tags.restored();
    Interface {
        name: device.wanted.name.clone(),
        up: device.link.is_some_and(|link| link.up),
        mac: device.link.map(|link| link.mac.to_string()).unwrap_or_default(),
        mtu: device.link.map_or(0, |link| link.mtu),
        xdp: device.attached.as_ref().map(|attached| xdp_mode(attached.mode())),
        trouble: device.trouble.clone(),
        offloads_off: device.offloads.off().map(|(on, name)| format!("{on} {name}")).collect(),
        tags_restored,
        tags_dropped,
        blind: device.receive.is_blind(),
        fallbacks: device.fallbacks,
        fast_path,
        fast_path_reason,
        fast_path_lost: device.fast_path_lost(),
        queues: device.queues,
        queues_wanted: u32::try_from(device.queues_wanted().len()).unwrap_or(u32::MAX),
        queues_bound: u32::try_from(device.bound.len()).unwrap_or(u32::MAX),
        outcomes: Count::list(Outcome::ALL, |outcome| outcomes[outcome.index()]),
        passed: Outcome::passed(&outcomes),
    }
}

fn socket_counter(
    counter: SocketCounter,
    port: &xsk::Counters,
    statistics: &xsk::Statistics,
    unsent: u64,
) -> u64 {
    use SocketCounter as C;
    let kicks = |reason| port.kick_errors.of(reason);
    match counter {
        C::RxDropped => statistics.rx_dropped,
        C::RxInvalid => statistics.rx_invalid_descs,
        C::TxInvalid => statistics.tx_invalid_descs,
        C::RxRingFull => statistics.rx_ring_full,
        C::FillRingEmpty => statistics.rx_fill_ring_empty_descs,
        C::TxRingEmpty => statistics.tx_ring_empty_descs,
        C::TxFull => port.tx_full,
        C::TxDropped => statistics.tx_dropped,
        C::TxUnsent => unsent,
        C::Kicks => port.kicks,
        C::RxWakeups => port.rx_wakeups,
        C::KickAgain => kicks(KickError::Again),
        C::KickBusy => kicks(KickError::Busy),
        C::KickNoBufs => kicks(KickError::NoBufs),
        C::KickInterrupted => kicks(KickError::Interrupted),
        C::KickNetDown => kicks(KickError::NetDown),
        C::KickNoDevice => kicks(KickError::NoDevice),
        C::KickOther => kicks(KickError::Other),
    }
}

/// `operator, 4m left, 312 flows`.
fn drained(drain: &Drain, flows: u64, now: Tick) -> String {
    let left = match drain.deadline {
        _ if drain.ended => ", reset at the deadline".to_owned(),
        Some(at) => {
            let seconds = at.saturating_since(now).as_secs();
            let left =
                if seconds < 60 { format!("{seconds}s") } else { format!("{}m", seconds / 60) };
            format!(", {left} left")
        }
        None => String::new(),
    };
    format!("operator{left}, {flows} flows")
}
