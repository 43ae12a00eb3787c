//! Backends' MAC addresses: known before the first packet, followed when they change, and a backend
//! that does not answer is not used.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, LoadClient, Pointsman, ProbeClient, ServiceText};
use serde_json::Value;
use tests::close_books;
use tests::lifecycle::{config, echo_everywhere, named, run, runs, status, udp, wait_for};

#[test]
fn neighbours_are_resolved_at_start_and_kept_by_the_kernel() -> Result<()> {
    let lab = Lab::builder().backends(3).build()?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    // Ready says that the VIP is steered; backends may be a question and an answer later.
    wait_for("all backends up", Duration::from_secs(1), || {
        Ok((0..3).map(|index| backend(&lb, index)).all(|b| b.is_ok_and(|b| b["state"] == "up")))
    })?;
    let neighbours = run(lab.balancer(0).netns(), &["ip", "-d", "neigh", "show", "dev", "eth0"])?;
    for index in 0..3 {
        let start = format!("{} ", lab.backend(index).address());
        let line = neighbours.lines().find(|line| line.starts_with(&start));
        let line = line.with_context(|| neighbours.clone())?;
        ensure!(line.contains(" managed ") && line.contains("REACHABLE"), "{line}");
    }
    // Somebody clears the table: it fills again without any traffic.
    for _ in 0..runs(3) {
        run(lab.balancer(0).netns(), &["ip", "neigh", "flush", "dev", "eth0"])?;
        let took = wait_for("resolved again", Duration::from_secs(3), || {
            let table = run(lab.balancer(0).netns(), &["ip", "-d", "neigh"])?;
            Ok(table.matches(" managed ").count() == 3 && backend(&lb, 0)?["state"] == "up")
        })?;
        println!("resolved again after {took:?}");
        ensure!(took <= Duration::from_secs(1), "{took:?}");
    }
    Ok(())
}

#[test]
fn a_new_mac_is_used_within_a_second_after_it_is_announced() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    // The kernel announces a new MAC of its own.
    lab.backend(0).netns().set_sysctls(&["net/ipv4/conf/eth0/arp_notify=1"])?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
    for round in 0..runs(5) {
        sleep(Duration::from_millis(200));
        let mac = format!("02:00:00:00:99:{round:02x}");
        lab.backend(0).netns().ip(&format!("link set eth0 address {mac}\n"))?;
        let took = wait_for("new MAC known", Duration::from_secs(5), || {
            Ok(backend(&lb, 0)?["mac"] == mac.as_str())
        })?;
        println!("new MAC known after {took:?}");
        ensure!(took <= Duration::from_secs(1), "{took:?}");
    }
    sleep(Duration::from_millis(500));
    let report = probe.finish();
    println!("longest outage {:?}", report.longest_outage());
    ensure!(report.longest_outage() <= Duration::from_secs(1), "{report:?}");
    close_books(&lb);
    Ok(())
}

#[test]
fn a_backend_that_does_not_answer_is_not_used_until_it_does() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _web = lab.start_web()?;
    let file = lab.files().ensure("1k")?;
    // The kernel's own times, shortened: seconds instead of a minute.
    lab.balancer(0).netns().set_sysctls(&[
        "net/ipv4/neigh/eth0/base_reachable_time_ms=1000",
        "net/ipv4/neigh/eth0/delay_first_probe_time=1",
        "net/ipv4/neigh/eth0/retrans_time_ms=500",
        "net/ipv4/neigh/eth0/interval_probe_time_ms=500",
    ])?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    let load = || {
        LoadClient::new(lab.vip_port(80), &file)
            .threads(2)
            .sources(lab.client(0).sources(40))
            .requests(80)
            .run(lab.client(0).netns())
    };
    let before = load()?;
    ensure!(before.failed() == 0 && before.per_backend().len() == 2, "{before}");

    // Silent for ARP; everything else about it still works.
    lab.backend(0).netns().set_sysctls(&["net/ipv4/conf/eth0/arp_ignore=8"])?;
    let took = wait_for("the silence is noticed", Duration::from_secs(20), || {
        Ok(backend(&lb, 0)?["state"] == "down")
    })?;
    println!("silent backend down after {took:?}");
    let silent = backend(&lb, 0)?;
    ensure!(silent["reason"] == "no answer to ARP or neighbour solicitation", "{silent}");
    let without = load()?;
    ensure!(without.failed() == 0, "{without}\n{}", lb.log());
    ensure!(without.per_backend().keys().eq(["rs2"]), "{without}");
    sleep(Duration::from_secs(2));
    shown_as_down(&lab, &lb)?;

    lab.backend(0).netns().set_sysctls(&["net/ipv4/conf/eth0/arp_ignore=1"])?;
    let took =
        wait_for("it is back", Duration::from_secs(10), || Ok(backend(&lb, 0)?["state"] == "up"))?;
    println!("back after {took:?}");
    let again = load()?;
    ensure!(again.failed() == 0 && again.per_backend().len() == 2, "{again}");
    let no_backend = named(&status(&lb)?["dropped"], "no_backend");
    ensure!(no_backend == 0, "{no_backend} frames found no backend");
    close_books(&lb);
    Ok(())
}

/// Status, metrics and the log say the same, and say it once.
fn shown_as_down(lab: &Lab, lb: &Pointsman) -> Result<()> {
    let binary = lab::pointsman_binary()?;
    let socket = lb.socket().display().to_string();
    let argv = [&*binary.to_string_lossy(), "status", "--socket", &socket];
    let table = run(lab.balancer(0).netns(), &argv)?;
    let line = table.lines().find(|line| line.contains("rs1 ")).context("no rs1 in the table")?;
    ensure!(line.contains("DOWN") && line.contains("no answer to ARP"), "{table}");

    let metrics = lb.metrics()?;
    let rs1 = [("service", "tcp-80"), ("backend", "rs1")];
    let value = |name: &str, state: &[(&str, &str)]| metrics.value(name, &[&rs1, state].concat());
    ensure!(value("pointsman_backend_neighbour_resolved", &[]) == Some(0.0), "resolved");
    ensure!(value("pointsman_backend_state", &[("state", "down")]) == Some(1.0), "not down");
    ensure!(value("pointsman_backend_state", &[("state", "up")]) == Some(0.0), "up");
    ensure!(value("pointsman_backend_transitions_total", &[]) == Some(2.0), "up, then down");
    let log = lb.log();
    let silent = |line: &&str| line.contains("rs1") && line.contains("no answer to ARP");
    ensure!(log.lines().filter(silent).count() == 1, "said more than once:\n{log}");
    Ok(())
}

fn backend(lb: &Pointsman, index: usize) -> Result<Value> {
    Ok(status(lb)?["services"][0]["backends"][index].clone())
}
