//! Debian's keepalived as the other node: every way of talking, both ways round. Needs root.

mod vrrp;

use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lab::topology::{vip, vip_v6};
use lab::{Lab, LabError, Pointsman, Process, Result, ServiceText, VrrpText};
use serde_json::Value;
use vrrp::{ms, note};

/// One way of talking.
#[derive(Clone, Copy, Debug)]
struct Way {
    version: u8,
    interval: Duration,
    unicast: bool,
    v6: bool,
    vips: u8,
    /// Ours; keepalived's is always with the pseudo-header.
    checksum: &'static str,
}

const MULTICAST: Way = Way {
    version: 3,
    interval: Duration::from_millis(100),
    unicast: false,
    v6: false,
    vips: 1,
    // "auto" learns from what it hears, and a keepalived that is a Backup says nothing.
    checksum: "pseudo-header",
};
const UNICAST: Way = Way { unicast: true, ..MULTICAST };
const IPV6: Way = Way { v6: true, ..MULTICAST };
const TEN_VIPS: Way = Way { vips: 10, ..MULTICAST };
const VERSION_2: Way = Way { version: 2, interval: Duration::from_secs(1), ..MULTICAST };

/// The kind of checksum is learnt as soon as keepalived says something.
#[test]
fn version_3_with_a_checksum_that_is_learnt() -> Result<()> {
    keepalived_leads(&Way { checksum: "auto", ..MULTICAST })
}

#[test]
fn version_2() -> Result<()> {
    both_ways(&VERSION_2)
}

#[test]
fn version_3_multicast_with_ten_vips() -> Result<()> {
    both_ways(&TEN_VIPS)
}

#[test]
fn version_3_unicast() -> Result<()> {
    both_ways(&UNICAST)
}

#[test]
fn version_3_over_ipv6() -> Result<()> {
    both_ways(&IPV6)
}

/// Of two that are both Active with one priority, the higher address stays (RFC 9568 §6.4.3).
#[test]
fn the_higher_address_wins_a_tie() -> Result<()> {
    at_once([|| tie(0), || tie(1)])
}

/// Without preemption a higher priority waits until the Active is gone.
#[test]
fn without_preemption_the_active_stays() -> Result<()> {
    at_once([keepalived_does_not_preempt, pointsman_does_not_preempt])
}

/// Nothing happens for a minute, or ten in the long run: three ways, both as the Active.
#[test]
fn nothing_happens_for_a_long_time() -> Result<()> {
    let time = Duration::from_secs(if vrrp::runs() > 5 { 600 } else { 60 });
    let cases = [(TEN_VIPS, 0), (UNICAST, 1), (IPV6, 0), (IPV6, 1)];
    std::thread::scope(|scope| {
        let soak = |(way, ours_at)| scope.spawn(move || soak(&way, ours_at, time));
        let running: Vec<_> = cases.into_iter().map(soak).collect();
        running.into_iter().try_for_each(|case| case.join().expect("no panic"))
    })
}

fn both_ways(way: &Way) -> Result<()> {
    let way = *way;
    std::thread::scope(|scope| {
        let theirs = scope.spawn(move || keepalived_leads(&way));
        pointsman_leads(&way)?;
        theirs.join().expect("no panic")
    })
}

fn at_once<F: FnOnce() -> Result<()> + Send>(cases: [F; 2]) -> Result<()> {
    std::thread::scope(|scope| {
        cases
            .map(|case| scope.spawn(case))
            .into_iter()
            .try_for_each(|case| case.join().expect("no panic"))
    })
}

/// keepalived is preferred: we follow it, take over when it dies or leaves, and give way when it is
/// back.
fn keepalived_leads(way: &Way) -> Result<()> {
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
    let begin = Instant::now();
    theirs.signal(TERM)?;
    wait_for(&ours, "active")?;
    way.check_skew("keepalived left", begin.elapsed());
    theirs.wait(ms(5000))?;
    check_accepted(&ours, &theirs);
    Ok(())
}

/// We are preferred: keepalived follows us, takes over when we die or leave, and gives way.
fn pointsman_leads(way: &Way) -> Result<()> {
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
        let begin = Instant::now();
        if round == 1 {
            ours.process().kill()?;
        } else {
            ours.process().signal(TERM)?;
        }
        theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == round + 1))?;
        if round == 2 {
            way.check_skew("pointsman left", begin.elapsed());
        }
    }
    Ok(())
}

/// A partition makes both Active; when it is healed, the second balancer stays: 10.77.2.2.
fn tie(ours_at: usize) -> Result<()> {
    let (way, theirs_at) = (MULTICAST, 1 - ours_at);
    let lab = way.lab()?;
    for at in [0, 1] {
        lab.isolate(lab.balancer(at), true)?;
    }
    let mut theirs = way.start_keepalived(&lab, theirs_at, 100, true)?;
    let ours = lab.start_pointsman(ours_at, &way.config(&lab, ours_at, 100, true))?;
    wait_for(&ours, "active")?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    let before = backups(&theirs);
    for at in [0, 1] {
        lab.isolate(lab.balancer(at), false)?;
    }
    if ours_at == 0 {
        wait_for(&ours, "backup").unwrap_or_else(|error| panic!("{error}\n{}", theirs.log()));
        std::thread::sleep(10 * way.interval);
        assert_eq!(instance(&ours)["reason"], "higher_address");
        assert_eq!(backups(&theirs), before, "{}", theirs.log());
    } else {
        theirs.wait_until("backup", LONG, |keepalived| Ok(backups(keepalived) == before + 1))?;
        std::thread::sleep(10 * way.interval);
        assert_eq!(instance(&ours)["state"], "active");
        assert_eq!(masters(&theirs), 1, "{}", theirs.log());
    }
    check_accepted(&ours, &theirs);
    Ok(())
}

fn keepalived_does_not_preempt() -> Result<()> {
    let (way, lab) = (MULTICAST, MULTICAST.lab()?);
    let mut ours = lab.start_pointsman(0, &way.config(&lab, 0, 100, true))?;
    wait_for(&ours, "active")?;
    let mut theirs = way.start_keepalived(&lab, 1, 150, false)?;
    theirs.wait_until("backup", LONG, |keepalived| Ok(backups(keepalived) == 1))?;
    std::thread::sleep(20 * way.interval);
    let state = (masters(&theirs), &instance(&ours)["state"]);
    assert_eq!(state, (0, &"active".into()), "{}\n{}", ours.log(), theirs.log());
    check_accepted(&ours, &theirs);
    ours.process().kill()?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))
}

fn pointsman_does_not_preempt() -> Result<()> {
    let (way, lab) = (MULTICAST, MULTICAST.lab()?);
    let mut theirs = way.start_keepalived(&lab, 1, 100, true)?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    let ours = lab.start_pointsman(0, &way.config(&lab, 0, 150, false))?;
    wait_for(&ours, "backup")?;
    std::thread::sleep(20 * way.interval);
    assert_eq!((masters(&theirs), backups(&theirs)), (1, 1), "{}", theirs.log());
    assert_eq!(instance(&ours)["state"], "backup");
    check_accepted(&ours, &theirs);
    theirs.kill()?;
    wait_for(&ours, "active")
}

/// The first balancer is preferred and Active; then nothing changes.
fn soak(way: &Way, ours_at: usize, time: Duration) -> Result<()> {
    let lab = way.lab()?;
    let priority = |at: usize| if at == 0 { 150 } else { 100 };
    let theirs_at = 1 - ours_at;
    let mut theirs = way.start_keepalived(&lab, theirs_at, priority(theirs_at), true)?;
    let ours = lab.start_pointsman(ours_at, &way.config(&lab, ours_at, priority(ours_at), true))?;
    if ours_at == 0 {
        wait_for(&ours, "active")?;
    } else {
        theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) >= 1))?;
        wait_for(&ours, "backup")?;
    }
    std::thread::sleep(20 * way.interval);
    // One that we preempt claims the VIPs until it has heard us: not so afterwards.
    let claims = || instance(&ours)["foreign_claims"].clone();
    let before = (changes(&ours), masters(&theirs), backups(&theirs), claims());
    std::thread::sleep(time);
    let after = (changes(&ours), masters(&theirs), backups(&theirs), claims());
    assert_eq!(after, before, "{way:?}, {ours_at}\n{}\n{}", ours.log(), theirs.log());
    check_accepted(&ours, &theirs);
    Ok(())
}

impl Way {
    fn lab(&self) -> Result<Lab> {
        Lab::builder().balancers(2).backends(1).vips(self.vips).build()
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.v6;
        (0..self.vips).map(move |at| if v6 { vip_v6(at).into() } else { vip(at).into() })
    }

    fn config(&self, lab: &Lab, index: usize, priority: u8, preempt: bool) -> String {
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
        let extra = format!(
            "version = {version}\npreempt = {preempt}\nhandover = \"at-once\"\n\
             checksum = \"{checksum}\"\n{unicast}"
        );
        let instance = VrrpText::new("VI_1", priority, self.interval).with(&extra).to_toml();
        format!("[[interface]]\nname = \"eth0\"\n{services}{instance}")
    }

    fn start_keepalived(
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
        let line =
            |vip: IpAddr| format!("{vip}/{} dev eth0\n", if vip.is_ipv4() { 32 } else { 128 });
        let vips: String = self.addresses().map(line).collect();
        let text = format!(
            "global_defs {{\n}}\nvrrp_instance VI_1 {{\nstate BACKUP\n{nopreempt}interface eth0\n\
             virtual_router_id 51\npriority {priority}\nversion {version}\nadvert_int {interval}\n\
             {unicast}virtual_ipaddress {{\n{vips}}}\n}}\n"
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
    fn flush(&self, lab: &Lab, index: usize) -> Result<()> {
        let line = |vip| format!("addr flush to {vip} dev eth0\n");
        lab.balancer(index).netns().ip(&self.addresses().map(line).collect::<String>())
    }

    /// After a goodbye, `Skew_Time` of priority 100 decides, not three adverts.
    fn check_skew(&self, what: &str, took: Duration) {
        // RFC 3768 §6.1 and RFC 9568 §6.1; keepalived listens for a moment, and so do we.
        let skew = self.interval * 156 / 256;
        let limit = skew + self.interval / 16 + ms(150);
        note(&format!("{self:?}: {what}: {took:?}, skew {skew:?}"));
        assert!(took >= skew.mul_f64(0.9) && took <= limit, "{self:?}: {what}: {took:?}");
        assert!(limit < 3 * self.interval);
    }
}

fn masters(keepalived: &Process) -> usize {
    keepalived.log().matches("Entering MASTER STATE").count()
}

fn backups(keepalived: &Process) -> usize {
    keepalived.log().matches("Entering BACKUP STATE").count()
}

fn instance(balancer: &Pointsman) -> Value {
    balancer.vrrp(0)
}

/// How often our state changed.
fn changes(balancer: &Pointsman) -> u64 {
    let instance = instance(balancer);
    let counts = instance["transitions"].as_array().into_iter().flatten();
    counts.filter_map(|count| count["value"].as_u64()).sum()
}

/// No side rejected an advert of the other one.
fn check_accepted(ours: &Pointsman, theirs: &Process) {
    let seen = instance(ours);
    let counts = seen["rejected"].as_array().into_iter().flatten();
    let rejected: u64 = counts.filter_map(|count| count["value"].as_u64()).sum();
    assert_eq!(rejected, 0, "{seen:#}");
    let log = theirs.log().to_lowercase();
    for word in ["checksum", "invalid", "bogus", "ttl"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

fn wait_for(balancer: &Pointsman, state: &str) -> Result<()> {
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

const LONG: Duration = Duration::from_secs(20);
const TERM: rustix::process::Signal = rustix::process::Signal::TERM;
