//! A switch that delivers multicast only to those that asked for it. Needs root.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use lab::{Lab, LoadClient, Node, Result, ServiceText, VrrpText};
use tests::lifecycle::{SMALL, wait_for};

/// An IPv6 VIP is asked for by multicast to its solicited-node group (RFC 4861 §7.2.2): the Active is a
/// member of it, and the Backup none.
#[test]
fn an_ipv6_vip_is_found_behind_a_snooping_switch_before_and_after_a_take_over() -> anyhow::Result<()>
{
    let lab = Lab::builder().balancers(2).backends(1).build()?;
    let _web = lab.start_web()?;
    snoop(&lab)?;
    let mut nodes = Vec::new();
    for (at, priority) in [(0, 150), (1, 100)] {
        let vrrp = VrrpText::new("VI_1", priority, Duration::from_millis(100));
        let service = ServiceText::web_v6(&lab).with("vrrp = \"VI_1\"");
        nodes.push(
            lab.start_pointsman(at, &format!("{SMALL}{}{}", service.to_toml(), vrrp.to_toml()))?,
        );
    }
    let members = |first: bool, second: bool| {
        let (lab, expected) = (&lab, [first, second]);
        wait_for("the groups are joined and left", Duration::from_secs(5), move || {
            Ok([is_member(lab, lab.balancer(0))?, is_member(lab, lab.balancer(1))?] == expected)
        })
    };
    members(true, false)?;
    fetch(&lab)?;
    nodes.remove(0).process().kill()?;
    members(false, true)?;
    fetch(&lab)?;
    Ok(())
}

/// Has the switch send neighbour solicitations only where their group was joined.
fn snoop(lab: &Lab) -> Result<()> {
    lab.switch().set_sysctls(&["net/ipv6/conf/br0/disable_ipv6=0"])?;
    // A switch floods until it has asked all who want what, and waited for the answers (0.1 s).
    lab.switch().ip(
        "link set br0 type bridge mcast_mld_version 2 mcast_query_response_interval 10\n\
         link set br0 type bridge mcast_snooping 1\n\
         link set br0 type bridge mcast_querier 1\n",
    )
}

/// Whether a node is in the solicited-node group of the VIP.
fn is_member(lab: &Lab, node: &Node) -> Result<bool> {
    let [.., a, b, c] = lab.vip_v6().octets();
    let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    let groups = node.netns().enter(|| fs::read_to_string("/proc/thread-self/net/igmp6"))?;
    Ok(groups
        .unwrap_or_default()
        .lines()
        .any(|line| line.contains("eth0") && line.contains(&group)))
}

/// One request of a client that has to ask where the VIP is.
fn fetch(lab: &Lab) -> anyhow::Result<()> {
    let client = lab.client(0);
    client.netns().ip("neigh flush dev eth0\n")?;
    let file = lab.files().ensure("1k")?;
    let load = LoadClient::new(SocketAddr::new(lab.vip_v6().into(), 80), &file).verify(&file);
    let load = load.sources(client.sources_v6(1)).requests(1);
    let patience = Duration::from_secs(3);
    let report = load.timeouts(patience, patience).run(client.netns())?;
    anyhow::ensure!(report.failed() == 0 && report.done() == 1, "{report}");
    Ok(())
}
