//! The two that are compared, each as a pair that shares one VIP or as one of two.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lab::{Lab, LoadClient, Node, Pointsman, Process, ServiceText, VrrpText};
use rustix::process::{Pid, Signal, kill_process};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lvs,
    Pointsman,
}

/// What both sides are given alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// From one advert to the next.
    pub(super) adverts: Duration,
    /// From one health check of a backend to the next.
    pub(super) checks: Duration,
}

/// A balancer that runs on a node.
#[derive(Debug)]
pub(super) enum Running {
    Lvs(#[expect(dead_code, reason = "ends when it is dropped")] Process),
    Pointsman(#[expect(dead_code, reason = "ends when it is dropped")] Pointsman),
}

impl Kind {
    pub(super) const BOTH: [Self; 2] = [Self::Lvs, Self::Pointsman];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lvs => "LVS + keepalived",
            Self::Pointsman => "Pointsman",
        }
    }

    /// Starts one on balancer `index`, of which the first is preferred. It may not be ready yet.
    pub(super) fn start(self, lab: &Lab, index: usize, settings: Settings) -> Result<Running> {
        let node = lab.balancer(index);
        let priority = if index == 0 { 150 } else { 100 };
        Ok(match self {
            Self::Lvs => Running::Lvs(keepalived(lab, node, priority, settings)?),
            Self::Pointsman => {
                let text = pointsman(lab, priority, settings);
                Running::Pointsman(Pointsman::spawn(node, &text)?)
            }
        })
    }
}

/// Sends a signal to all processes of a node. keepalived has three; they end as one machine's would.
pub(super) fn signal_all(node: &Node, signal: Signal) -> Result<()> {
    let argv = ["ip", "netns", "pids", node.netns().name()];
    let pids = node.netns().run(&argv, STEP)?.ok()?;
    for pid in pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        // The processes that only listed the others have ended.
        let _ = kill_process(pid, signal);
    }
    Ok(())
}

/// Waits until clients are served without a failure.
pub(super) fn wait_served(lab: &Lab) -> Result<()> {
    let file = lab.files().ensure("50k")?;
    let begin = Instant::now();
    let mut served = 0;
    while served < 3 {
        if begin.elapsed() > READY {
            bail!("clients are not served after {READY:?}");
        }
        let load = LoadClient::new(lab.vip_port(80), &file).timeouts(SECOND, SECOND).requests(3);
        let report = load.run(lab.client(0).netns())?;
        served = if report.failed() == 0 { served + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// LVS by direct routing with persistence, as keepalived is commonly set up for it. One failed check takes a
/// backend down, here and with Pointsman.
fn keepalived(lab: &Lab, node: &Node, priority: u8, settings: Settings) -> Result<Process> {
    let Settings { adverts, checks } = settings;
    let server = |backend: &Node| {
        format!(
            "real_server {} 80 {{\nweight 1\nHTTP_GET {{\nurl {{\npath /health\nstatus_code 200\n}}\n\
             connect_timeout 1\nretry 0\ndelay_before_retry 1\n}}\n}}\n",
            backend.address()
        )
    };
    let servers: String = lab.nodes_of(lab::node::Role::Backend).map(server).collect();
    let (vip, state) = (lab.vip(), if priority == 150 { "MASTER" } else { "BACKUP" });
    let text = format!(
        "global_defs {{\nvrrp_version 3\n}}\nvrrp_instance VI_1 {{\nstate {state}\ninterface eth0\n\
         virtual_router_id 51\npriority {priority}\nadvert_int {}\n\
         virtual_ipaddress {{\n{vip}/32 dev eth0\n}}\n}}\n\
         virtual_server {vip} 80 {{\ndelay_loop {}\nlb_algo wlc\nlb_kind DR\n\
         persistence_timeout 50\nprotocol TCP\n{servers}}}\n",
        adverts.as_secs_f64(),
        checks.as_secs()
    );
    let path = |name: &str| node.dir().join(name).display().to_string();
    let config = path("keepalived.conf");
    fs::write(&config, text).with_context(|| format!("write {config}"))?;
    // One that was killed leaves its files; the next one would take them for a running one's.
    let files = ["keepalived.pid", "vrrp.pid", "checkers.pid"].map(path);
    files.iter().for_each(|file| drop(fs::remove_file(file)));
    let [pid, vrrp, checkers] = &files;
    let argv =
        ["keepalived", "-n", "-l", "-D", "-f", &config, "-p", pid, "-r", vrrp, "-c", checkers];
    Ok(Process::start(node.netns(), "keepalived", &argv, &node.dir().join("keepalived.log"))?)
}

fn pointsman(lab: &Lab, priority: u8, settings: Settings) -> String {
    let Settings { adverts, checks } = settings;
    let health = format!(
        "interval = \"{}ms\"\nfall = 1\nrise = 1\n[service.health.http]\npath = \"/health\"",
        checks.as_millis()
    );
    let service = ServiceText::web(lab).persistence("50s").with("vrrp = \"VI_1\"").health(&health);
    service.to_toml() + &VrrpText::new("VI_1", priority, adverts).to_toml()
}

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(60);
