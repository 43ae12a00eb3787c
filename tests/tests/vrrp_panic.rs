//! A panic of any thread that serves: the VIPs are handed over at once, not when leases run out, and
//! the process ends with an error. A panic of what only observes ends nothing. Needs root, and debug
//! builds: in others nothing can be made to panic.
#![cfg(debug_assertions)]

mod vrrp;

use std::time::{Duration, Instant};

use lab::Result;
use tests::lifecycle::{order_panic, wait_for};
use vrrp::{Pair, Settings, ms, note};

#[test]
fn a_panic_of_any_thread_hands_the_vips_over_and_ends_the_process() -> Result<()> {
    let mut pair = Pair::start(&Settings::fast())?;
    for thread in ["worker", "vrrp", "control", "task"] {
        let probes = pair.probe()?;
        pair.wait(ms(300));
        let before = (pair.first().log().len(), pair.second().log().len());
        let begin = Instant::now();
        order_panic(pair.first(), thread).expect("ordered");
        let exit = pair.first().process().wait(Duration::from_secs(5))?;
        let ended = begin.elapsed();
        assert_eq!(exit.code(), Some(1), "{thread}: {exit}");
        let log = pair.first().log().split_off(before.0);
        assert!(log.contains("ordered by a test"), "{thread}: the panic is not logged\n{log}");
        assert!(log.contains("where it panicked:"), "{thread}: no trace\n{log}");
        assert!(log.lines().last().is_some_and(|line| line.starts_with("error: ")), "{log}");
        pair.wait_active(1)?;
        pair.wait(ms(300));
        let outage = probes.finish().longest_outage();
        let peer = pair.second().log().split_off(before.1);
        // Its goodbye was heard, so the peer did not wait for silence.
        assert!(peer.contains("goodbye") || peer.contains("priority 0"), "{thread}: {peer}");
        note(&format!("{thread}: ended after {ended:?}, outage {outage:?}"));
        // The control loop notices a panic within its tick of 100 ms; silence would take 361 ms.
        let limit = pair.settings.skew_of_backup() + ms(200);
        assert!(outage <= limit, "{thread}: {outage:?}, above {limit:?}");
        pair.restart_first()?;
        pair.wait_active(0)?;
        pair.wait_reachable()?;
    }
    pair.check_no_claims();
    pair.check_packets();
    Ok(())
}

#[test]
fn a_panic_of_what_only_observes_ends_nothing_else() -> Result<()> {
    let mut pair = Pair::start(&Settings::fast())?;
    let probes = pair.probe()?;
    order_panic(pair.first(), "page").expect("ordered");
    assert_eq!(pair.first().http("/metrics")?.0, 500, "the page that panicked");
    order_panic(pair.first(), "connection").expect("ordered");
    let page = pair.first().http("/metrics")?.1;
    assert!(page.contains("pointsman_panics_total 2"), "not counted:\n{page}");
    wait_for("both are logged", Duration::from_secs(5), || {
        Ok(pair.first().log().matches("ordered by a test").count() == 2)
    })
    .expect("logged");
    let report = probes.finish();
    assert_eq!(report.lost(), 0, "{report:?}");
    assert_eq!(pair.instance(0)["vips_active"], true);
    let (exit, _) = pair.first().process().stop(Duration::from_secs(5))?;
    assert_eq!(exit.code(), Some(0), "{exit}");
    Ok(())
}
