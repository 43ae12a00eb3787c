//! Life on a network: links that flap, tables that are flushed, entries of administrators, addresses
//! that come late. None of it is taken for a backend's fault. Needs root.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, LoadClient, Pointsman, ProbeClient, ServiceText};
use serde_json::Value;
use tests::lifecycle::{config, echo_everywhere, run, runs, status, udp, wait_for};

#[test]
fn entries_of_an_administrator_are_used_and_left_alone() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let netns = lab.balancer(0).netns();
    let entry = |index: usize| -> Result<String> {
        let address = lab.backend(index).address().to_string();
        run(netns, &["ip", "-d", "neigh", "show", &address, "dev", "eth0"])
    };
    for (index, nud) in [(0, "permanent"), (1, "noarp")] {
        let node = lab.backend(index);
        let mac = node.mac().map(|byte| format!("{byte:02x}")).join(":");
        netns.ip(&format!("neigh add {} lladdr {mac} nud {nud} dev eth0\n", node.address()))?;
        // Whoever asked would get no answer.
        node.netns().set_sysctls(&["net/ipv4/conf/eth0/arp_ignore=8"])?;
    }
    let before = [entry(0)?, entry(1)?];
    let mut lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 100)?;
    // Longer than it takes to look at the table again.
    std::thread::sleep(Duration::from_secs(6));
    let report = probe.finish();
    ensure!(report.lost() == 0, "{report:?}");
    ensure!((0..2).all(|at| backend(&lb, at).is_ok_and(|b| b["state"] == "up")), "{}", lb.log());
    ensure!([entry(0)?, entry(1)?] == before, "{before:?} became {:?}", [entry(0)?, entry(1)?]);
    ensure!(lb.log().matches("-> DOWN").count() == 0, "{}", lb.log());
    lb.process().stop(Duration::from_secs(5))?;
    ensure!([entry(0)?, entry(1)?] == before, "gone after the end");
    Ok(())
}

/// Carrier losses and flushed tables change nothing: no backend goes down, none gets another MAC, no
/// client is refused or moved to another backend. The long run: 60 losses and 10 flushes each.
#[test]
fn flaps_of_the_own_link_and_flushed_neighbours_move_no_client() -> Result<()> {
    flaps(1, true)?;
    flaps(4, false)?;
    if std::env::var_os("POINTSMAN_LONG").is_some() {
        flaps(1, false)?;
        flaps(4, true)?;
    }
    Ok(())
}

fn flaps(queues: u8, checks: bool) -> Result<()> {
    let lab = Lab::builder().backends(3).queues(queues).build()?;
    let _web = lab.start_web()?;
    let file = lab.files().ensure("1k")?;
    let mut service = ServiceText::web(&lab).persistence("50s");
    if checks {
        service = service.health(tests::health::HTTP);
    }
    let lb = lab.start_pointsman(0, &config(&service))?;
    let sources = lab.client(0).sources(60);
    // A SYN that is lost with the link is sent again after one second, and after two more.
    let client = || {
        LoadClient::new(lab.vip_port(80), &file)
            .threads(32)
            .sources(sources.clone())
            .timeouts(Duration::from_secs(10), Duration::from_secs(10))
    };
    let first = client().requests(120).run(lab.client(0).netns())?;
    ensure!(first.failed() == 0, "{first}");
    let templates = |lb: &Pointsman| -> Result<Vec<u64>> {
        let count = |at: usize| Ok(backend(lb, at)?["templates"].as_u64().unwrap_or(0));
        (0..3).map(count).collect()
    };
    let before = templates(&lb)?;
    let transitions = transitions(&lb)?;
    let long = Duration::from_secs(120);
    // A thread whose SYN was lost is idle for a second: as many as keep up the rate all the same.
    let threads = 16 * runs(2);
    let new = client().threads(threads).duration(long).rate(1500.0).start(lab.client(0).netns())?;
    let kept = client().threads(20).kept().duration(long).rate(400.0);
    let kept = kept.start(lab.client(0).netns())?;
    for round in 0..7 * runs(2).min(10) {
        // A SYN that was lost is sent again after 1, 3 and 7 s: never into another loss.
        std::thread::sleep(Duration::from_millis(550));
        if round % 7 == 6 {
            run(lab.balancer(0).netns(), &["ip", "neigh", "flush", "all"])?;
        } else {
            lab.unplug(lab.balancer(0))?;
            std::thread::sleep(Duration::from_millis(100));
            lab.plug(lab.balancer(0))?;
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    let what = format!("{queues} queues, checks {checks}");
    for (name, load) in [("new", new), ("kept", kept)] {
        load.stop();
        let report = load.finish();
        println!("{what}, {name} connections: {report}");
        ensure!(report.failed() == 0, "{what}, {name}: {report}\n{}", lb.log());
        ensure!(report.total() > 500, "no load: {report}");
    }
    ensure!(templates(&lb)? == before, "templates: {before:?}, now {:?}", templates(&lb)?);
    ensure!(self::transitions(&lb)? == transitions, "counted down:\n{}", lb.log());
    ensure!(lb.log().matches("-> DOWN").count() == 0, "{}", lb.log());
    tests::close_books(&lb);
    Ok(())
}

/// The VIP waits for the first verdicts, and segments without history are placed by the configured
/// members: with `maglev` every connection to a backend that serves is kept, also where its backend
/// failed its checks meanwhile and keeps its flows. What `wlc` chose depends on loads that nothing
/// remembers: of three backends about one connection in three is kept, and the others are reset at
/// once.
#[test]
fn a_restart_keeps_established_connections() -> Result<()> {
    for (scheduler, unwell) in [("maglev", false), ("maglev", true), ("wlc", false)] {
        let (failed, total) = restarted_twice(scheduler, unwell)?;
        println!("{scheduler}, one unwell {unwell}: {failed} of {CONNECTIONS} × 2 were reset");
        ensure!(total > 500, "{scheduler}: no load: {total}");
        match scheduler {
            "wlc" => ensure!(failed < 2 * CONNECTIONS as usize, "none was kept"),
            _ => ensure!(failed == 0, "{scheduler}, one unwell {unwell}: {failed} of {total}"),
        }
    }
    Ok(())
}

/// Requests on kept connections over two restarts: how many failed, of how many. If `unwell`, the
/// first backend's checks fail from then on when the connections are there.
fn restarted_twice(scheduler: &str, unwell: bool) -> Result<(usize, usize)> {
    let lab = Lab::builder().backends(3).build()?;
    let _web = lab.start_web()?;
    let file = lab.files().ensure("1k")?;
    let flag = lab.balancer(0).dir().join("unwell");
    let unwell_backend = format!("{}-{}", flag.display(), lab.backend(0).address());
    let check = format!(
        "script = [\"/bin/sh\", \"-c\", \"test ! -e {}-$POINTSMAN_ADDRESS\"]\nfall = 1",
        flag.display()
    );
    let service = ServiceText::web(&lab).scheduler(scheduler).with("on_down = \"keep\"");
    let service = service.health(&check);
    let mut lb = lab.start_pointsman(0, &config(&service))?;
    let client = LoadClient::new(lab.vip_port(80), &file)
        .threads(CONNECTIONS)
        .kept()
        .duration(Duration::from_secs(60))
        .rate(600.0)
        .timeouts(Duration::from_secs(10), Duration::from_secs(10));
    let load = client.start(lab.client(0).netns())?;
    std::thread::sleep(Duration::from_secs(1));
    if unwell {
        std::fs::write(unwell_backend, "")?;
        wait_for("down", Duration::from_secs(5), || Ok(backend(&lb, 0)?["state"] == "down"))?;
    }
    for _ in 0..2 {
        lb.process().kill()?;
        lb = lab.start_pointsman(0, &config(&service))?;
        std::thread::sleep(Duration::from_secs(1));
    }
    load.stop();
    let report = load.finish();
    let resets = report.failures().get(&lab::Outcome::Reset).copied().unwrap_or_default();
    ensure!(report.failed() == resets, "not only resets: {report}\n{}", lb.log());
    Ok((report.failed(), report.total()))
}

const CONNECTIONS: u32 = 60;

/// A link that is away for long takes its backends along; when it is back, all are back at once.
#[test]
fn a_long_outage_of_the_own_link_refuses_and_resets_nothing() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _web = lab.start_web()?;
    let service = ServiceText::web(&lab).health(tests::health::HTTP);
    let lb = lab.start_pointsman(0, &config(&service))?;
    let transitions = transitions(&lb)?;
    lab.unplug(lab.balancer(0))?;
    wait_for("down", Duration::from_secs(5), || Ok(backend(&lb, 0)?["state"] == "down"))?;
    let why = backend(&lb, 0)?["reason"].clone();
    ensure!(why == "interface eth0 has no link", "{why}");
    // Long enough for three checks to fail.
    std::thread::sleep(Duration::from_secs(4));
    lab.plug(lab.balancer(0))?;
    let took = wait_for("both up", Duration::from_secs(5), || {
        Ok((0..2).all(|at| backend(&lb, at).is_ok_and(|b| b["state"] == "up")))
    })?;
    ensure!(took < Duration::from_millis(500), "{took:?}");
    ensure!(self::transitions(&lb)? == transitions, "counted against the backends");
    Ok(())
}

/// A backend whose resolution is under way is neither up nor down, and nothing warns of it.
#[test]
fn what_is_asked_for_is_resolving_and_given_up_after_a_while() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    lab.backend(1).netns().set_sysctls(&["net/ipv4/conf/eth0/arp_ignore=8"])?;
    let mut lb = Pointsman::spawn(lab.balancer(0), &config(&ServiceText::web(&lab)))?;
    wait_for("asking", Duration::from_secs(3), || {
        Ok(backend(&lb, 1).is_ok_and(|b| b["state"] == "resolving"))
    })?;
    ensure!(!lb.ready()?, "ready before an answer was due");
    let (_, why) = lb.http("/readyz")?;
    let expected = "backend tcp-80/rs2 10.77.3.2: its MAC address is not resolved yet";
    ensure!(why.contains(expected), "{why}");
    let warned = |line: &str| line.contains("WARN") && line.contains("rs2");
    ensure!(!lb.log().lines().any(warned), "{}", lb.log());
    lb.wait_ready(Duration::from_secs(10))?;
    ensure!(backend(&lb, 1)?["state"] == "down", "{}", lb.log());
    ensure!(lb.log().contains("rs2: RESOLVING -> DOWN"), "{}", lb.log());
    Ok(())
}

/// The first datagrams after `/readyz` said yes arrive, over IPv6 too, where this node's own address
/// is checked for duplicates first.
#[test]
fn ready_means_that_the_first_datagram_arrives() -> Result<()> {
    let lab = Lab::builder().backends(3).build()?;
    let netns = lab.balancer(0).netns();
    let v6 = lab.balancer(0).address_v6();
    netns.set_sysctls(&[
        "net/ipv6/conf/all/accept_dad=1",
        "net/ipv6/conf/eth0/accept_dad=1",
        "net/ipv6/conf/eth0/dad_transmits=1",
    ])?;
    let target = (lab.vip_v6(), 53).into();
    let _echo = (0..3)
        .map(|at| Ok(lab::EchoResponder::start(lab.backend(at).netns(), target)?))
        .collect::<Result<Vec<_>>>()?;
    let service = ServiceText::web_v6(&lab).udp().port(53);
    for round in 0..3 {
        run(netns, &["ip", "-6", "addr", "flush", "dev", "eth0"])?;
        netns.ip("neigh flush dev eth0\n")?;
        // Neighbours are asked from the link-local address, which is being checked as well.
        netns.ip(&format!("addr add fe80::77/64 dev eth0\naddr add {v6}/64 dev eth0\n"))?;
        let mut lb = lab.start_pointsman(0, &config(&service))?;
        let probe = ProbeClient::start(lab.client(0).netns(), target, 500)?;
        std::thread::sleep(Duration::from_millis(400));
        let report = probe.finish();
        ensure!(report.lost() == 0, "round {round}: {report:?}\n{}", lb.log());
        lb.process().stop(Duration::from_secs(5))?;
    }
    Ok(())
}

/// At boot the network may come after the daemon: it waits, says for what, and serves then.
#[test]
fn a_network_that_comes_late_is_waited_for() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let netns = lab.balancer(0).netns();
    let own = lab.balancer(0).address();
    netns.ip(&format!(
        "addr del {own}/16 dev eth0\nlink set eth0 down\nlink set eth0 name late0\n"
    ))?;
    let lb = Pointsman::spawn(lab.balancer(0), &config(&udp(&lab)))?;
    let says = |what: &str| {
        wait_for(what, Duration::from_secs(5), || {
            Ok(lb.http("/readyz").is_ok_and(|(code, why)| code == 503 && why.contains(what)))
        })
    };
    says("interface eth0 does not exist")?;
    netns.ip("link set late0 name eth0\n")?;
    says("interface eth0 is down: set it up")?;
    netns.ip("link set eth0 up\n")?;
    says("interface eth0 has no IPv4 address")?;
    netns.ip(&format!("addr add {own}/16 dev eth0\n"))?;
    let begin = Instant::now();
    wait_for("ready", Duration::from_secs(5), || Ok(lb.ready()?))?;
    println!("ready {:?} after the address came", begin.elapsed());
    let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 200)?;
    std::thread::sleep(Duration::from_millis(500));
    let report = probe.finish();
    ensure!(report.lost() == 0, "{report:?}\n{}", lb.log());
    Ok(())
}

/// What the kernel's routing reaches on-link counts, whatever the prefix of the own address is; of
/// two interfaces the one that the kernel would use.
#[test]
fn backends_are_looked_for_where_the_kernel_routes() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let netns = lab.balancer(0).netns();
    let own = lab.balancer(0).address();
    // eth1 has the shorter prefix and is named first.
    netns.ip(&format!(
        "addr del {own}/16 dev eth0\naddr add {own}/32 dev eth0\n\
         route add 10.77.0.0/16 dev eth0 scope link src {own}\n\
         link add eth1 type veth peer name eth1-peer\nlink set eth1-peer up\n\
         link set eth1 up\naddr add 10.0.0.1/8 dev eth1\n"
    ))?;
    let text = config(&udp(&lab));
    let text = text.replacen("[[interface]]", "[[interface]]\nname = \"eth1\"\n[[interface]]", 1);
    let lb = lab.start_pointsman(0, &text)?;
    let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 200)?;
    std::thread::sleep(Duration::from_millis(500));
    let report = probe.finish();
    ensure!(report.lost() == 0, "{report:?}\n{}", lb.log());
    ensure!((0..2).all(|at| backend(&lb, at).is_ok_and(|b| b["state"] == "up")), "{}", lb.log());
    Ok(())
}

fn backend(lb: &Pointsman, index: usize) -> Result<Value> {
    let found = status(lb)?["services"][0]["backends"][index].clone();
    (!found.is_null()).then_some(found).context("no such backend")
}

/// How often backends came to carry flows or ceased to.
fn transitions(lb: &Pointsman) -> Result<u64> {
    let status = status(lb)?;
    let backends = status["services"][0]["backends"].as_array().context("no backends")?.clone();
    Ok(backends.iter().filter_map(|backend| backend["transitions"].as_u64()).sum())
}
