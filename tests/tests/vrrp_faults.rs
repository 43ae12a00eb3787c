//! A frozen Active, a lost link, a healed partition. Needs root.

mod vrrp;

use std::time::Instant;

use lab::{Capture, Direction, Process, Result};
use vrrp::{Pair, Settings, ms, note, runs};

/// A stopped process gives the VIP up by itself: at no time do two nodes answer ARP for it, and
/// what wakes up is a Backup before it is anything else.
#[test]
fn a_frozen_active_never_answers_beside_its_successor() -> Result<()> {
    let mut pair = Pair::start(&Settings::fast())?;
    for run in 0..runs() {
        let client = pair.lab.client(0);
        let file = client.dir().join(format!("arp-{run}.pcap"));
        let replies = Capture::start(client.netns(), "eth0", Direction::In, "arp[6:2] = 2", file)?;
        let vip = pair.lab.vip();
        let log = client.dir().join("arping.log");
        let argv = ["arping", "-q", "-i", "eth0", "-W", "0.01", &vip.to_string()];
        let asking = Process::start(client.netns(), "arping", &argv, &log)?;
        pair.wait(ms(300 + 17 * u64::from(run)));
        let before = pair.first().log().len();
        pair.first().process().pause()?;
        pair.wait(ms(5000));
        assert_eq!(pair.instance(1)["vips_active"], true);
        pair.first().process().resume()?;
        pair.wait_active(0)?;
        pair.wait(ms(300));
        drop(asking);

        let owners: Vec<[u8; 6]> = replies
            .finish()?
            .iter()
            .filter(|frame| frame.bytes.get(28..32) == Some(vip.octets().as_slice()))
            .filter_map(|frame| frame.summary().map(|summary| summary.source_mac))
            .collect();
        let moves = owners.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(owners.len() > 100, "{} answers", owners.len());
        assert_eq!(moves, 2, "there and back, run {run}");
        let log = pair.first().log();
        let entered: Vec<&str> =
            log[before..].lines().filter_map(|line| line.split("Entering ").nth(1)).collect();
        assert!(entered[0].starts_with("BACKUP"), "{entered:?}");
    }
    pair.check_no_claims();
    pair.check_packets();
    Ok(())
}

#[test]
fn a_lost_link_is_replaced_within_400_ms() -> Result<()> {
    let pair = Pair::start(&Settings::fast())?;
    let mut outages = Vec::new();
    for run in 0..runs() {
        let probes = pair.probe()?;
        pair.wait(ms(300 + 17 * u64::from(run)));
        pair.lab.unplug(pair.lab.balancer(0))?;
        pair.wait_active(1)?;
        pair.wait(ms(300));
        outages.push(probes.finish().longest_outage());
        assert_eq!(pair.instance(0)["state"], "initialize", "it knows that it has no link");
        pair.lab.plug(pair.lab.balancer(0))?;
        pair.wait_active(0)?;
        pair.wait_reachable()?;
    }
    note(&format!("link down: {outages:?}"));
    assert!(outages.iter().all(|outage| *outage <= ms(400)), "{outages:?}");
    pair.check_packets();
    Ok(())
}

#[test]
fn a_healed_partition_has_one_active_again() -> Result<()> {
    let settings = Settings::fast();
    let limit = settings.interval + settings.skew_of_backup() + ms(50);
    let pair = Pair::start(&settings)?;
    let mut took = Vec::new();
    for _ in 0..runs() {
        for at in [0, 1] {
            pair.lab.isolate(pair.lab.balancer(at), true)?;
        }
        pair.wait_active(1)?;
        pair.wait(ms(200));
        assert_eq!(pair.states()?, ["active", "active"], "neither hears the other");
        pair.lab.isolate(pair.lab.balancer(0), false)?;
        let healed = Instant::now();
        pair.lab.isolate(pair.lab.balancer(1), false)?;
        while pair.states()? != ["active", "backup"] && healed.elapsed() < 20 * limit {}
        took.push(healed.elapsed());
        pair.wait_reachable()?;
    }
    note(&format!("partition healed: {took:?}"));
    assert!(took.iter().all(|took| *took <= limit), "{took:?}");
    pair.check_packets();
    Ok(())
}

/// An IPv4 and an IPv6 instance in one sync group.
#[test]
fn two_instances_of_a_group_and_ipv6_move_together() -> Result<()> {
    let mut pair = Pair::start(&Settings { both_families: true, ..Settings::fast() })?;
    for _ in 0..2 {
        let both = |pair: &Pair, index: usize| {
            let found = [0, 1].map(|at| pair.nth_instance(index, at)["vips_active"].clone());
            found.iter().all(|active| *active == true)
        };
        let begin = Instant::now();
        while !both(&pair, 0) && begin.elapsed() < ms(10_000) {}
        assert!(both(&pair, 0), "{}", pair.late("both families"));
        pair.kill_first()?;
        let begin = Instant::now();
        while !both(&pair, 1) && begin.elapsed() < ms(10_000) {}
        assert!(both(&pair, 1), "{}", pair.late("both families"));
        pair.restart_first()?;
        pair.wait_active(0)?;
    }
    pair.check_packets();
    Ok(())
}
