//! Requirement: 1,000 backends checked every second by HTTP cost at most 25 % of one core; probes
//! start at most 50 ms late and adverts at most 5 ms late at p99.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use api::status::BackendState;
use lab::{Lab, Pointsman};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use tests::lifecycle::{processor_time, run};
use tests::{measured, status};

/// Ten services of a hundred backends each: addresses of one host, all with a real nginx. What they ask
/// differs: else it would be asked once for all of them.
const SERVICES: u16 = 10;
const BACKENDS: u16 = 100;
const LENGTH: Duration = Duration::from_secs(20);

#[test]
fn a_thousand_backends_are_checked_every_second_at_small_cost() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let addresses: String =
        (0..BACKENDS).map(|at| format!("addr add {}/16 dev eth0\n", address(at))).collect();
    lab.backend(0).netns().ip(&addresses).unwrap();
    let _web = lab.start_nginx(0).unwrap();
    let lb = lab.start_pointsman(0, &config(&lab)).unwrap();
    take_the_network_elsewhere(&lab, lb.pid());
    let begin = Instant::now();
    while ups(&lb) < usize::from(SERVICES * BACKENDS) {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} up\n{}", ups(&lb), lb.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (late, adverts) = (Late::of(&lb, CHECKS), Late::of(&lb, ADVERTS));
    let (begin, before) = (Instant::now(), processor_time(lb.pid()).unwrap());
    std::thread::sleep(LENGTH);
    let used = processor_time(lb.pid()).unwrap() - before;
    let share = 100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64();
    let checks = Late::of(&lb, CHECKS).since(&late);
    let rate = checks.count() / begin.elapsed().as_secs_f64();
    let late = checks.percentile(0.99);
    let adverts = Late::of(&lb, ADVERTS).since(&adverts).percentile(0.99);
    measured("checks_per_second", rate.round(), "1/s", "~1000");
    measured("processor_share", format!("{share:.1}"), "% of a core", "<=25");
    measured("check_late_p99", late, "s", "<=0.05");
    measured("advert_late_p99", adverts, "s", "<=0.005");
    assert!(rate >= 900.0, "{rate} checks a second");
    assert!(share <= 25.0, "{share:.1} %");
    assert!(late <= 0.05, "{late}");
    assert!(adverts <= 0.005, "{adverts}");
    assert_eq!(ups(&lb), usize::from(SERVICES * BACKENDS));
}

/// A veth is received in the time of who sends: the balancer's processor time would be the switch's
/// and the server's too. Receive packet steering does that on another processor, as in another
/// machine.
fn take_the_network_elsewhere(lab: &Lab, pid: u32) {
    let steer = "mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/lb1/queues/rx-0/rps_cpus";
    run(lab.switch(), &["unshare", "-m", "sh", "-c", steer]).unwrap();
    let mut set = CpuSet::new();
    set.set(1);
    let main = Pid::from_raw(i32::try_from(pid).unwrap());
    sched_setaffinity(main, &set).unwrap();
}

fn address(at: u16) -> String {
    format!("10.77.64.{}", at + 1)
}

fn config(lab: &Lab) -> String {
    let mut text = String::from(
        "[[interface]]\nname = \"eth0\"\n\n[[vrrp]]\nname = \"VI_1\"\ninterface = \"eth0\"\n\
         vrid = 51\npriority = 150\nadvert_interval = \"100ms\"\n",
    );
    for service in 0..SERVICES {
        // Writing to a String cannot fail; likewise below.
        let _ = write!(
            text,
            "\n[[service]]\nname = \"web{service}\"\nvip = \"{}\"\nport = {}\nvrrp = \"VI_1\"\n\
             \n[[service.health]]\nhttp = {{ path = \"/health?{service}\" }}\ninterval = \"1s\"\nport = 80\n",
            lab.vip(),
            8000 + service
        );
        for at in 0..BACKENDS {
            let address = address(at);
            let _ =
                write!(text, "\n[[service.backend]]\nname = \"rs{at}\"\naddress = \"{address}\"\n");
        }
    }
    text
}

fn ups(lb: &Pointsman) -> usize {
    let status = status(lb);
    status.services.iter().flat_map(|s| &s.backends).filter(|b| b.state == BackendState::Up).count()
}

/// A histogram of seconds: how many were not above each bound.
struct Late(BTreeMap<String, f64>);

impl Late {
    fn of(lb: &Pointsman, name: &str) -> Self {
        Self(lb.metrics().unwrap().by(&format!("{name}_bucket"), "le"))
    }

    fn since(&self, earlier: &Self) -> Self {
        let less = |(le, count): (&String, &f64)| (le.clone(), count - earlier.0[le]);
        Self(self.0.iter().map(less).collect())
    }

    fn count(&self) -> f64 {
        self.0.values().copied().fold(0.0, f64::max)
    }

    /// The smallest bound that this part of the values does not exceed.
    fn percentile(&self, part: f64) -> f64 {
        let mut bounds: Vec<(f64, f64)> = self
            .0
            .iter()
            .map(|(le, count)| (le.parse().unwrap_or(f64::INFINITY), *count))
            .collect();
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all = bounds.last().map_or(0.0, |(_, count)| *count);
        assert!(all > 0.0, "nothing was counted: {bounds:?}");
        let found = bounds.iter().find(|(_, count)| *count >= part * all);
        found.map_or(f64::INFINITY, |(le, _)| *le)
    }
}

const CHECKS: &str = "pointsman_health_check_late_seconds";
const ADVERTS: &str = "pointsman_vrrp_advert_late_seconds";
