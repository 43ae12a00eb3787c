//! Debian's keepalived as the other node. Needs root.

mod vrrp;

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lab::{Lab, LabError, Pointsman, Process, Result};
use serde_json::Value;
use vrrp::{Settings, ms};

/// One way of talking.
struct Way {
    version: u8,
    interval: Duration,
    unicast: bool,
}

#[test]
fn version_2() -> Result<()> {
    both_ways(&Way { version: 2, interval: ms(1000), unicast: false })
}

#[test]
fn version_3_multicast() -> Result<()> {
    both_ways(&Way { version: 3, interval: ms(100), unicast: false })
}

#[test]
fn version_3_unicast() -> Result<()> {
    both_ways(&Way { version: 3, interval: ms(100), unicast: true })
}

fn both_ways(way: &Way) -> Result<()> {
    keepalived_leads(way)?;
    pointsman_leads(way)
}

/// keepalived is preferred: we follow it, take over when it dies, and give way when it is back.
fn keepalived_leads(way: &Way) -> Result<()> {
    let lab = Lab::builder().balancers(2).backends(1).build()?;
    let ours = lab.start_pointsman(1, &our_config(way, &lab, 1, [0, 100]))?;
    wait_for(&ours, "active")?;
    for _ in 0..2 {
        let mut theirs = start_keepalived(way, &lab, 0, 150)?;
        wait_for(&ours, "backup")?;
        let seen = instance(&ours);
        assert_eq!(seen["peers"][0]["priority"], 150, "{seen:#}");
        assert_eq!(rejected(&seen), 0, "{seen:#}");
        theirs.kill()?;
        wait_for(&ours, "active")?;
        // What a killed keepalived leaves behind.
        lab.balancer(0).netns().ip(&format!("addr flush to {} dev eth0\n", lab.vip()))?;
    }
    let mut theirs = start_keepalived(way, &lab, 0, 150)?;
    wait_for(&ours, "backup")?;
    let (_, took) = theirs.stop(Duration::from_secs(5))?;
    wait_for(&ours, "active")?;
    assert!(took < Duration::from_secs(5));
    assert_eq!(rejected(&instance(&ours)), 0, "{}", instance(&ours));
    Ok(())
}

/// We are preferred: keepalived follows us, takes over when we stop, and gives way.
fn pointsman_leads(way: &Way) -> Result<()> {
    let lab = Lab::builder().balancers(2).backends(1).build()?;
    let config = our_config(way, &lab, 0, [150, 0]);
    let mut theirs = start_keepalived(way, &lab, 1, 100)?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    for round in 1..=2 {
        let mut ours = lab.start_pointsman(0, &config)?;
        wait_for(&ours, "active")?;
        theirs.wait_until("backup", LONG, |keepalived| {
            Ok(keepalived.log().matches("Entering BACKUP STATE").count() == round + 1)
        })?;
        std::thread::sleep(10 * way.interval);
        assert_eq!(masters(&theirs), round, "it follows us: {}", theirs.log());
        assert_eq!(rejected(&instance(&ours)), 0, "{}", instance(&ours));
        if round == 1 {
            ours.process().kill()?;
        } else {
            ours.process().stop(Duration::from_secs(5))?;
        }
        theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == round + 1))?;
    }
    let log = theirs.log().to_lowercase();
    assert!(!log.contains("checksum") && !log.contains("invalid"), "{log}");
    Ok(())
}

const LONG: Duration = Duration::from_secs(20);

fn masters(keepalived: &Process) -> usize {
    keepalived.log().matches("Entering MASTER STATE").count()
}

fn instance(balancer: &Pointsman) -> Value {
    let text = balancer.http("/status.json").map(|(_, text)| text).unwrap_or_default();
    let status: Value = serde_json::from_str(&text).unwrap_or_default();
    status["vrrp"][0].clone()
}

fn rejected(instance: &Value) -> u64 {
    let counts = instance["rejected"].as_array().into_iter().flatten();
    counts.filter_map(|count| count["value"].as_u64()).sum()
}

fn wait_for(balancer: &Pointsman, state: &str) -> Result<()> {
    let begin = Instant::now();
    while instance(balancer)["state"] != state {
        if begin.elapsed() > LONG {
            let what = format!("{state}: {}", balancer.log());
            return Err(LabError::Timeout { what, limit: LONG });
        }
        std::thread::sleep(ms(10));
    }
    Ok(())
}

fn our_config(way: &Way, lab: &Lab, index: usize, priorities: [u8; 2]) -> String {
    let mut extra = format!("version = {}\nhandover = \"at-once\"\n", way.version);
    if way.unicast {
        let peer = lab.balancer(1 - index).address();
        extra += &format!("mode = \"unicast\"\npeers = [\"{peer}\"]\n");
    }
    let settings = Settings { interval: way.interval, priorities, extra, ..Settings::fast() };
    settings.config(lab, index)
}

fn start_keepalived(way: &Way, lab: &Lab, index: usize, priority: u8) -> Result<Process> {
    let node = lab.balancer(index);
    let (version, interval, vip) = (way.version, way.interval.as_secs_f64(), lab.vip());
    let unicast = if way.unicast {
        let (own, peer) = (node.address(), lab.balancer(1 - index).address());
        format!("unicast_src_ip {own}\nunicast_peer {{\n{peer}\n}}\n")
    } else {
        String::new()
    };
    let text = format!(
        "global_defs {{\n}}\nvrrp_instance VI_1 {{\nstate BACKUP\ninterface eth0\n\
         virtual_router_id 51\npriority {priority}\nversion {version}\nadvert_int {interval}\n\
         {unicast}virtual_ipaddress {{\n{vip}/32 dev eth0\n}}\n}}\n"
    );
    // Names of its own for each start: one that was just killed may still hold its pid files.
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let number = STARTED.fetch_add(1, Relaxed);
    let path = |name: &str| node.dir().join(format!("{number}-{name}")).display().to_string();
    let _ = fs::write(path("keepalived.conf"), text);
    let (config, pid) = (path("keepalived.conf"), path("keepalived.pid"));
    let (vrrp, checkers) = (path("vrrp.pid"), path("checkers.pid"));
    let argv = [
        "keepalived",
        "-n",
        "-l",
        "-D",
        "-P",
        "-f",
        &config,
        "-p",
        &pid,
        "-r",
        &vrrp,
        "-c",
        &checkers,
    ];
    let log = node.dir().join(format!("{number}-keepalived.log"));
    Process::start(node.netns(), "keepalived", &argv, &log)
}
