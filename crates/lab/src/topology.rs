//! The lab as a whole: nodes around one switch.
//!
//! ```text
//!  client1..N ──┐                 ┌── lb1..M   (each the only port that speaks for a VIP)
//!               ├── bridge "br0" ─┤
//!  (eth0, veth) ┘   (namespace)   └── rs1..K   (nginx, VIPs on lo, no ARP for them)
//! ```
//!
//! All `eth0` are in one subnet, 10.77.0.0/16 and fd77::/64: clients 10.77.1.n, balancers
//! 10.77.2.n, backends 10.77.3.n, VIPs 10.77.0.100 and up. Choices that the packet path depends on:
//!
//! * Client interfaces have checksum and segmentation offload off: otherwise AF_XDP sees
//!   unfinished checksums and frames larger than the MTU. Backends keep both: their answers do
//!   not pass the balancer.
//! * A veth hands a packet to the receive queue with the number of the sender's transmit queue,
//!   and a frame that a bridge passes on takes as transmit queue the recorded one *minus one*
//!   (`skb_tx_hash`). With as many queues on the client as on the balancer, the last queue gets
//!   nothing; so clients have 4n + 1 transmit queues, which fills n within a few per cent.
//! * The switch's port to a balancer has an `mq` queueing discipline: the buffer that a real
//!   switch has (a veth ring holds 256 frames only), and a counter per queue.
//! * GRO stays off: frames sent by AF_XDP in copy mode take the ordinary transmit path, which
//!   needs nothing from the peer, and merged frames would not be the ones that were sent.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    clean,
    error::{Doing as _, LabError, Result},
    fast_path,
    files::Files,
    host::{require_root, require_tools},
    identity::LabId,
    netns::NetNs,
    nginx::{Nginx, NginxStyle},
    node::{MAX_PER_ROLE, Node, Role, node_name},
    pointsman::Pointsman,
};

/// A running lab. Dropping it ends its processes and removes its namespaces and files.
#[derive(Debug)]
pub struct Lab {
    // Order matters: fields are dropped from the top.
    nodes: Vec<Node>,
    switch: NetNs,
    files: Files,
    shape: LabBuilder,
    dir: TempDir,
}

/// How a lab is to look.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    clients: u8,
    balancers: u8,
    backends: u8,
    queues: u8,
    vips: u8,
}

impl LabBuilder {
    /// Number of clients (default 1, at most [`MAX_PER_ROLE`]).
    #[must_use]
    pub fn clients(mut self, count: u8) -> Self {
        self.clients = count;
        self
    }

    /// Number of balancers (default 1).
    #[must_use]
    pub fn balancers(mut self, count: u8) -> Self {
        self.balancers = count;
        self
    }

    /// Number of backends (default 3).
    #[must_use]
    pub fn backends(mut self, count: u8) -> Self {
        self.backends = count;
        self
    }

    /// Receive and transmit queues of each balancer's `eth0` (default 1, at most 15).
    #[must_use]
    pub fn queues(mut self, count: u8) -> Self {
        self.queues = count;
        self
    }

    /// Number of VIPs that the backends accept (default 1): 10.77.0.100 and up.
    #[must_use]
    pub fn vips(mut self, count: u8) -> Self {
        self.vips = count;
        self
    }

    /// Makes it. What dead labs left behind is removed first.
    ///
    /// # Errors
    /// No root, missing programs, or the first step that fails; everything made until then is
    /// removed again.
    pub fn build(self) -> Result<Lab> {
        self.check()?;
        require_root()?;
        require_tools(&["ip", "tc", "ethtool", "setpriv"])?;
        clean::dead_labs()?;
        let id = LabId::next()?;
        let dir = TempDir::create(&id.name("files"))?;
        let files = Files::in_dir(dir.path.join("www"))?;
        let switch = NetNs::create(id.name("switch"))?;
        switch.set_sysctls(&[
            "net/ipv6/conf/all/disable_ipv6=1",
            "net/ipv6/conf/default/disable_ipv6=1",
        ])?;
        switch.ip("link add br0 type bridge stp_state 0 mcast_snooping 0\n\
                   link set br0 up\nlink set lo up\n")?;
        let mut lab = Lab { nodes: Vec::new(), switch, files, shape: self, dir };
        lab.add_nodes(&id)?;
        lab.add_routes()?;
        Ok(lab)
    }

    fn check(&self) -> Result<()> {
        let counts = [self.clients, self.balancers, self.backends, self.vips];
        if counts.iter().all(|n| *n <= MAX_PER_ROLE) && (1..=15).contains(&self.queues) {
            return Ok(());
        }
        Err(LabError::Malformed {
            what: "shape of the lab".into(),
            detail: format!("at most {MAX_PER_ROLE} nodes of a kind and 1 to 15 queues: {self:?}"),
        })
    }

    fn vip_list(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv6Addr)> + use<> {
        (0..self.vips).map(|index| (vip(index), vip_v6(index)))
    }
}

impl Lab {
    /// A lab with one client, one balancer with one queue, three backends and one VIP.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder { clients: 1, balancers: 1, backends: 3, queues: 1, vips: 1 }
    }

    /// Client `index`, counted from 0.
    ///
    /// # Panics
    /// When there are not so many (also for the next two).
    #[must_use]
    pub fn client(&self, index: usize) -> &Node {
        self.nodes_of(Role::Client).nth(index).expect("no such client")
    }

    /// Balancer `index`, counted from 0.
    #[must_use]
    pub fn balancer(&self, index: usize) -> &Node {
        self.nodes_of(Role::Balancer).nth(index).expect("no such balancer")
    }

    /// Backend `index`, counted from 0.
    #[must_use]
    pub fn backend(&self, index: usize) -> &Node {
        self.nodes_of(Role::Backend).nth(index).expect("no such backend")
    }

    /// All nodes of a role, in order.
    pub fn nodes_of(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role == role)
    }

    /// The namespace of the switch. Its ports are named like the nodes: `client1`, `lb1`, `rs1`.
    #[must_use]
    pub fn switch(&self) -> &NetNs {
        &self.switch
    }

    /// Files that all backends serve.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// A directory that is removed with the lab.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// The first VIP.
    #[must_use]
    pub fn vip(&self) -> Ipv4Addr {
        vip(0)
    }

    /// The first IPv6 VIP.
    #[must_use]
    pub fn vip_v6(&self) -> Ipv6Addr {
        vip_v6(0)
    }

    /// A port on the first VIP.
    #[must_use]
    pub fn vip_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.vip()), port)
    }

    /// Queues of each balancer's interface.
    #[must_use]
    pub fn queues(&self) -> u8 {
        self.shape.queues
    }

    /// Starts nginx on backend `index`; the file list is [`Lab::files`].
    ///
    /// # Errors
    /// When it does not listen on port 80 within 5 s.
    pub fn start_nginx(&self, index: usize) -> Result<Nginx> {
        self.start_nginx_as(index, &NginxStyle::default())
    }

    /// The same in another way.
    ///
    /// # Errors
    /// As [`Lab::start_nginx`].
    pub fn start_nginx_as(&self, index: usize, style: &NginxStyle) -> Result<Nginx> {
        Nginx::start(self.backend(index), self.files.dir(), style)
    }

    /// Starts nginx on every backend.
    ///
    /// # Errors
    /// As [`Lab::start_nginx`].
    pub fn start_web(&self) -> Result<Vec<Nginx>> {
        (0..self.nodes_of(Role::Backend).count()).map(|index| self.start_nginx(index)).collect()
    }

    /// Starts the product on balancer `index` and waits until it says that it is ready.
    ///
    /// # Errors
    /// When there is no binary, it ends early, or it is not ready within 10 s.
    pub fn start_pointsman(&self, index: usize, config: &str) -> Result<Pointsman> {
        Pointsman::start(self.balancer(index), config)
    }

    /// Takes the cable of a node out: its port on the switch goes down, and the node sees the
    /// loss of the link.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unplug(&self, node: &Node) -> Result<()> {
        self.switch.ip(&format!("link set {} down\n", node.name()))
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug(&self, node: &Node) -> Result<()> {
        self.switch.ip(&format!("link set {} up\n", node.name()))
    }

    /// Isolated nodes cannot reach each other, but everybody else: two isolated balancers are a
    /// partitioned pair, without any link going down.
    ///
    /// # Errors
    /// When `bridge` fails.
    pub fn isolate(&self, node: &Node, isolated: bool) -> Result<()> {
        let state = if isolated { "on" } else { "off" };
        let argv = ["bridge", "link", "set", "dev", &node.name(), "isolated", state];
        self.switch.run(&argv, STEP)?.ok().map(drop)
    }

    /// Frames that the switch has sent so far to each queue of a balancer.
    ///
    /// # Errors
    /// When `tc` fails or prints something unknown.
    pub fn queue_frames(&self, balancer: &Node) -> Result<Vec<u64>> {
        let argv = ["tc", "-s", "-j", "qdisc", "show", "dev", &balancer.name()];
        let text = self.switch.run(&argv, STEP)?.ok()?;
        let bad = || LabError::Malformed { what: argv.join(" "), detail: text.clone() };
        queue_frames(&text).ok_or_else(bad)
    }

    fn add_nodes(&mut self, id: &LabId) -> Result<()> {
        let LabBuilder { clients, balancers, backends, .. } = self.shape;
        let roles =
            [(Role::Client, clients), (Role::Balancer, balancers), (Role::Backend, backends)];
        for (role, count) in roles {
            for number in 1..=count {
                let name = node_name(role, number);
                let dir = self.dir.path.join(&name);
                fs::create_dir(&dir).doing(|| format!("make {}", dir.display()))?;
                let netns = Arc::new(NetNs::create(id.name(&name))?);
                let node = Node { netns, role, number, dir };
                self.connect(&node)?;
                self.nodes.push(node);
            }
        }
        Ok(())
    }

    /// Gives a node its link to the switch, its addresses and its kernel settings.
    fn connect(&self, node: &Node) -> Result<()> {
        let (port, queues) = (node.name(), u16::from(self.shape.queues));
        let [rx, tx] = match node.role {
            Role::Client => [1, 4 * queues + 1],
            Role::Balancer => [queues, queues],
            Role::Backend => [1, 1],
        };
        let mac = node.mac().map(|byte| format!("{byte:02x}")).join(":");
        node.netns.set_sysctls(QUIET_IPV6)?;
        // The switch's end has as many receive queues as the node's end has transmit queues.
        self.switch.ip(&format!(
            "link add {port} numtxqueues {rx} numrxqueues {tx} type veth \
             peer name eth0 address {mac} numtxqueues {tx} numrxqueues {rx} netns {}\n\
             link set {port} master br0 up\n",
            node.netns.name()
        ))?;
        node.netns.ip(&format!(
            "link set lo up\nlink set eth0 up\n\
             addr add {}/16 dev eth0\naddr add {}/64 dev eth0 nodad\n",
            node.address(),
            node.address_v6()
        ))?;
        match node.role {
            Role::Client => Self::set_up_client(node),
            Role::Balancer => self.set_up_balancer(node, &port),
            Role::Backend => self.set_up_backend(node),
        }
    }

    fn set_up_client(node: &Node) -> Result<()> {
        node.netns.set_sysctls(&[
            "net/ipv4/conf/all/rp_filter=0",
            "net/ipv4/conf/eth0/rp_filter=0",
            // Questions for a MAC carry an address of the common subnet, whatever is asked for.
            "net/ipv4/conf/eth0/arp_announce=2",
            "net/ipv4/ip_local_port_range=1024 65535",
            "net/ipv6/ip_nonlocal_bind=1",
            "net/ipv4/tcp_max_tw_buckets=1000000",
        ])?;
        let (range, range_v6) = node.ranges();
        node.netns
            .ip(&format!("route add local {range} dev lo\nroute add local {range_v6} dev lo\n"))?;
        let argv = ["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"];
        node.netns.run(&argv, STEP)?.ok().map(drop)
    }

    fn set_up_balancer(&self, node: &Node, port: &str) -> Result<()> {
        node.netns.set_sysctls(&[
            "net/ipv4/ip_forward=0",
            "net/ipv4/conf/all/rp_filter=0",
            "net/ipv4/conf/eth0/rp_filter=0",
        ])?;
        if fast_path::is_on() {
            fast_path::receive(&self.switch, port, &self.dir.path)?;
        }
        // `mq` needs more than one queue; a single one gets the discipline that `mq` gives each.
        let kind: &[&str] = if self.shape.queues > 1 { &["mq"] } else { &["pfifo_fast"] };
        let argv = ["tc", "qdisc", "replace", "dev", port, "root", "handle", "1:"];
        self.switch.run(&[&argv[..], kind].concat(), STEP)?.ok().map(drop)
    }

    fn set_up_backend(&self, node: &Node) -> Result<()> {
        node.netns.set_sysctls(&[
            "net/ipv4/conf/all/arp_ignore=1",
            "net/ipv4/conf/eth0/arp_ignore=1",
            "net/ipv4/conf/all/arp_announce=2",
            "net/ipv4/conf/eth0/arp_announce=2",
            "net/ipv4/conf/all/rp_filter=0",
            "net/ipv4/conf/eth0/rp_filter=0",
        ])?;
        let add = |(v4, v6)| format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n");
        node.netns.ip(&self.shape.vip_list().map(add).collect::<String>())
    }

    /// Tells balancers and backends the way to the clients' source ranges.
    fn add_routes(&self) -> Result<()> {
        let routes: String = self.nodes_of(Role::Client).map(Node::routes).collect();
        let mut others = self.nodes.iter().filter(|node| node.role != Role::Client);
        others.try_for_each(|node| node.netns.ip(&routes))
    }
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct TempDir {
    path: PathBuf,
}

impl TempDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn create(name: &str) -> Result<Self> {
        let _making = clean::making()?;
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).doing(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// IPv4 VIP `index`.
#[must_use]
pub fn vip(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 100 + index)
}

/// IPv6 VIP `index`.
#[must_use]
pub fn vip_v6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100 + u16::from(index))
}

/// Reads `tc -s -j qdisc show`: packets per child `1:N` of `mq`, or of a single root.
fn queue_frames(json: &str) -> Option<Vec<u64>> {
    let parsed: serde_json::Value = serde_json::from_str(json).ok()?;
    let mut queues = Vec::new();
    let mut root = None;
    for qdisc in parsed.as_array()? {
        let packets = qdisc.get("packets")?.as_u64()?;
        match qdisc.get("parent").and_then(|parent| parent.as_str()) {
            // The minor number is hexadecimal.
            Some(parent) => {
                let minor = parent.rsplit_once(':')?.1;
                queues.push((u32::from_str_radix(minor, 16).ok()?, packets));
            }
            None => root = Some(packets),
        }
    }
    queues.sort_unstable();
    if queues.is_empty() {
        return Some(vec![root?]);
    }
    Some(queues.into_iter().map(|(_, packets)| packets).collect())
}

/// For steps that take milliseconds.
const STEP: Duration = Duration::from_secs(10);

/// Addresses are usable at once (no DAD), and no router is solicited.
const QUIET_IPV6: &[&str] = &[
    "net/ipv6/conf/all/accept_dad=0",
    "net/ipv6/conf/default/accept_dad=0",
    "net/ipv6/conf/default/dad_transmits=0",
    "net/ipv6/conf/default/accept_ra=0",
    "net/ipv6/conf/default/router_solicitations=0",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_counters_are_sorted_by_queue() {
        let json = r#"[{"kind":"mq","handle":"1:","root":true,"packets":9},
            {"kind":"pfifo_fast","parent":"1:a","packets":3},
            {"kind":"pfifo_fast","parent":"1:2","packets":2},
            {"kind":"pfifo_fast","parent":"1:1","packets":1}]"#;
        assert_eq!(queue_frames(json), Some(vec![1, 2, 3]));
        assert_eq!(queue_frames(r#"[{"root":true,"packets":7}]"#), Some(vec![7]));
        assert_eq!(queue_frames("[]"), None);
        assert_eq!(queue_frames("no"), None);
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(Lab::builder().queues(0).build().is_err());
        assert!(Lab::builder().backends(101).build().is_err());
    }
}
