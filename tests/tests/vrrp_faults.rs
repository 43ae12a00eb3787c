//! A lost link, a healed partition, a pair of families. Needs root.

mod vrrp;

use std::time::Instant;

use lab::Result;
use vrrp::{Pair, Settings, ms, note, runs};

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
    let (mut took, mut reachable) = (Vec::new(), Vec::new());
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
        reachable.push(healed.elapsed());
    }
    note(&format!("partition healed: {took:?}, reachable: {reachable:?}"));
    assert!(took.iter().all(|took| *took <= limit), "{took:?}");
    // Bursts of announcements are a second apart; the probes that show it take a while, too.
    assert!(reachable.iter().all(|took| *took <= ms(2000)), "{reachable:?}");
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
