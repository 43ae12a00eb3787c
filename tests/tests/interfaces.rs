//! Requirement: frames are seen as they were on the wire, whatever the card or the kernel would
//! make of them, and never cross into another VLAN; afterwards the interface is as it was.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Lab, Node};
use tests::lifecycle::{config, echo_everywhere, run, udp, wait_for};

const TAGS: &str = "rx-vlan-offload";

#[test]
fn offloads_are_off_while_the_interface_is_served_and_on_again_afterwards() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    let node = lab.balancer(0);
    let before = offloads(node)?;
    ensure!(before.contains(&format!("{TAGS}: on")), "{before}");
    let mut lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    ensure!(!on(node, TAGS)?, "the card would take VLAN tags out of frames");
    ensure!(lb.metrics()?.sum("pointsman_interface_offloads_off", &[]) > 0.0);
    // Somebody switches it on again.
    run(node.netns(), &["ethtool", "-K", "eth0", "rxvlan", "on"])?;
    wait_for("switched off again", Duration::from_secs(5), || Ok(!on(node, TAGS)?))?;
    ensure!(lb.ready()?, "{}", lb.http("/readyz")?.1);
    lb.process().stop(Duration::from_secs(5))?;
    let after = offloads(node)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

/// All offloads.
fn offloads(node: &Node) -> Result<String> {
    run(node.netns(), &["ethtool", "-k", "eth0"])
}

fn on(node: &Node, name: &str) -> Result<bool> {
    Ok(offloads(node)?.lines().any(|line| line.trim().starts_with(&format!("{name}: on"))))
}
