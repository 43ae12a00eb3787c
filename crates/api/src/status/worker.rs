//! Workers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Count;

/// A worker.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Worker {
    /// Interface that it serves.
    pub interface: String,
    /// RX queue that it serves.
    pub queue: u32,
    /// CPU that it is pinned to.
    pub cpu: Option<u32>,
    /// Whether its socket is bound.
    pub bound: bool,
    /// Why not, if not.
    pub error: Option<String>,
    /// Whether frames are shared with the driver.
    pub zero_copy: bool,
    /// Whether frames leave by a packet socket: the device has no TX queue of this number, or none
    /// that works.
    #[serde(default)]
    pub packet_socket: bool,
    /// Whether what it sends does not leave, though the kernel reports success.
    #[serde(default)]
    pub stalled: bool,
    /// Seconds since it was last seen alive.
    pub heartbeat_age_seconds: f64,
    /// Share of time spent on frames, 0–1.
    pub busy_ratio: f64,
    /// Flows remembered.
    pub flows: u64,
    /// Packets of its queue that the XDP program forwarded itself, which it never saw.
    #[serde(default)]
    pub fast_path: u64,
    /// Its counters.
    pub counters: WorkerCounters,
    /// AF_XDP statistics and the port's own counters; every one is listed.
    pub socket: Vec<Count<SocketCounter>>,
    /// Where its frames are.
    pub frames: Frames,
}

/// Packet counters of a worker. `received + adopted = forwarded + answered + handed_over + dropped +
/// waiting`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct WorkerCounters {
    /// Taken from the RX ring.
    pub received: u64,
    /// Taken from the mailbox.
    pub adopted: u64,
    /// Sent to backends.
    pub forwarded: u64,
    /// Answered.
    pub answered: u64,
    /// Copied to other workers.
    pub handed_over: u64,
    /// Fragments that wait for the first one of their datagram now.
    #[serde(default)]
    pub waiting: u64,
    /// Dropped, all reasons.
    pub dropped: u64,
    /// Answers that say that a port or protocol of a VIP is closed; among the answered.
    #[serde(default)]
    pub closed: u64,
    /// Flows that found no room.
    pub flow_table_full: u64,
    /// Mid-stream packets placed by the deterministic hash.
    pub picked_up: u64,
    /// Frames whose checksum the sender had left to a card and the worker finished.
    #[serde(default)]
    pub checksums_finished: u64,
    /// Resets sent unasked for backends that are down: no part of the equation.
    #[serde(default)]
    pub originated: u64,
    /// The same that the transmit ring refused.
    #[serde(default)]
    pub originated_lost: u64,
}

/// Where the frames of a UMEM are; the parts sum to `total`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Frames {
    /// In the UMEM.
    pub total: u64,
    /// With the kernel, to be filled.
    pub fill: u64,
    /// With the kernel, to be sent.
    pub tx: u64,
    /// In the worker's hands.
    pub held: u64,
}

label::labels! {
    /// What an AF_XDP socket counts, and the port around it.
    pub enum SocketCounter {
        RxDropped => "rx_dropped", "Frames dropped by the kernel for other reasons than the next ones.";
        RxInvalid => "rx_invalid", "Invalid descriptors on the fill ring.";
        TxInvalid => "tx_invalid", "Invalid descriptors on the TX ring.";
        RxRingFull => "rx_ring_full", "Frames dropped because the RX ring was full.";
        FillRingEmpty => "fill_ring_empty", "Times that the fill ring was empty.";
        TxRingEmpty => "tx_ring_empty", "Times that the TX ring was empty.";
        TxFull => "tx_full", "Packets dropped because the TX ring stayed full.";
        TxDropped => "tx_dropped", "Packets that a packet socket refused.";
        TxUnsent => "tx_unsent", "Packets handed to the kernel that never left.";
        Kicks => "kicks", "System calls that had the kernel send.";
        RxWakeups => "rx_wakeups", "System calls that woke the receiving side.";
        KickAgain => "kick_eagain", "Kicks that failed with `EAGAIN`.";
        KickBusy => "kick_ebusy", "Kicks that failed with `EBUSY`.";
        KickNoBufs => "kick_enobufs", "Kicks that failed with `ENOBUFS`.";
        KickInterrupted => "kick_eintr", "Kicks that failed with `EINTR`.";
        KickNetDown => "kick_enetdown", "Kicks that failed with `ENETDOWN`.";
        KickNoDevice => "kick_enxio", "Kicks that failed with `ENXIO`.";
        KickOther => "kick_other", "Kicks that failed otherwise.";
    }
}
