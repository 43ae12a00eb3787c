//! ARP requests from random senders: backends stay up and get what is theirs, over connections old and
//! new; a table that they fill is named in the log. Needs root.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Guest, GuestSpec, Kernel, Lab, LoadClient, LoadReport, RunningLoad, ServiceText};
use serde_json::Value;
use tests::arp::{ArpFlood, Asking};
use tests::close_books;
use tests::lifecycle::{config, run, status, wait_for};

/// Every request makes a notification. The senders are few, for all namespaces of a machine share one
/// table: a full one is the next test's business.
#[test]
fn sixty_thousand_arp_requests_a_second_harm_nothing() -> Result<()> {
    let lab = Lab::builder().clients(2).backends(3).build()?;
    let _web = lab.start_web()?;
    let service = ServiceText::web(&lab).persistence("50s").health(CHECK);
    let lb = lab.start_pointsman(0, &config(&service))?;
    let loads = Loads::start(&lab, 200.0)?;
    let node = lab.balancer(0);
    let of = (node.address(), node.mac());
    let flood = ArpFlood::start(lab.client(1), Asking { of, senders: 250, rate: 60_000.0 });
    sleep(Duration::from_secs(5));
    for index in 0..3 {
        node.netns().ip(&format!("neigh del {} dev eth0\n", lab.backend(index).address()))?;
    }
    sleep(Duration::from_secs(5));
    let sent = flood.sent();
    println!("{sent} requests in 10 s, {} overruns", status(&lb)?["netlink_overruns"]);
    ensure!(sent > 100_000, "no flood");
    all_managed(&run(node.netns(), &["ip", "-d", "neigh"])?, &lab)?;
    drop(flood);
    loads.finish().with_context(|| lb.log())?;
    all_up(&status(&lb)?)?;
    ensure!(lb.log().matches("-> DOWN").count() == 0, "{}", lb.log());
    close_books(&lb);
    Ok(())
}

/// A guest has a table of its own. The check's times are for emulated CPUs.
#[test]
fn a_full_neighbour_table_harms_no_backend_and_is_named() -> Result<()> {
    let lab = Lab::builder().clients(2).balancers(0).backends(3).build()?;
    let _web = lab.start_web()?;
    let guest = Guest::boot(&lab, &GuestSpec::new(Kernel::V6_1))?;
    guest.run(
        "cd /proc/sys/net/ipv4/neigh/default; \
         echo 16 >gc_thresh1; echo 32 >gc_thresh2; echo 64 >gc_thresh3",
    )?;
    let service = ServiceText::web(&lab).persistence("50s").health(CHECK);
    guest.start_pointsman(&config(&service))?;
    wait_for("up", Duration::from_secs(20), || Ok(all_up(&guest.status()?).is_ok()))?;
    let loads = Loads::start(&lab, 20.0)?;
    let of = (Ipv4Addr::new(10, 77, 2, 1), guest.mac());
    let asking = Asking { of, senders: 20_000, rate: 1_000.0 };
    let flood = ArpFlood::start(lab.client(1), asking);
    wait_for("a full table", Duration::from_secs(20), || Ok(table_fulls(&guest)? > 100))?;
    // A full table has no room for them but as entries that do not count (`NTF_EXT_LEARNED`).
    for index in 0..3 {
        guest.run(&format!("ip neigh del {} dev eth0", lab.backend(index).address()))?;
    }
    sleep(Duration::from_secs(10));
    println!("no room for {} of {} entries", table_fulls(&guest)?, flood.sent());
    all_managed(&guest.run("ip -d neigh")?, &lab)?;
    drop(flood);
    loads.finish().with_context(|| guest.log().unwrap_or_default())?;
    all_up(&guest.status()?)?;
    let log = guest.log()?;
    ensure!(log.matches("-> DOWN").count() == 0, "{log}");
    let named = "neighbour table is full (net.ipv4.neigh.default.gc_thresh3 = 64)";
    ensure!(log.matches(named).count() == 1, "once a minute:\n{log}");
    Ok(())
}

/// Kept connections and new ones.
struct Loads(Vec<RunningLoad>);

impl Loads {
    fn start(lab: &Lab, rate: f64) -> Result<Self> {
        let file = lab.files().ensure("1k")?;
        let client = || {
            LoadClient::new(lab.vip_port(80), &file)
                .threads(8)
                .duration(Duration::from_secs(120))
                .rate(rate)
                .timeouts(Duration::from_secs(10), Duration::from_secs(10))
        };
        let netns = lab.client(0).netns();
        let new = client().sources(lab.client(0).sources(40)).start(netns)?;
        Ok(Self(vec![client().kept().start(netns)?, new]))
    }

    fn finish(self) -> Result<()> {
        for load in self.0 {
            load.stop();
            let report: LoadReport = load.finish();
            println!("{report}");
            ensure!(report.failed() == 0 && report.total() > 50, "{report}");
        }
        Ok(())
    }
}

fn all_up(status: &Value) -> Result<()> {
    let backends = status["services"][0]["backends"].as_array().context("no backends")?;
    let up = backends.iter().all(|backend| backend["state"] == "up");
    ensure!(up && backends.len() == 3, "{backends:?}");
    Ok(())
}

/// The kernel keeps the backends' entries, and they have a MAC.
fn all_managed(table: &str, lab: &Lab) -> Result<()> {
    for index in 0..3 {
        let start = format!("{} ", lab.backend(index).address());
        let line = table.lines().find(|line| line.starts_with(&start));
        let line = line.with_context(|| format!("no {start}in the table"))?;
        ensure!(line.contains(" managed ") && line.contains(" lladdr "), "{line}");
    }
    Ok(())
}

/// How often the guest's kernel had no room for an entry.
fn table_fulls(guest: &Guest) -> Result<u64> {
    let column = guest.run("tail -n 1 /proc/net/stat/arp_cache")?;
    let column = column.split_ascii_whitespace().last().context("no statistics")?;
    Ok(u64::from_str_radix(column, 16)?)
}

const CHECK: &str = "http = { path = \"/health\" }\ninterval = \"1s\"\ntimeout = \"3s\"\nfall = 3";
