//! Workers, their queues and sockets.

use api::status::{Count, SocketCounter, Status, Worker};

use super::family::{Page, flag, number};
use super::labels::{Exception, Fate, OfException, OfFate, OfPlace, OfQueue, Place};

/// Adds the workers to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    let bound = page.gauge("queue_bound", "1 when the queue has a bound socket.")?;
    let zero_copy = page.gauge("queue_zero_copy", "1 when frames are shared with the driver.")?;
    let packet_socket = page.gauge(
        "queue_packet_socket",
        "1 when frames leave by a packet socket, for want of a TX queue of this number.",
    )?;
    let stalled = page.gauge(
        "queue_stalled",
        "1 when what the worker sends does not leave, though the kernel reports success.",
    )?;
    let age =
        page.gauge("worker_heartbeat_age_seconds", "Time since the worker was last seen alive.")?;
    let busy = page.gauge("worker_busy_ratio", "Share of time spent on frames, 0-1.")?;
    let flows = page.gauge("worker_flows", "Flows remembered.")?;
    let frames = page.gauge("frames", "Frames of the worker's UMEM, by where they are.")?;
    for worker in &status.workers {
        let at = OfQueue { interface: &worker.interface, queue: worker.queue };
        bound.set(&at, flag(worker.bound));
        zero_copy.set(&at, flag(worker.zero_copy));
        packet_socket.set(&at, flag(worker.packet_socket));
        stalled.set(&at, flag(worker.stalled));
        age.set(&at, worker.heartbeat_age_seconds);
        busy.set(&at, worker.busy_ratio);
        flows.set(&at, number(worker.flows));
        let places = [
            (Place::Total, worker.frames.total),
            (Place::Fill, worker.frames.fill),
            (Place::Tx, worker.frames.tx),
            (Place::Held, worker.frames.held),
        ];
        for (place, value) in places {
            frames.set(&OfPlace { interface: at.interface, queue: at.queue, place }, number(value));
        }
    }
    counters(page, &status.workers)?;
    sockets(page, &status.workers)
}

fn counters(page: &Page, workers: &[Worker]) -> prometheus::Result<()> {
    let packets = page.counter(
        "worker_packets_total",
        "Frames by fate: received + adopted = forwarded + answered + handed_over + dropped, but for \
         fragments_waiting; originated (resets sent unasked) and originated_lost come on top.")?;
    let fast_path = page.counter(
        "fast_path_packets_total",
        "Frames of the queue that the XDP program forwarded itself, as the worker would have: the worker \
         never saw them.",
    )?;
    let closed = page.counter(
        "closed_port_answers_total",
        "Answers that say that a port or protocol of a VIP is closed.",
    )?;
    let waiting = page.gauge(
        "fragments_waiting",
        "Fragments that wait for the first one of their datagram, 100 ms at most.",
    )?;
    let unplaced = page.counter(
        "flow_exceptions_total",
        "Packets forwarded without a flow entry of their own history.",
    )?;
    let finished = page.counter(
        "checksums_finished_total",
        "Frames whose checksum their sender, on this host, had left to a card.",
    )?;
    for worker in workers {
        let at = OfQueue { interface: &worker.interface, queue: worker.queue };
        let counters = &worker.counters;
        let fates = [
            (Fate::Received, counters.received),
            (Fate::Adopted, counters.adopted),
            (Fate::Forwarded, counters.forwarded),
            (Fate::Answered, counters.answered),
            (Fate::HandedOver, counters.handed_over),
            (Fate::Dropped, counters.dropped),
            (Fate::Originated, counters.originated),
            (Fate::OriginatedLost, counters.originated_lost),
        ];
        for (fate, value) in fates {
            packets.add(&OfFate { interface: at.interface, queue: at.queue, fate }, value);
        }
        fast_path.add(&at, worker.fast_path);
        closed.add(&at, counters.closed);
        waiting.set(&at, number(counters.waiting));
        for (kind, value) in [
            (Exception::TableFull, counters.flow_table_full),
            (Exception::PickedUp, counters.picked_up),
        ] {
            unplaced.add(&OfException { interface: at.interface, queue: at.queue, kind }, value);
        }
        finished.add(&at, counters.checksums_finished);
    }
    Ok(())
}

/// A metric for each counter of the sockets.
fn sockets(page: &Page, workers: &[Worker]) -> prometheus::Result<()> {
    for counter in SocketCounter::ALL {
        let name = format!("xsk_{}_total", counter.name());
        let metric = page.counter(&name, counter.help())?;
        for worker in workers {
            let at = OfQueue { interface: &worker.interface, queue: worker.queue };
            metric.add(&at, Count::of(&worker.socket, counter));
        }
    }
    Ok(())
}
