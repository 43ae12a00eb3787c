//! What the balancer costs while nothing happens, and that its workers are seen alive whatever
//! happens.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, LoadClient, Pointsman, ServiceText};
use tests::close_books;
use tests::lifecycle::{SMALL, config, fetch, processor_time, runs, status};

#[test]
fn an_idle_balancer_uses_less_than_two_per_cent_of_a_core() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(4).build()?;
    let mut lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    sleep(Duration::from_millis(500));
    let pid = lb.process().pid();
    let before = processor_time(pid)?;
    let span = Duration::from_secs(5);
    // Heartbeats are looked at in a time of their own: asking for them is work.
    sleep(span);
    let used = processor_time(pid)?.saturating_sub(before);
    println!("{used:?} of {span:?} with 4 workers");
    ensure!(used < span / 50, "{used:?} in {span:?}");
    heartbeats(&lb, "idle")?;
    close_books(&lb);
    Ok(())
}

#[test]
fn workers_are_seen_alive_under_load() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(4).build()?;
    let _web = lab.start_web()?;
    let file = lab.files().ensure("10k")?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    let load = LoadClient::new(lab.vip_port(80), &file)
        .threads(4)
        .sources(lab.client(0).sources(50))
        .duration(Duration::from_secs(30))
        .start(lab.client(0).netns())?;
    sleep(Duration::from_millis(200));
    let seen = heartbeats(&lb, "busy");
    load.stop();
    let report = load.finish();
    println!("{:.0} requests/s meanwhile", report.rate());
    ensure!(report.failed() == 0, "{report}");
    seen?;
    close_books(&lb);
    Ok(())
}

#[test]
fn busy_polling_starts_and_forwards() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _web = lab.start_web()?;
    let service = ServiceText::web(&lab).to_toml();
    let mut lb = lab.start_pointsman(0, &format!("{SMALL}poll = \"busy\"\n{service}"))?;
    for _ in 0..runs(20) {
        fetch(&lab)?;
    }
    heartbeats(&lb, "busy polling")?;
    close_books(&lb);
    let (exit, took) = lb.process().stop(Duration::from_secs(5))?;
    ensure!(exit.success() && took < Duration::from_secs(1), "{exit} after {took:?}");
    Ok(())
}

/// Every worker was seen less than 0.2 s ago in nine looks of ten, and never a second ago: the
/// machine that runs this may itself stop for a moment.
fn heartbeats(lb: &Pointsman, when: &str) -> Result<()> {
    let mut ages = Vec::new();
    for _ in 0..40 {
        let status = status(lb)?;
        let workers = status["workers"].as_array().context("no workers")?;
        ensure!(!workers.is_empty(), "no workers");
        for worker in workers {
            ages.push(worker["heartbeat_age_seconds"].as_f64().context("no heartbeat age")?);
        }
        sleep(Duration::from_millis(25));
    }
    ages.sort_by(f64::total_cmp);
    let (most, oldest) = (ages[ages.len() * 9 / 10], ages[ages.len() - 1]);
    println!("heartbeats while {when}: 90 % below {most:.3} s, oldest {oldest:.3} s");
    ensure!(most < 0.2 && oldest < 1.0, "{when}: 90 % below {most} s, oldest {oldest} s");
    Ok(())
}
