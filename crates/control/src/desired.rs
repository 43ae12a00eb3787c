//! What the operator wants: the configuration with every default filled in and every cross
//! reference checked. Built by the `config` crate, brought about by the Controller.
//!

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dataplane::{HashInput, Protocol, SchedulerKind, Timeouts};

use crate::health::{Check, CheckOverride};
use crate::vrrp::{
    AnnounceTimes, AuthPass, ChecksumMode, Handover, ScriptTimes, TrackKind, Version, Vrid,
};

/// The whole desired state of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Node name, shown in status and metrics. `None`: the host name.
    pub node_name: Option<String>,
    /// Interfaces that carry VIP traffic; at least one, names unique.
    pub interfaces: Vec<Interface>,
    /// Sizes and timeouts of the packet path.
    pub dataplane: Dataplane,
    /// Where `/metrics` and its neighbours are served. `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// VRRP instances; names unique, each with at least one service.
    pub vrrp: Vec<Vrrp>,
    /// Services; names unique, (VIP, protocol, ports) do not overlap.
    pub services: Vec<Service>,
}

impl Desired {
    /// The VIPs of a VRRP instance, each once, in the order of the services: at least one, all of
    /// one family.
    pub fn vips_of(&self, instance: &str) -> Vec<IpAddr> {
        let mut vips = Vec::new();
        let services = self.services.iter();
        for service in services.filter(|service| service.vrrp.as_deref() == Some(instance)) {
            if !vips.contains(&service.vip) {
                vips.push(service.vip);
            }
        }
        vips
    }
}

/// One `[[interface]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Kernel name, 1–15 bytes.
    pub name: String,
    /// How the XDP program is attached.
    pub mode: XdpMode,
    /// Whether frames are shared with the driver or copied.
    pub zero_copy: ZeroCopy,
    /// RX queues to serve. `None`: all of them.
    pub queues: Option<Vec<u32>>,
    /// Whether frames with a VLAN tag may arrive.
    pub tagged_frames: TaggedFrames,
}

/// What an operator says of frames with a VLAN tag (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaggedFrames {
    /// They may arrive and keep their tag; where that is impossible, the interface is not served.
    Keep,
    /// None arrive, so that it does not matter whether they would keep it.
    None,
}

/// Attach mode of the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver where it can, else generic.
    Auto,
    /// In the driver or not at all.
    Native,
    /// After the socket buffer is allocated: slow, works everywhere.
    Generic,
}

/// Zero-copy mode of the AF_XDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where the driver can.
    Auto,
    /// Refuse to start without.
    On,
    /// Always copy.
    Off,
}

/// `[dataplane]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataplane {
    /// CPUs that workers are pinned to, in order. `None`: those of the process.
    pub cpus: Option<Vec<u32>>,
    /// How a worker waits for frames.
    pub poll: Poll,
    /// Whether the XDP program forwards the packets of known flows itself.
    pub fast_path: FastPath,
    /// Flow entries per worker, 1,024–67,108,864.
    pub flow_capacity: usize,
    /// Persistence templates per node, 1,024–67,108,864.
    pub persistence_capacity: usize,
    /// Entries of the shared pending table (choices of SYNs before the first ACK: with persistence
    /// two for each SYN), 1,024–67,108,864.
    pub pending_capacity: usize,
    /// Frames per worker's UMEM: a power of two, 4,096–65,536.
    pub frames: u32,
    /// Idle timeouts by connection state.
    pub timeouts: Timeouts,
}

/// How a worker waits for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Spin while there is traffic, sleep in poll(2) without.
    Adaptive,
    /// Never sleep, preferred busy polling.
    Busy,
}

/// Whether the XDP program forwards the packets of known flows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastPath {
    /// Where it is faster and known to work: [`crate::nic::fast_path`].
    Auto,
    /// On all interfaces; refuse to start where the kernel cannot.
    On,
    /// On none.
    Off,
}

/// One `[[vrrp]]`: a virtual router. What the ranges are, [`crate::vrrp::Config`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vrrp {
    /// Unique name.
    pub name: String,
    /// Name of the configured interface that has the VIPs.
    pub interface: String,
    /// Virtual router ID, unique per interface and address family.
    pub vrid: Vrid,
    /// Protocol version.
    pub version: Version,
    /// 1–254, or 255 for the owner of the addresses.
    pub priority: u8,
    /// Time between two adverts.
    pub advert_interval: Duration,
    /// Whether a higher priority takes over from a living Active.
    pub preempt: bool,
    /// How long a lower-priority Active is followed before it is preempted.
    pub preempt_delay: Duration,
    /// How many missing adverts make an Active dead, 2–100.
    pub down_adverts: u8,
    /// Checksum of version 3 over IPv4.
    pub checksum: ChecksumMode,
    /// What to wait for when preempting.
    pub handover: Handover,
    /// Adverts go to each peer instead of to the group.
    pub unicast: bool,
    /// Address of this node that adverts are sent from. `None`: the interface's first one, for IPv6
    /// its link-local one.
    pub source: Option<IpAddr>,
    /// Sources that are believed; empty: any (multicast only).
    pub peers: Vec<IpAddr>,
    /// Password of version 2.
    pub auth_pass: Option<AuthPass>,
    /// Instances with the same group are Active together or not at all.
    pub group: Option<String>,
    /// The VIPs are released when the control thread is silent for this long.
    pub control_timeout: Duration,
    /// Gratuitous ARP and unsolicited neighbour advertisements.
    pub announce: AnnounceTimes,
    /// What changes the priority.
    pub track: Vec<Track>,
    /// What is run at each change of state.
    pub notify: Option<Notify>,
}

/// One `[[vrrp.track]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// The thing.
    pub target: TrackTarget,
    /// -253–253, not 0. `None`: it must be up (a file: hold 0 or more).
    pub weight: Option<i16>,
}

/// A thing that is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackTarget {
    /// A kernel interface: up while it has a link.
    Interface(String),
    /// A service: up while a backend of it can take new sources.
    Service(String),
    /// A program and its arguments: up while it exits with 0.
    Script(Vec<String>, ScriptTimes),
    /// A file that holds a number.
    File(PathBuf),
}

impl TrackTarget {
    /// Its kind.
    pub const fn kind(&self) -> TrackKind {
        match self {
            Self::Interface(_) => TrackKind::Interface,
            Self::Service(_) => TrackKind::Service,
            Self::Script(..) => TrackKind::Script,
            Self::File(_) => TrackKind::File,
        }
    }

    /// Its name: for a script the program.
    pub fn name(&self) -> String {
        match self {
            Self::Interface(name) | Self::Service(name) => name.clone(),
            Self::Script(argv, _) => argv.first().cloned().unwrap_or_default(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// `[vrrp.notify]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// A program and its first arguments; no shell.
    pub command: Vec<String>,
    /// It is killed after this long.
    pub timeout: Duration,
}

/// One `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// The VRRP instance that its VIP belongs to. `None`: active whenever this node runs.
    pub vrrp: Option<String>,
    /// The virtual address.
    pub vip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// First port; 0 with `last_port` 65535 means any.
    pub first_port: u16,
    /// Last port, inclusive.
    pub last_port: u16,
    /// What becomes of packets to its VIP that no service has; all services of a VIP agree.
    pub closed_ports: ClosedPorts,
    /// How a backend is chosen for a new source.
    pub scheduler: SchedulerKind,
    /// What the scheduler's hash is of, if that is written. With `Source`, services with the same
    /// backends choose alike.
    pub hash: Option<HashInput>,
    /// Source persistence. `None`: each connection is scheduled on its own.
    pub persistence: Option<Persistence>,
    /// Backends; names and addresses unique within the service.
    pub backends: Vec<Backend>,
    /// Checks of every backend; all must pass. Empty: a backend is up while its MAC is known.
    pub health: Vec<Check>,
    /// What is done about failures.
    pub failure: FailurePolicy,
}

impl Service {
    /// What its packets are sent to: VIP, protocol, first and last port.
    pub fn endpoint(&self) -> (IpAddr, Protocol, u16, u16) {
        (self.vip, self.protocol, self.first_port, self.last_port)
    }

    /// The group that it shares its templates with, if any.
    pub fn group(&self) -> Option<&str> {
        self.persistence.as_ref()?.group.as_deref()
    }

    /// What the scheduler's hash is of.
    pub fn hash_input(&self) -> HashInput {
        let input = if self.persistence.is_some() { HashInput::Source } else { HashInput::Flow };
        self.hash.unwrap_or(input)
    }

    /// Everything that frames are sent to: the backends and the fallback.
    pub fn hosts(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().chain(&self.failure.fallback)
    }
}

/// What becomes of packets to ports and protocols of a VIP that no service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClosedPorts {
    /// Answered as a host does: TCP reset, ICMP port or protocol unreachable.
    #[default]
    Reject,
    /// Dropped.
    Drop,
}

/// What a service does about backends that are down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailurePolicy {
    /// What becomes of the established flows of a backend that is down.
    pub on_down: OnDown,
    /// What a client is answered when no backend can take it.
    pub on_all_down: OnAllDown,
    /// How much must be up for the service to count as up.
    pub min_healthy: MinHealthy,
    /// Takes new sources while less than `min_healthy` is up (the sorry server).
    pub fallback: Option<Backend>,
    /// Down means weight 0: no new sources, but flows and sticky clients stay.
    pub inhibit: bool,
    /// A backend that comes up takes new sources in growing number for this long; 0: at once.
    pub slow_start: Duration,
    /// How a backend that flaps is held down.
    pub damping: Damping,
    /// What is run when a backend or the service goes up or down.
    pub notify: Option<Notify>,
}

/// `on_down`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// Clients get a TCP reset, so that they reconnect now.
    #[default]
    Reset,
    /// Frames go on to the backend.
    Keep,
    /// Frames are dropped.
    Drop,
}

/// `on_all_down`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAllDown {
    /// New connections are refused: TCP reset, ICMP port unreachable.
    #[default]
    Reject,
    /// The backends that were up last go on as if they were up.
    KeepLast,
}

/// `min_healthy` and its hysteresis, in the same unit: lost below `min`, regained at
/// `min + hysteresis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinHealthy {
    /// Sum of the weights of backends that are up.
    Weight {
        /// At least 1.
        min: u32,
        /// Above `min`.
        hysteresis: u32,
    },
    /// The same as a part of the sum of all weights, in per cent.
    Percent {
        /// 1–100.
        min: u8,
        /// Above `min`; the sum is at most 100.
        hysteresis: u8,
    },
}

impl Default for MinHealthy {
    fn default() -> Self {
        Self::Weight { min: 1, hysteresis: 0 }
    }
}

/// How a backend that went down is held down: the first time for `hold`, then longer and longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// The shortest time down, 0 for no damping.
    pub hold: Duration,
    /// The longest time that a backend is held down although its checks pass.
    pub max: Duration,
}

impl Default for Damping {
    fn default() -> Self {
        Self { hold: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

/// `[service.persistence]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// A source without connections is forgotten after this long.
    pub timeout: Duration,
    /// Bits of an IPv4 source that count, 1–32.
    pub prefix_v4: u8,
    /// Bits of an IPv6 source that count, 1–128.
    pub prefix_v6: u8,
    /// Whether clients of a backend with weight 0 keep coming back to it (ip_vs' default; ours is
    /// no).
    pub sticky_when_drained: bool,
    /// Services with the same name here share their templates: a source goes to one machine, which is
    /// what its backends are called. They agree in all of the above.
    pub group: Option<String>,
}

/// One `[[service.backend]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique within the service.
    pub name: String,
    /// Address on a connected network, of the VIP's family.
    pub address: IpAddr,
    /// Share of new sources, 0–65,535; 0 takes none.
    pub weight: u32,
    /// What its checks have in place of what the service's say.
    pub check: CheckOverride,
    /// An operator drains it: its weight is 0. `None` in every file.
    pub drain: Option<Drain>,
}

/// A backend that an operator drains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Its own clients still come back to it.
    pub keep_sticky: bool,
    /// The deadline has passed: its connections are reset.
    pub ended: bool,
}
