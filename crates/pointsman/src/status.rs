//! The state of the node as one document: the source of `/status.json`, `pointsman status`, and
//! every metric.

use serde::{Deserialize, Serialize};

/// Version of the document; raised when a field changes its meaning or goes away.
pub const VERSION: u32 = 2;

/// The whole node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program.
    pub program: String,
    /// Node name.
    pub node: String,
    /// Seconds since start.
    pub uptime_seconds: f64,
    /// Whether a client would be served now.
    pub ready: bool,
    /// What is missing, if not; one line each.
    pub not_ready: Vec<String>,
    /// How often notifications of the kernel were lost, so that everything was read anew.
    #[serde(default)]
    pub netlink_overruns: u64,
    /// Generation of the published snapshot.
    pub generation: u64,
    /// Generation that all workers work with.
    pub acknowledged: u64,
    /// Interfaces, as configured.
    pub interfaces: Vec<Interface>,
    /// Workers, by interface and queue.
    pub workers: Vec<Worker>,
    /// VRRP instances, as configured.
    #[serde(default)]
    pub vrrp: Vec<Vrrp>,
    /// Services, as configured.
    pub services: Vec<Service>,
    /// How late health checks were started.
    #[serde(default)]
    pub health_late: Histogram,
    /// The persistence table.
    pub persistence: Persistence,
    /// Lines of the log that standard error did not take, or not in time.
    #[serde(default)]
    pub log_lines_lost: u64,
    /// Panics that ended no more than a page or a connection.
    #[serde(default)]
    pub panics: u64,
    /// Frames dropped by all workers, by reason; every reason is listed.
    pub dropped: Vec<Count>,
}

/// A named number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    /// Label.
    pub name: String,
    /// Value.
    pub value: u64,
}

/// An interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Whether the device exists and has a link.
    pub up: bool,
    /// MAC address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Attach mode of the XDP program: `native`, `generic`, or empty while not attached.
    pub xdp: String,
    /// Why frames are not seen as they were on the wire (VLAN tags, length).
    #[serde(default)]
    pub trouble: Option<String>,
    /// Offloads that are off while the interface is served, as `device offload`.
    #[serde(default)]
    pub offloads_off: Vec<String>,
    /// Whether the card receives frames, the XDP program sees none, and no other mode is left.
    #[serde(default)]
    pub blind: bool,
    /// How often a faster mode was given up, since the program saw nothing in it.
    #[serde(default)]
    pub fallbacks: u64,
    /// Whether the XDP program forwards the packets of known flows itself.
    #[serde(default)]
    pub fast_path: bool,
    /// Why, or why not.
    #[serde(default)]
    pub fast_path_reason: String,
    /// RX queues that the device uses.
    pub queues: u32,
    /// RX queues that should be served.
    pub queues_wanted: u32,
    /// RX queues with a bound socket.
    pub queues_bound: u32,
    /// What the XDP program did, by outcome.
    pub outcomes: Vec<Count>,
    /// Frames that the XDP program left to the kernel's network stack.
    #[serde(default)]
    pub passed: u64,
}

/// A worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Its counters.
    pub counters: WorkerCounters,
    /// AF_XDP statistics and the port's own counters, by name.
    pub socket: Vec<Count>,
    /// Where its frames are.
    pub frames: Frames,
}

/// Packet counters of a worker. `received + adopted = forwarded + answered + handed_over + dropped +
/// waiting`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
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

/// A VRRP instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vrrp {
    /// Name.
    pub name: String,
    /// Interface that has the VIPs.
    pub interface: String,
    /// Virtual router ID.
    pub vrid: u8,
    /// Protocol version.
    pub version: u8,
    /// `active`, `backup` or `initialize`.
    pub state: String,
    /// Seconds in this state; absent before the first one.
    pub since_seconds: Option<f64>,
    /// Why, one word.
    pub reason: String,
    /// Why, one sentence.
    pub why: String,
    /// Virtual addresses.
    pub vips: Vec<String>,
    /// Whether they are active on this node: the lease holds.
    pub vips_active: bool,
    /// Seconds until the lease ends unless an advert is sent.
    pub lease_seconds: Option<f64>,
    /// Priority in the configuration.
    pub configured_priority: u8,
    /// Priority that decides; 0: cannot be Active now.
    pub effective_priority: u8,
    /// How the one becomes the other.
    pub priority_why: String,
    /// Why this node cannot forward, if so.
    pub blocked: Option<String>,
    /// Seconds until it may preempt again after a resignation.
    pub resigned_seconds: Option<f64>,
    /// Interval in force, in seconds.
    pub advert_interval_seconds: f64,
    /// Checksum style in use: `rfc9568` or `pseudo-header`.
    pub checksum: String,
    /// Routers heard, at most eight.
    pub peers: Vec<VrrpPeer>,
    /// How often this thread was found to have stalled.
    pub stalls: u64,
    /// Adverts sent.
    pub sent: u64,
    /// Adverts that the kernel did not take.
    pub send_failed: u64,
    /// Adverts believed.
    pub received: u64,
    /// Messages that the socket had no room for.
    pub overflowed: u64,
    /// Gratuitous ARP and neighbour advertisements sent.
    pub announced: u64,
    /// Claims of other stations to a VIP that was active here.
    pub foreign_claims: u64,
    /// The last one of them.
    pub last_foreign_claim: Option<ForeignClaim>,
    /// A peer that is heard at present, and whose adverts are discarded: while this node is Active, two
    /// owners are possible.
    #[serde(default)]
    pub discarded_peer: Option<VrrpDiscardedPeer>,
    /// Messages discarded, by reason; every reason is listed.
    pub rejected: Vec<Count>,
    /// Transitions so far.
    pub transitions: Vec<VrrpTransitions>,
    /// Timers of the Active state by how late they were.
    pub late: Histogram,
}

/// A peer whose adverts are discarded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VrrpDiscardedPeer {
    /// Its address.
    pub address: String,
    /// Why, one word.
    pub reason: String,
    /// Why, one sentence.
    pub why: String,
    /// Seconds since the first one in a row.
    pub since_seconds: f64,
}

impl Interface {
    /// Frames that the XDP program forwarded itself.
    pub fn forwarded(&self) -> u64 {
        let name = steer::Outcome::Forwarded.name();
        self.outcomes.iter().find(|count| count.name == name).map_or(0, |count| count.value)
    }
}

impl Vrrp {
    /// What makes two owners possible, if something does.
    pub fn two_owners(&self) -> Option<String> {
        let peer = self.discarded_peer.as_ref().filter(|_| self.state == "active")?;
        let VrrpDiscardedPeer { address, reason, why, .. } = peer;
        Some(format!(
            "({}) peer {address} is heard, but its adverts are discarded ({reason}): two owners are \
             possible. {why}",
            self.name
        ))
    }
}

/// Another station that answered for a VIP, or announced it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForeignClaim {
    /// The VIP.
    pub vip: String,
    /// Where it was said to be.
    pub mac: String,
    /// The backend with that MAC address, if it is one.
    pub backend: Option<String>,
    /// Seconds since.
    pub age_seconds: f64,
}

/// A router that was heard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VrrpPeer {
    /// Its address.
    pub address: String,
    /// Its last priority; 0: it left.
    pub priority: u8,
    /// Its interval in seconds.
    pub interval_seconds: f64,
    /// Seconds since it was last heard.
    pub age_seconds: f64,
    /// Adverts believed.
    pub adverts: u64,
}

/// Transitions to a state, for a reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VrrpTransitions {
    /// State entered.
    pub to: String,
    /// Why.
    pub reason: String,
    /// How often.
    pub value: u64,
}

/// A histogram of seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper bounds.
    pub bounds: Vec<f64>,
    /// Values up to each bound and above the one before; the last one above all bounds.
    pub counts: Vec<u64>,
    /// Sum of the values.
    pub sum: f64,
}

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Name.
    pub name: String,
    /// VIP.
    pub vip: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Port, range or `any`.
    pub port: String,
    /// Scheduler.
    pub scheduler: String,
    /// Persistence timeout in seconds; absent without persistence.
    pub persistence_seconds: Option<f64>,
    /// The group of services that it shares its templates with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_group: Option<String>,
    /// What `maglev` hashes: "source" or "flow"; absent with other schedulers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Whether the VIP is steered to the workers.
    pub steered: bool,
    /// Frames forwarded.
    pub packets: u64,
    /// Bytes forwarded.
    pub bytes: u64,
    /// Frames dropped for want of a backend.
    pub dropped: u64,
    /// New connections refused with an answer (`on_all_down = "reject"`).
    #[serde(default)]
    pub rejected: u64,
    /// Sum of the weights of backends that are up or suspected.
    #[serde(default)]
    pub healthy_weight: u32,
    /// Sum of the weights of all backends.
    #[serde(default)]
    pub total_weight: u32,
    /// Whether enough is up (`min_healthy`).
    #[serde(default)]
    pub quorum: bool,
    /// Whether the fallback takes new sources.
    #[serde(default)]
    pub fallback_active: bool,
    /// Backends, as configured; then the fallback; then the ones removed from the
    /// configuration and still have flows.
    pub backends: Vec<Backend>,
}

/// A backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backend {
    /// Name.
    pub name: String,
    /// Address.
    pub address: String,
    /// Whether it is the fallback of its service.
    #[serde(default)]
    pub fallback: bool,
    /// Weight, as configured.
    pub weight: u32,
    /// Weight that counts for new sources now: 0 while it takes none, less than `weight` during slow
    /// start.
    #[serde(default)]
    pub effective_weight: f64,
    /// `up`, `suspected` (in service, but new sources go elsewhere), `down`, `held` (its checks pass,
    /// but it flapped and stays down), `resolving` (its MAC address is being asked for),
    /// `checking` (not known yet), or `draining` (weight 0, or removed from the configuration).
    pub state: String,
    /// Why, where there is something to say.
    pub reason: Option<String>,
    /// Seconds in this state.
    pub since_seconds: f64,
    /// How often it came to carry flows, or ceased to, since start.
    pub transitions: u64,
    /// MAC address, when known.
    pub mac: Option<String>,
    /// Flows that live.
    pub active: u64,
    /// Flows that ended but are remembered.
    pub inactive: u64,
    /// Flows that nothing proves to be connections: no load to `lc` and `wlc`, and the first to make
    /// room.
    #[serde(default)]
    pub unproven: u64,
    /// Persistence templates that name it.
    pub templates: u64,
    /// Flows entered: TCP connections that it answered, ones that came midway or from another queue,
    /// and UDP flows.
    pub connections: u64,
    /// Frames forwarded.
    pub packets: u64,
    /// Bytes forwarded.
    pub bytes: u64,
    /// New TCP connections tried: SYNs, but for the retransmissions that were recognised.
    #[serde(default)]
    pub handshakes_attempted: u64,
    /// Resets to its clients on its behalf, as answers and unasked: also the ones that could not be
    /// written or that the transmit ring refused.
    #[serde(default)]
    pub resets: u64,
    /// Seconds until it is let up, while it is `held`.
    #[serde(default)]
    pub held_seconds: Option<f64>,
    /// How often it was suspected.
    #[serde(default)]
    pub suspicions: u64,
    /// Looks at unanswered connections that started no check: the last such hint was wrong, not long
    /// ago.
    #[serde(default)]
    pub triggers_ignored: u64,
    /// How long its checks took.
    #[serde(default)]
    pub check_seconds: Histogram,
    /// Its checks, as configured.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// One health check of a backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// `http`, `https`, `tcp`, `udp`, `ping` or `script`.
    pub kind: String,
    /// The kind and what tells it from all others of the backend: `http /health`, `http /health #2`.
    pub label: String,
    /// `checking`, `passing`, `failing`, `suspected` or `down`.
    pub state: String,
    /// How often it passed.
    pub successes: u64,
    /// How often it failed, by why; every reason is listed.
    pub failures: Vec<Count>,
    /// Failures since it last passed.
    pub failed_in_a_row: u32,
    /// Why it failed last.
    pub last_failure: Option<String>,
    /// Seconds since then.
    pub last_failure_age_seconds: Option<f64>,
    /// How long the last one took, in seconds.
    pub last_duration_seconds: Option<f64>,
    /// How often its kept connection was ended by the backend while that was up.
    pub sentinel_losses: u64,
}

/// The persistence table.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Persistence {
    /// Templates.
    pub entries: u64,
    /// Most templates.
    pub capacity: u64,
    /// Templates made.
    pub created: u64,
    /// Templates that timed out.
    pub expired: u64,
    /// Templates whose backend was replaced.
    pub replaced: u64,
    /// Connections that got no template because the table was full.
    pub refused: u64,
}

/// A node whose only service lost its quorum.
#[cfg(test)]
pub(crate) fn example() -> Status {
    const TEXT: &str = include_str!("status/example.json");
    match serde_json::from_str(TEXT) {
        Ok(status) => status,
        Err(error) => panic!("example.json: {error}"),
    }
}
