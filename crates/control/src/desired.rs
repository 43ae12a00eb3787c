//! What the operator wants: the configuration with every default filled in and every cross
//! reference checked. Built by the `config` crate, brought about by the Controller.
//!

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dataplane::{Protocol, SchedulerKind, Timeouts};

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
    /// Services; names unique, (VIP, protocol, ports) do not overlap.
    pub services: Vec<Service>,
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
    /// Flow entries per worker, 1,024–67,108,864.
    pub flow_capacity: usize,
    /// Persistence templates per node, 1,024–67,108,864.
    pub persistence_capacity: usize,
    /// Entries of the shared pending table (SYNs between choice and first ACK),
    /// 1,024–67,108,864.
    pub pending_capacity: usize,
    /// Frames per worker's UMEM: a power of two, 4,096–65,536.
    pub frames: u32,
    /// Idle timeouts by connection state.
    pub timeouts: Timeouts,
}

/// How a worker waits for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Spin while there is traffic, sleep in poll(2) when there is none.
    Adaptive,
    /// Never sleep, preferred busy polling.
    Busy,
}

/// One `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// The virtual address.
    pub vip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// First port; 0 with `last_port` 65535 means any.
    pub first_port: u16,
    /// Last port, inclusive.
    pub last_port: u16,
    /// How a backend is chosen for a new source.
    pub scheduler: SchedulerKind,
    /// Source persistence. `None`: each connection is scheduled on its own.
    pub persistence: Option<Persistence>,
    /// Backends; names and addresses unique within the service.
    pub backends: Vec<Backend>,
}

/// `[service.persistence]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}
