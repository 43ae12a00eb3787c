//! More notifications than the netlink socket holds: the loss of the link among them is noticed all
//! the same, and backends' neighbours are resolved and followed as before. Needs root.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Pointsman, Process, ServiceText, VrrpText};
use serde_json::Value;
use tests::close_books;
use tests::lifecycle::{SMALL, fetch, run, status, wait_for};

/// A lost link is to be noticed this long after it is lost, or after the daemon goes on, at the latest:
/// less than until everything is read without a reason (5 s).
const NOTICED: Duration = Duration::from_secs(3);
/// Milliseconds between going on and the loss: reading what had found room takes some tens.
const AFTER: [Option<u64>; 8] =
    [None, Some(0), Some(5), Some(10), Some(20), Some(30), Some(50), Some(100)];

/// The link goes before the daemon reads on, or while it reads what had found room in the socket: in
/// both cases the kernel drops the notification.
#[test]
fn a_lost_link_is_noticed_among_lost_notifications() -> Result<()> {
    let lab = Lab::builder().backends(3).build()?;
    let _web = lab.start_web()?;
    let lb = start(&lab)?;
    let mut unnoticed = Vec::new();
    for after in AFTER {
        let overruns = status(&lb)?["netlink_overruns"].as_u64().unwrap_or_default();
        let churn = Churn::start(&lab)?;
        overrun(&lab, &lb)?;
        if after.is_none() {
            lab.unplug(lab.balancer(0))?;
        }
        signal(&lb, rustix::process::Signal::CONT)?;
        if let Some(after) = after {
            sleep(Duration::from_millis(after));
            lab.unplug(lab.balancer(0))?;
        }
        let noticed = wait_for("loss of the link", Duration::from_secs(20), || lost(&lb));
        println!("link lost {after:?} ms after the daemon went on: noticed after {noticed:?}");
        if !noticed.is_ok_and(|took| took <= NOTICED) {
            unnoticed.push(after);
        }
        drop(churn);
        lab.plug(lab.balancer(0))?;
        let counted = status(&lb)?["netlink_overruns"].as_u64().unwrap_or_default() - overruns;
        ensure!(counted > 0, "no overrun was counted");
        wait_for("serving again", Duration::from_secs(10), || serves(&lb))?;
        fetch(&lab)?;
    }
    ensure!(unnoticed.is_empty(), "late or not at all: {unnoticed:?}\n{}", lb.log());
    close_books(&lb);
    Ok(())
}

/// What happened to backends' neighbours meanwhile is seen: an entry that was deleted is asked for, a
/// new MAC is used. No backend goes down for it.
#[test]
fn neighbours_are_kept_and_followed_after_lost_notifications() -> Result<()> {
    let lab = Lab::builder().backends(3).build()?;
    let _web = lab.start_web()?;
    lab.backend(1).netns().set_sysctls(&["net/ipv4/conf/eth0/arp_notify=1"])?;
    let lb = start(&lab)?;
    let netns = lab.balancer(0).netns();
    for round in 0..3 {
        let churn = Churn::start(&lab)?;
        overrun(&lab, &lb)?;
        let deleted = lab.backend(0).address();
        netns.ip(&format!("neigh del {deleted} dev eth0\n"))?;
        let mac = format!("02:00:00:00:99:{round:02x}");
        lab.backend(1).netns().ip(&format!("link set eth0 address {mac}\n"))?;
        signal(&lb, rustix::process::Signal::CONT)?;
        let took = wait_for("entries as they should be", Duration::from_secs(10), || {
            let table = run(netns, &["ip", "-d", "neigh", "show", "nud", "reachable"])?;
            let kept = |at: usize| {
                let start = format!("{} ", lab.backend(at).address());
                table.lines().any(|line| line.starts_with(&start) && line.contains(" managed "))
            };
            Ok((0..3).all(kept) && backend(&lb, 1)?["mac"] == mac.as_str())
        })?;
        println!("neighbours as they should be after {took:?}");
        ensure!(took <= NOTICED, "{took:?}");
        drop(churn);
    }
    // While the daemon stood still its lease ran out.
    wait_for("serving again", Duration::from_secs(10), || serves(&lb))?;
    ensure!(lb.log().matches("-> DOWN").count() == 0, "{}", lb.log());
    fetch(&lab)?;
    close_books(&lb);
    Ok(())
}

fn start(lab: &Lab) -> Result<Pointsman> {
    let service = ServiceText::web(lab).with("vrrp = \"VI_1\"").to_toml();
    let instance = VrrpText::new("VI_1", 150, Duration::from_millis(100)).to_toml();
    let lb = lab.start_pointsman(0, &format!("{SMALL}\n{service}{instance}"))?;
    wait_for("serving", Duration::from_secs(10), || serves(&lb))?;
    Ok(lb)
}

/// Stops the daemon, and waits until the kernel has dropped notifications for it.
fn overrun(lab: &Lab, lb: &Pointsman) -> Result<()> {
    signal(lb, rustix::process::Signal::STOP)?;
    let before = drops(lab)?;
    let dropped =
        wait_for("dropped notifications", Duration::from_secs(30), || Ok(drops(lab)? > before));
    dropped.map(drop).with_context(|| sockets(lab).unwrap_or_default())
}

fn signal(lb: &Pointsman, signal: rustix::process::Signal) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(lb.pid())?).context("no process")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// What the kernel dropped of the notifications for sockets of the balancer's namespace.
fn drops(lab: &Lab) -> Result<u64> {
    let table = sockets(lab)?;
    // sk, Eth, Pid, Groups, Rmem, Wmem, Dump, Locks, Drops, Inode
    let of_routes = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let subscribed = of_routes.filter(|columns| columns[1] == "0" && columns[3] != "00000000");
    subscribed.map(|columns| Ok(columns[8].parse::<u64>()?)).sum()
}

fn sockets(lab: &Lab) -> Result<String> {
    run(lab.balancer(0).netns(), &["cat", "/proc/net/netlink"])
}

/// Whether the daemon knows that its link is gone, and gave the VIPs up.
fn lost(lb: &Pointsman) -> Result<bool> {
    let status = status(lb)?;
    let idle = status["vrrp"][0]["state"] == "initialize" && status["ready"] == false;
    Ok(status["interfaces"][0]["up"] == false && idle)
}

fn serves(lb: &Pointsman) -> Result<bool> {
    let status = status(lb)?;
    let backends = status["services"][0]["backends"].as_array().cloned().unwrap_or_default();
    let up = backends.iter().filter(|backend| backend["state"] == "up").count();
    Ok(status["ready"] == true && up == 3 && status["vrrp"][0]["vips_active"] == true)
}

fn backend(lb: &Pointsman, index: usize) -> Result<Value> {
    Ok(status(lb)?["services"][0]["backends"][index].clone())
}

/// Neighbours that come and go, several messages each: tens of thousands a second. They are permanent,
/// so that they take no room in the table, which all namespaces of a machine share.
struct Churn {
    _processes: Vec<Process>,
}

impl Churn {
    fn start(lab: &Lab) -> Result<Self> {
        let node = lab.balancer(0);
        let start = |number: u8| {
            let mut lines = String::new();
            for at in 0..20_000_u32 {
                let address = format!("10.77.{}.{}", 200 + number, at % 250);
                let _ = writeln!(
                    lines,
                    "neigh add {address} lladdr 02:00:00:01:00:01 nud permanent dev eth0\n\
                     neigh del {address} dev eth0"
                );
            }
            let batch = node.dir().join(format!("churn-{number}"));
            std::fs::write(&batch, lines)?;
            let again =
                format!("while :; do ip -force -batch {} 2>/dev/null; done", batch.display());
            let log = node.dir().join("churn.log");
            Ok(Process::start(node.netns(), "churn", &["/bin/sh", "-c", &again], &log)?)
        };
        Ok(Self { _processes: (0..3).map(start).collect::<Result<_>>()? })
    }
}
