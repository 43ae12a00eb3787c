//! One thread of the Active stands still while all others run. Needs root.

mod vrrp;

use std::time::{Duration, Instant};

use lab::Result;
use tests::freezer::Frozen;
use vrrp::{Pair, Settings, ms, note, runs};

/// A node whose worker does not forward is not Active for long, and is again when it does.
#[test]
fn a_frozen_worker_gives_the_vips_away_within_1200_ms() -> Result<()> {
    let mut pair = Pair::start(&Settings::fast())?;
    let mut took = Vec::new();
    for run in 0..runs() {
        let probes = pair.probe()?;
        pair.wait(ms(300 + 17 * u64::from(run)));
        let frozen = Frozen::thread(pair.first().process().pid(), "worker-0").expect("a freezer");
        let begin = Instant::now();
        pair.wait_active(1)?;
        took.push(begin.elapsed());
        let first = pair.instance(0);
        assert_eq!((&first["vips_active"], &first["reason"]), (&false.into(), &"worker".into()));
        pair.wait(ms(300));
        let outage = probes.finish().longest_outage();
        note(&format!("worker frozen: Active after {:?}, outage {outage:?}", took.last()));
        assert!(outage <= RELEASED, "{outage:?}");
        drop(frozen);
        pair.wait_active(0)?;
        pair.wait_reachable()?;
    }
    assert!(took.iter().all(|took| *took <= RELEASED), "{took:?}");
    pair.check_no_claims();
    pair.check_packets();
    Ok(())
}

/// Adverts, leases and packets do not need the control thread.
#[test]
fn a_frozen_control_thread_costs_no_advert_and_no_probe() -> Result<()> {
    let settings = Settings::fast();
    let mut pair = Pair::start(&settings)?;
    let heard = |pair: &Pair| pair.instance(1)["received"].as_u64().unwrap_or(0);
    let changes = |pair: &Pair| [0, 1].map(|at| pair.instance(at)["transitions"].clone());
    let before = changes(&pair);
    let stalls = pair.instance(0)["stalls"].clone();
    let probes = pair.probe()?;
    let frozen = Frozen::thread(pair.first().process().pid(), "pointsman").expect("a freezer");
    let (begin, first) = (Instant::now(), heard(&pair));
    while begin.elapsed() < FREEZE {
        pair.wait(ms(100));
    }
    let (time, adverts) = (begin.elapsed(), heard(&pair) - first);
    assert!(pair.balancers[0].as_ref().is_some_and(|first| first.http("/readyz").is_err()));
    drop(frozen);
    pair.wait(ms(300));
    let report = probes.finish();
    let due = time.as_millis() / settings.interval.as_millis();
    note(&format!("control frozen: {adverts} adverts in {time:?}, {} probes lost", report.lost()));
    assert!(u128::from(adverts) + 1 >= due, "{adverts} adverts in {time:?}");
    assert_eq!(report.lost(), 0, "{report:?}");
    assert_eq!(changes(&pair), before);
    assert_eq!(pair.states()?, ["active", "backup"]);
    assert_eq!(pair.instance(0)["stalls"], stalls);
    pair.check_packets();
    Ok(())
}

const RELEASED: Duration = Duration::from_millis(1200);
const FREEZE: Duration = Duration::from_secs(10);
