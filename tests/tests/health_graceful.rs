//! Requirement: a graceful reload of nginx, its keep-alive time-out and a restart of one of its two
//! workers cause no DOWN verdict and no failed request.

use std::time::Duration;

use lab::{Lab, LoadClient, Nginx, NginxStyle};
use rustix::process::{Pid, Signal, kill_process};
use tests::health;
use tests::{assert_all_done, close_books, measured, patient, status};

/// nginx closes kept connections after this long: several times while the test runs.
const KEEPALIVE: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 5;

#[test]
fn reloads_idle_timeouts_and_worker_restarts_cost_nothing() {
    let lab = Lab::builder().backends(2).build().unwrap();
    let style = NginxStyle { workers: 2, keepalive: KEEPALIVE, certificate: None };
    let mut web: Vec<Nginx> = (0..2).map(|at| lab.start_nginx_as(at, &style).unwrap()).collect();
    let lb = health::start(&lab, &health::web(&lab, ""));
    let file = lab.files().ensure("50k").unwrap();
    let load = patient(LoadClient::new(lab.vip_port(80), &file).threads(10));
    let load = load.sources(lab.client(0).sources(200)).rate(1_000.0);
    let length = Duration::from_secs(u64::from(2 * ROUNDS + 2));
    let running = load.duration(length).start(lab.client(0).netns()).unwrap();
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_secs(1));
        web[0].process().signal(Signal::HUP).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let workers = web[1].workers().unwrap();
        assert_eq!(workers.len(), 2, "round {round}: {workers:?}");
        let pid = Pid::from_raw(i32::try_from(workers[0]).unwrap()).unwrap();
        kill_process(pid, Signal::QUIT).unwrap();
    }
    let report = running.finish();
    measured("requests_during_reloads", report.done(), "requests", ">0");
    measured("requests_failed", report.failed(), "requests", "0");
    measured("down_verdicts", health::downs(&lb, 0), "verdicts", "0");
    assert_all_done(&report, &lb);
    assert_eq!(health::downs(&lb, 0), 0, "{}", lb.log());
    // The sentinels did lose their connections: it was not by chance that nothing happened.
    let lost = sentinels_lost(&lb);
    measured("sentinels_lost", lost, "connections", ">=5");
    assert!(lost >= 5.0, "{:#?}", status(&lb).services);
    close_books(&lb);
}

fn sentinels_lost(lb: &lab::Pointsman) -> f64 {
    let metrics = lb.metrics().unwrap();
    metrics.sum("pointsman_health_sentinel_losses_total", &[])
}
