//! Frames of VLAN 77: they leave as they came, with their tag, and never cross into the native VLAN.
//!
//! Nodes get into the VLAN by a BPF program that tags what they send and untags what they get: not
//! every kernel that runs the lab has VLAN devices.

use std::{net::SocketAddr, net::UdpSocket, time::Duration};

use anyhow::{Result, ensure};
use lab::{Capture, Direction, Lab, Node, node::Role};

use crate::{
    guest::{DATAGRAMS, set_offloads},
    lifecycle::run,
};

/// How many datagrams a test sends.
pub const SENT: usize = 20;

/// How many datagrams of the VLAN arrived at backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// With their tag.
    pub tagged: usize,
    /// Without: they crossed into the native VLAN.
    pub untagged: usize,
}

/// Sends tagged datagrams to the VIP at this MAC: all arrive, and with their tag.
///
/// # Errors
/// When that is not so.
pub fn stays_tagged(lab: &Lab, mac: &str) -> Result<()> {
    let Arrived { tagged, untagged } = send(lab, mac)?;
    ensure!(untagged == 0, "{untagged} frames of VLAN 77 crossed into the native VLAN");
    ensure!(tagged == SENT, "{tagged} of {SENT} frames of VLAN 77 arrived");
    Ok(())
}

/// Sends tagged datagrams to the VIP at this MAC, and looks at how they arrive.
///
/// # Errors
/// When a program does not run.
pub fn send(lab: &Lab, mac: &str) -> Result<Arrived> {
    set_offloads(lab, "off")?;
    let (client, vip) = (lab.client(0), lab.vip());
    // Nobody in the VLAN would answer the question.
    client.netns().ip(&format!("neigh replace {vip} lladdr {mac} dev eth0 nud permanent\n"))?;
    let filter = format!("udp dst port {DATAGRAMS} or (vlan and udp dst port {DATAGRAMS})");
    let start = |node: &Node| {
        let file = node.dir().join("vlan.pcap");
        Capture::start(node.netns(), "eth0", Direction::In, &filter, file)
    };
    let captures: Vec<Capture> =
        lab.nodes_of(Role::Backend).map(start).collect::<lab::Result<_>>()?;
    tag(client, &["egress"])?;
    client.netns().enter(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..SENT {
            socket.send_to(&[7; 1000], SocketAddr::new(vip.into(), DATAGRAMS))?;
        }
        Ok(())
    })??;
    untag(client)?;
    let mut arrived = Arrived::default();
    for mut capture in captures {
        capture.settle(Duration::from_millis(700), Duration::from_secs(10))?;
        for frame in capture.finish()? {
            let tag = frame.bytes.get(12..16) == Some(&[0x81, 0x00, 0, 77]);
            *(if tag { &mut arrived.tagged } else { &mut arrived.untagged }) += 1;
        }
    }
    Ok(arrived)
}

/// Puts all clients and backends into the VLAN.
///
/// # Errors
/// When a program does not run.
pub fn move_all(lab: &Lab) -> Result<()> {
    let roles = [Role::Client, Role::Backend].into_iter();
    let mut nodes = roles.flat_map(|role| lab.nodes_of(role));
    nodes.try_for_each(|node| tag(node, &["egress", "ingress"]))
}

/// Has a node tag what it sends (`egress`), and untag what it gets (`ingress`).
fn tag(node: &Node, directions: &[&str]) -> Result<()> {
    let source = node.dir().join("tag.c");
    let object = node.dir().join("tag.o").display().to_string();
    std::fs::write(&source, PROGRAMS)?;
    let source = source.display().to_string();
    let netns = node.netns();
    run(netns, &["clang", "-O2", "-g", "-target", "bpf", "-c", &source, "-o", &object])?;
    run(netns, &["tc", "qdisc", "add", "dev", "eth0", "clsact"])?;
    for direction in directions {
        let filter = ["tc", "filter", "add", "dev", "eth0", direction];
        let program = ["bpf", "direct-action", "object-file", &object, "section", direction];
        run(netns, &[&filter[..], &program].concat())?;
    }
    Ok(())
}

/// Has it send without a tag again.
fn untag(node: &Node) -> Result<()> {
    run(node.netns(), &["tc", "qdisc", "del", "dev", "eth0", "clsact"]).map(drop)
}

/// The helpers are `bpf_skb_vlan_push` and `bpf_skb_vlan_pop`; 0x8100 in network byte order.
const PROGRAMS: &str = r#"
static long (*push)(void *, unsigned short, unsigned short) = (void *)18;
static long (*pop)(void *) = (void *)19;
__attribute__((section("egress"), used)) int tag(void *skb) { push(skb, 0x0081, 77); return 0; }
__attribute__((section("ingress"), used)) int untag(void *skb) { pop(skb); return 0; }
char _license[] __attribute__((section("license"), used)) = "GPL";
"#;
