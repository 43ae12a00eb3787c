//! Services and their backends.

use std::net::IpAddr;

use control::health::{CheckState, FailureKind};
use dataplane::{HashInput, Protocol, SchedulerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Count, Histogram};

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// Name.
    pub name: String,
    /// VIP.
    pub vip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port, range or `any`.
    pub port: String,
    /// Scheduler.
    pub scheduler: SchedulerKind,
    /// Persistence timeout in seconds; absent without persistence.
    pub persistence_seconds: Option<f64>,
    /// Bits of a source's address that persistence tells apart; absent without persistence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_prefix: Option<u8>,
    /// The group of services that it shares its templates with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_group: Option<String>,
    /// What `maglev` hashes; absent with other schedulers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashInput>,
    /// Whether the VIP is steered to the workers.
    pub steered: bool,
    /// Whether the VIP does not answer programs on this node: it is active here, and what the node sends
    /// does not pass its own XDP program.
    #[serde(default)]
    pub silent_here: bool,
    /// Frames forwarded.
    pub packets: u64,
    /// Bytes forwarded.
    pub bytes: u64,
    /// Bytes that clients of TCP acknowledged: what the backends sent them, as far as it arrived.
    #[serde(default)]
    pub acked_bytes: u64,
    /// How busy it is.
    #[serde(default)]
    pub rates: Rates,
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
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// Name.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Whether it is the fallback of its service.
    #[serde(default)]
    pub fallback: bool,
    /// Weight, as configured.
    pub weight: u32,
    /// Weight that counts for new sources now: 0 while it takes none, less than `weight` during slow
    /// start.
    #[serde(default)]
    pub effective_weight: f64,
    /// State.
    pub state: BackendState,
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
    /// Bytes that clients of TCP acknowledged: what it sent them, as far as it arrived.
    #[serde(default)]
    pub acked_bytes: u64,
    /// How busy it is.
    #[serde(default)]
    pub rates: Rates,
    /// How long handshakes took, from a client's SYN to its ACK; a sample of them.
    #[serde(default)]
    pub handshake_seconds: Histogram,
    /// New TCP connections tried: SYNs, but for the retransmissions that were recognised.
    #[serde(default)]
    pub handshakes_attempted: u64,
    /// Resets to its clients on its behalf, as answers and unasked: also the ones that could not be
    /// written or that the transmit ring refused.
    #[serde(default)]
    pub resets: u64,
    /// What an operator changed by command: its weight is not the one of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorChange>,
    /// Seconds until the connections of a drained backend are reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<f64>,
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
    /// Its checks, as configured. What several services ask alike of one address is asked once: then
    /// each of them shows the same counts.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// What is done per second, over the last few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Flows entered.
    pub connections: f64,
    /// Frames forwarded.
    pub packets: f64,
    /// Bytes forwarded, Ethernet header included.
    pub bytes: f64,
    /// Bytes that clients of TCP acknowledged.
    pub acked_bytes: f64,
}

impl std::iter::Sum for Rates {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            connections: sum.connections + one.connections,
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
            acked_bytes: sum.acked_bytes + one.acked_bytes,
        })
    }
}

/// One health check of a backend.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// `http`, `https`, `tcp`, `udp`, `dns`, `ping` or `script`.
    pub kind: String,
    /// The kind and what tells it from all others of the backend: `http /health`, `http /health #2`.
    pub label: String,
    /// Number among all checks of the backend's address. Checks of several services with one address
    /// and number are the same one, and what is counted of it counts for all of them.
    #[serde(default)]
    pub number: u64,
    /// State.
    pub state: CheckState,
    /// How often it passed.
    pub successes: u64,
    /// How often it failed, by why; every reason is listed.
    pub failures: Vec<Count<FailureKind>>,
    /// Failures since it last passed.
    pub failed_in_a_row: u32,
    /// Why it failed last.
    pub last_failure: Option<String>,
    /// Seconds since then.
    pub last_failure_age_seconds: Option<f64>,
    /// How long the last one took, in seconds.
    pub last_duration_seconds: Option<f64>,
    /// How long they took, whatever their end.
    #[serde(default)]
    pub seconds: Histogram,
    /// How often its kept connection was ended by the backend while that was up.
    pub sentinel_losses: u64,
}

label::labels! {
    /// The state of a backend, as operators see it.
    pub enum BackendState {
        Up => "up", "It can be reached and its checks pass.";
        Suspected => "suspected", "In service, but new sources go elsewhere: it may be down.";
        Down => "down", "It cannot be reached, or its checks fail.";
        Held => "held", "Its checks pass, but it flapped and stays down for a while.";
        Resolving => "resolving", "Its MAC address is being asked for.";
        Checking => "checking", "It has not been checked yet.";
        Draining => "draining", "It takes no new sources: weight 0, or removed from the configuration.";
    }
}

label::labels! {
    /// What an operator changed of a backend by command.
    pub enum OperatorChange {
        Drained => "drained", "It takes no new sources.";
        Weight => "weight", "It has another weight.";
    }
}

impl BackendState {
    /// Whether its clients are served.
    pub const fn serves(self) -> bool {
        match self {
            Self::Up | Self::Suspected | Self::Draining => true,
            Self::Down | Self::Held | Self::Resolving | Self::Checking => false,
        }
    }
}

impl From<control::BackendState> for BackendState {
    fn from(state: control::BackendState) -> Self {
        use control::BackendState as From;
        match state {
            From::Up => Self::Up,
            From::Suspected => Self::Suspected,
            From::Down => Self::Down,
            From::Resolving => Self::Resolving,
            From::Checking => Self::Checking,
            From::Draining => Self::Draining,
        }
    }
}
