//! Fail-over between two balancers, measured with 1,000 numbered probes a second. Needs root.

mod vrrp;

use std::time::Duration;

use lab::{Lab, Result};
use vrrp::{Pair, Settings, ms, runs};

/// `kill -9`: the other node waits 3 adverts and its skew, then listens for 1/16 advert.
#[test]
fn a_killed_active_is_replaced_within_400_ms() -> Result<()> {
    let pair = Pair::start(&Settings::fast())?;
    vrrp::kill_and_measure(pair, runs(), ms(400))
}

#[test]
fn with_10_ms_adverts_within_60_ms() -> Result<()> {
    let pair = Pair::start(&Settings { interval: ms(10), ..Settings::fast() })?;
    vrrp::kill_and_measure(pair, runs(), ms(60))
}

/// Priority 0 says that it leaves: the other one waits its skew only.
#[test]
fn a_stopped_active_is_replaced_within_its_skew() -> Result<()> {
    let settings = Settings::fast();
    let limit = settings.skew_of_backup() + ms(40);
    let mut pair = Pair::start(&settings)?;
    for run in 0..runs() {
        let probes = pair.probe()?;
        pair.wait(ms(300 + 17 * u64::from(run)));
        let (status, took) = pair.first().process().stop(Duration::from_secs(5))?;
        assert!(status.success(), "{status} after {took:?}");
        pair.wait_active(1)?;
        pair.wait(ms(300));
        let report = probes.finish();
        let why = pair.late(&format!("stopped, run {run}: {report:?}"));
        assert!(report.longest_outage() <= limit, "{why}");
        // It comes back and preempts; nothing is lost.
        let probes = pair.probe()?;
        pair.restart_first()?;
        pair.wait_active(0)?;
        pair.wait(ms(300));
        let report = probes.finish();
        let why = pair.late(&format!("preempting, run {run}: {report:?}"));
        assert!(report.longest_outage() <= ms(40), "{why}");
    }
    pair.check_no_claims();
    pair.check_packets();
    Ok(())
}

#[test]
fn resigning_takes_as_long_and_the_vips_stay_away() -> Result<()> {
    let settings = Settings::fast();
    let limit = settings.skew_of_backup() + ms(40);
    let pair = Pair::start(&settings)?;
    for run in 0..runs() {
        let probes = pair.probe()?;
        pair.wait(ms(300 + 17 * u64::from(run)));
        pair.resign(0, "1s")?;
        pair.wait_active(1)?;
        pair.wait(ms(300));
        assert_eq!(pair.states()?, ["backup", "active"], "it does not preempt");
        let report = probes.finish();
        assert!(report.longest_outage() <= limit, "run {run}: {report:?}");
        pair.wait_active(0)?;
    }
    pair.check_no_claims();
    pair.check_packets();
    Ok(())
}

/// A node that comes back does not take the VIPs before it knows its backends, which the other one
/// does.
#[test]
fn a_returning_node_waits_for_its_backends() -> Result<()> {
    let mut pair = Pair::start(&Settings::fast())?;
    for _ in 0..runs().min(5) {
        pair.kill_first()?;
        pair.wait_active(1)?;
        // As after a reboot; and the backends do not hear the first question.
        pair.lab.balancer(0).netns().ip("neigh flush dev eth0\n")?;
        cut_off(&pair.lab, true)?;
        let probes = pair.probe()?;
        pair.spawn_first()?;
        pair.wait(ms(900));
        assert_eq!(pair.states()?, ["initialize", "active"]);
        cut_off(&pair.lab, false)?;
        pair.wait_active(0)?;
        pair.wait(ms(300));
        let report = probes.finish();
        assert!(report.longest_outage() <= ms(40), "{report:?}");
    }
    pair.check_packets();
    Ok(())
}

/// Whether the first balancer and the backends are cut off from each other, and from nobody else.
fn cut_off(lab: &Lab, cut: bool) -> Result<()> {
    let nodes = [lab.balancer(0), lab.backend(0), lab.backend(1)];
    nodes.into_iter().try_for_each(|node| lab.isolate(node, cut))
}
