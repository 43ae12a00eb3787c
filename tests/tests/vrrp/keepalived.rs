//! Debian's keepalived as the other node: how it and we are configured, and who follows whom.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lab::topology::{vip, vip_v6};
use lab::{Lab, LabError, Pointsman, Process, Result, ServiceText, VrrpText};
use serde_json::Value;

use crate::vrrp::{ms, note};

/// One way of talking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) version: u8,
    pub(crate) interval: Duration,
    pub(crate) unicast: bool,
    pub(crate) v6: bool,
    pub(crate) vips: u8,
    pub(crate) first_vip: u8,
    /// Ours; keepalived's is always with the pseudo-header.
    pub(crate) checksum: &'static str,
    /// Password of version 2; empty: none.
    pub(crate) pass: &'static str,
}

pub(crate) const MULTICAST: Way = Way {
    version: 3,
    interval: Duration::from_millis(100),
    unicast: false,
    v6: false,
    vips: 1,
    first_vip: 0,
    // "auto" learns from what it hears, and a keepalived that is a Backup says nothing.
    checksum: "pseudo-header",
    pass: "",
};
pub(crate) const UNICAST: Way = Way { unicast: true, ..MULTICAST };
pub(crate) const IPV6: Way = Way { v6: true, ..MULTICAST };
pub(crate) const TEN_VIPS: Way = Way { vips: 10, ..MULTICAST };
pub(crate) const PASSWORD: Way = Way { pass: "s3cret78", ..VERSION_2 };
pub(crate) const VERSION_2: Way = Way { version: 2, interval: Duration::from_secs(1), ..MULTICAST };

pub(crate) fn both_ways(way: &Way) -> Result<()> {
    let way = *way;
    std::thread::scope(|scope| {
        let theirs = scope.spawn(move || keepalived_leads(&way));
        pointsman_leads(&way)?;
        theirs.join().expect("no panic")
    })
}

/// keepalived is preferred: we follow it, take over when it dies or leaves, and give way when it is
/// back.
pub(crate) fn keepalived_leads(way: &Way) -> Result<()> {
    let lab = way.lab()?;
    let ours = lab.start_pointsman(1, &way.config(&lab, 1, 100, true))?;
    wait_for(&ours, "active")?;
    for _ in 0..2 {
        let mut theirs = way.start_keepalived(&lab, 0, 150, true)?;
        wait_for(&ours, "backup")?;
        let seen = instance(&ours);
        assert_eq!(seen["peers"][0]["priority"], 150, "{seen:#}");
        theirs.kill()?;
        wait_for(&ours, "active")?;
        way.flush(&lab, 0)?;
    }
    let mut theirs = way.start_keepalived(&lab, 0, 150, true)?;
    wait_for(&ours, "backup")?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    let signal = Instant::now();
    theirs.signal(TERM)?;
    // It removes its VIPs first.
    let goodbye = said_goodbye(&theirs);
    wait_for(&ours, "active")?;
    way.check_skew("keepalived left", goodbye.elapsed()..=signal.elapsed());
    theirs.wait(ms(5000))?;
    check_accepted(&ours, &theirs);
    Ok(())
}

/// We are preferred: keepalived follows us, takes over when we die or leave, and gives way.
pub(crate) fn pointsman_leads(way: &Way) -> Result<()> {
    let lab = way.lab()?;
    let config = way.config(&lab, 0, 150, true);
    let mut theirs = way.start_keepalived(&lab, 1, 100, true)?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    for round in 1..=2 {
        let mut ours = lab.start_pointsman(0, &config)?;
        wait_for(&ours, "active")?;
        theirs.wait_until("backup", LONG, |keepalived| Ok(backups(keepalived) == round + 1))?;
        std::thread::sleep(5 * way.interval);
        assert_eq!(masters(&theirs), round, "it follows us: {}", theirs.log());
        check_accepted(&ours, &theirs);
        let signal = Instant::now();
        if round == 1 {
            ours.process().kill()?;
        } else {
            ours.process().signal(TERM)?;
        }
        theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == round + 1))?;
        if round == 2 {
            way.check_skew("pointsman left", signal.elapsed()..=signal.elapsed());
        }
    }
    Ok(())
}

impl Way {
    pub(crate) fn lab(&self) -> Result<Lab> {
        Lab::builder().balancers(2).backends(1).vips(self.vips).build()
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.v6;
        (self.first_vip..self.first_vip + self.vips)
            .map(move |at| if v6 { vip_v6(at).into() } else { vip(at).into() })
    }

    pub(crate) fn config(&self, lab: &Lab, index: usize, priority: u8, preempt: bool) -> String {
        let web = |vip: IpAddr| {
            let service =
                if vip.is_ipv4() { ServiceText::web(lab) } else { ServiceText::web_v6(lab) };
            service.name(&format!("web-{vip}")).vip(vip).with("vrrp = \"VI_1\"").service_toml()
        };
        let services: String = self.addresses().map(web).collect();
        let Self { version, checksum, .. } = self;
        let unicast = if self.unicast {
            let peer = lab.balancer(1 - index).address();
            format!("mode = \"unicast\"\npeers = [\"{peer}\"]\n")
        } else {
            String::new()
        };
        let auth = match self.pass {
            "" => String::new(),
            pass => format!("auth_pass = \"{pass}\"\n"),
        };
        let extra = format!(
            "version = {version}\npreempt = {preempt}\nhandover = \"at-once\"\n\
             checksum = \"{checksum}\"\n{auth}{unicast}"
        );
        let instance = VrrpText::new("VI_1", priority, self.interval).with(&extra).to_toml();
        format!("[[interface]]\nname = \"eth0\"\n{services}{instance}")
    }

    pub(crate) fn start_keepalived(
        &self,
        lab: &Lab,
        index: usize,
        priority: u8,
        preempt: bool,
    ) -> Result<Process> {
        let node = lab.balancer(index);
        let unicast = if self.unicast {
            let (own, peer) = (node.address(), lab.balancer(1 - index).address());
            format!("unicast_src_ip {own}\nunicast_peer {{\n{peer}\n}}\n")
        } else {
            String::new()
        };
        let (version, interval) = (self.version, self.interval.as_secs_f64());
        let nopreempt = if preempt { "" } else { "nopreempt\n" };
        let auth = match self.pass {
            "" => String::new(),
            pass => {
                format!("authentication {{\nauth_type PASS\nauth_pass {pass}\n}}\n")
            }
        };
        let line =
            |vip: IpAddr| format!("{vip}/{} dev eth0\n", if vip.is_ipv4() { 32 } else { 128 });
        let vips: String = self.addresses().map(line).collect();
        let text = format!(
            "global_defs {{\n}}\nvrrp_instance VI_1 {{\nstate BACKUP\n{nopreempt}interface eth0\n\
             virtual_router_id 51\npriority {priority}\nversion {version}\nadvert_int {interval}\n\
             {auth}{unicast}virtual_ipaddress {{\n{vips}}}\n}}\n"
        );
        // Names of its own for each start: one that was just killed may still hold its pid files.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Relaxed);
        let path = |name: &str| node.dir().join(format!("{number}-{name}")).display().to_string();
        let _ = fs::write(path("keepalived.conf"), text);
        let files = ["keepalived.conf", "keepalived.pid", "vrrp.pid", "checkers.pid"].map(path);
        let [config, pid, vrrp, checkers] = &files;
        let files = ["-f", config, "-p", pid, "-r", vrrp, "-c", checkers];
        let argv = [&["keepalived", "-n", "-l", "-D", "-P"], &files[..]].concat();
        let log = node.dir().join(format!("{number}-keepalived.log"));
        Process::start(node.netns(), "keepalived", &argv, &log)
    }

    /// Removes what a killed keepalived leaves behind.
    pub(crate) fn flush(&self, lab: &Lab, index: usize) -> Result<()> {
        let line = |vip| format!("addr flush to {vip} dev eth0\n");
        lab.balancer(index).netns().ip(&self.addresses().map(line).collect::<String>())
    }

    /// After a goodbye, `Skew_Time` of priority 100 decides, not three adverts. `took`: since the
    /// goodbye was seen, a little late, and since it was asked for.
    pub(crate) fn check_skew(&self, what: &str, took: RangeInclusive<Duration>) {
        // RFC 3768 §6.1 and RFC 9568 §6.1; keepalived listens for a moment, and so do we.
        let skew = self.interval * 156 / 256;
        let limit = skew + self.interval / 16 + ms(150);
        note(&format!("{self:?}: {what}: {took:?}, skew {skew:?}"));
        assert!(*took.end() >= skew.mul_f64(0.9), "{self:?}: {what}: {took:?}");
        assert!(*took.start() <= limit, "{self:?}: {what}: {took:?}");
        assert!(limit < 3 * self.interval);
    }
}

/// When it was seen that it sent an advert of priority 0.
fn said_goodbye(keepalived: &Process) -> Instant {
    let limit = Instant::now() + LONG;
    while !keepalived.log().contains("sent 0 priority") {
        assert!(Instant::now() < limit, "no goodbye: {}", keepalived.log());
        std::thread::sleep(ms(1));
    }
    Instant::now()
}

pub(crate) fn masters(keepalived: &Process) -> usize {
    keepalived.log().matches("Entering MASTER STATE").count()
}

pub(crate) fn backups(keepalived: &Process) -> usize {
    keepalived.log().matches("Entering BACKUP STATE").count()
}

pub(crate) fn instance(balancer: &Pointsman) -> Value {
    balancer.vrrp(0)
}

/// How often our state changed.
pub(crate) fn changes(balancer: &Pointsman) -> u64 {
    let instance = instance(balancer);
    let counts = instance["transitions"].as_array().into_iter().flatten();
    counts.filter_map(|count| count["value"].as_u64()).sum()
}

/// No side rejected an advert of the other one.
pub(crate) fn check_accepted(ours: &Pointsman, theirs: &Process) {
    let seen = instance(ours);
    let counts = seen["rejected"].as_array().into_iter().flatten();
    let rejected: u64 = counts.filter_map(|count| count["value"].as_u64()).sum();
    assert_eq!(rejected, 0, "{seen:#}");
    let log = theirs.log().to_lowercase();
    for word in ["checksum", "invalid", "bogus", "ttl"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

pub(crate) fn wait_for(balancer: &Pointsman, state: &str) -> Result<()> {
    let begin = Instant::now();
    while instance(balancer)["state"] != state {
        if begin.elapsed() > LONG {
            let what = format!("{state}: {}", balancer.log());
            return Err(LabError::Timeout { what, limit: LONG });
        }
        std::thread::sleep(ms(5));
    }
    Ok(())
}

pub(crate) const LONG: Duration = Duration::from_secs(20);
pub(crate) const TERM: rustix::process::Signal = rustix::process::Signal::TERM;
