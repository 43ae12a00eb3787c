//! Another configuration while the balancer runs: what changed is taken over, what did not is left
//! alone, and a mistake changes nothing.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{
    EchoResponder, Lab, LoadClient, Pointsman, ProbeClient, ServiceText, VrrpText,
    pointsman_binary, write_config,
};
use rustix::process::Signal;
use serde_json::Value;
use tests::lifecycle::{SMALL, echo_everywhere, runs, status, udp, wait_for};
use tests::{close_books, measured};

const SECOND: Duration = Duration::from_secs(1);

/// What a command answered: exit code, standard output, standard error.
type Answer = (Option<i32>, String, String);

/// A sub-command on the first balancer.
fn command(lab: &Lab, lb: &Pointsman, words: &[&str]) -> Result<Answer> {
    command_on(lab, 0, lb, words)
}

/// The same on any.
fn command_on(lab: &Lab, number: usize, lb: &Pointsman, words: &[&str]) -> Result<Answer> {
    let binary = pointsman_binary()?;
    let (binary, socket) = (binary.to_string_lossy(), lb.socket().display().to_string());
    let argv = [&[&*binary], words, &["--socket", &socket]].concat();
    let output = lab.balancer(number).netns().run(&argv, Duration::from_secs(20))?;
    Ok((output.status.code(), output.stdout, output.stderr))
}

fn reload(lab: &Lab, lb: &Pointsman, text: &str) -> Result<String> {
    write_config(lab.balancer(0), text)?;
    let (code, said, errors) = command(lab, lb, &["reload"])?;
    ensure!(code == Some(0), "{code:?}\n{said}{errors}");
    Ok(said)
}

fn hash(lb: &Pointsman) -> Result<Value> {
    Ok(status(lb)?["configuration"]["hash"].clone())
}

fn files(lb: &Pointsman) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", lb.pid()))?.count())
}

fn resident(lb: &Pointsman) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", lb.pid()))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib = line.split_whitespace().nth(1).context("no number")?;
    Ok(kib.parse::<u64>()? * 1024)
}

fn text(services: &[ServiceText]) -> String {
    let services: String = services.iter().map(ServiceText::service_toml).collect();
    format!("{SMALL}\n[[interface]]\nname = \"eth0\"\n{services}")
}

fn probe(lab: &Lab) -> Result<ProbeClient> {
    Ok(ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 1000)?)
}

/// The answers that a probe lost.
fn none_lost(probe: ProbeClient) -> Result<()> {
    let report = probe.finish();
    ensure!(report.sent > 0 && report.lost() == 0, "{report:?}");
    Ok(())
}

/// A service added, changed and removed beside one that stays: nothing of that is lost, and its
/// connections and templates stay where they are.
#[test]
fn what_did_not_change_is_not_touched() -> Result<()> {
    let lab = Lab::builder().backends(3).queues(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let _web = lab.start_web()?;
    let file = lab.files().ensure("10k")?;
    let web = ServiceText::web(&lab).scheduler("rr").persistence("50s").health(tests::health::HTTP);
    let base = [udp(&lab), web.clone()];
    let lb = lab.start_pointsman(0, &text(&base))?;
    let up = || -> Result<bool> {
        let status = status(&lb)?;
        let backends = status["services"][1]["backends"].as_array().context("no backends")?;
        Ok(backends.iter().all(|backend| backend["state"] == "up"))
    };
    wait_for("backends up", Duration::from_secs(5), up)?;
    let probe = probe(&lab)?;
    let load = LoadClient::new(lab.vip_port(80), &file)
        .threads(2)
        .sources(lab.client(0).sources(40))
        .duration(Duration::from_secs(60))
        .start(lab.client(0).netns())?;
    sleep(SECOND);
    let echo_port: SocketAddr = (lab.vip(), 7007).into();
    let _third = EchoResponder::start(lab.backend(0).netns(), echo_port)?;
    let third = ServiceText::web(&lab).udp().port(7007).name("third");
    let said = reload(&lab, &lb, &text(&[udp(&lab), web.clone(), third.clone()]))?;
    ensure!(said.contains("+ service third: udp "), "{said}");
    let service =
        |lb: &Pointsman, at: usize| -> Result<Value> { Ok(status(lb)?["services"][at].clone()) };
    let steered = || Ok(service(&lb, 2)?["backends"][0]["state"] == "up");
    wait_for("the new service serves", Duration::from_secs(3), steered)?;
    let said = reload(&lab, &lb, &text(&[udp(&lab), web.clone(), third.scheduler("wlc")]))?;
    ensure!(said.contains("~ service third: scheduler maglev -> wlc"), "{said}");
    let said = reload(&lab, &lb, &text(&base))?;
    ensure!(said.contains("- service third"), "{said}");
    let said = reload(&lab, &lb, &text(&base))?;
    ensure!(said.contains("nothing changes"), "{said}");
    sleep(SECOND);
    let (transitions, replaced) =
        (service(&lb, 1)?, status(&lb)?["persistence"]["replaced"].clone());
    for backend in transitions["backends"].as_array().context("no backends")? {
        ensure!(backend["transitions"] == 1, "its state changed: {backend}");
    }
    ensure!(replaced == 0, "{replaced} templates were moved");
    load.stop();
    let report = load.finish();
    ensure!(report.total() > 100 && report.failed() == 0, "{report}");
    let moved = report.backends_by_source().into_values().filter(|names| names.len() > 1).count();
    ensure!(moved == 0, "{moved} sources changed their backend");
    none_lost(probe)?;
    close_books(&lb);
    Ok(())
}

/// A backend that leaves gets no new connection, and those that it has end in peace.
#[test]
fn a_removed_backend_is_drained() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _web = lab.start_web()?;
    let file = lab.files().ensure("1m")?;
    let web = ServiceText::web(&lab).scheduler("rr");
    let lb = lab.start_pointsman(0, &text(std::slice::from_ref(&web)))?;
    // Some seconds each.
    let downloads = LoadClient::new(lab.vip_port(80), &file)
        .threads(10)
        .requests(10)
        .verify(&file)
        .download_rate(300_000)
        .start(lab.client(0).netns())?;
    wait_for("both have downloads", Duration::from_secs(5), || {
        let status = status(&lb)?;
        let backends = status["services"][0]["backends"].as_array().context("no backends")?.clone();
        Ok(backends.iter().all(|backend| backend["active"].as_u64() >= Some(4)))
    })?;
    let whole = text(&[web]);
    let (before, after) = whole.split_once("\n[[service.backend]]").context("no backend")?;
    let (_, rest) = after.split_once("\n[[service.backend]]").context("one backend")?;
    let said = reload(&lab, &lb, &format!("{before}\n[[service.backend]]{rest}"))?;
    ensure!(said.contains("- backend rs1"), "{said}");
    let small = lab.files().ensure("10k")?;
    let new = LoadClient::new(lab.vip_port(80), &small).requests(40).run(lab.client(0).netns())?;
    ensure!(new.failed() == 0 && new.per_backend().keys().eq(["rs2"]), "{new}");
    let report = downloads.finish();
    ensure!(report.done() == 10 && report.failed() == 0, "{report}");
    Ok(())
}

/// Whatever is wrong with a file: the place and the reason are said, and nothing changes.
#[test]
fn a_broken_file_changes_nothing() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &text(&[udp(&lab)]))?;
    let good = std::fs::read_to_string(lb.config())?;
    let (hash_before, probe) = (hash(&lb)?, probe(&lab)?);
    sleep(Duration::from_millis(200));
    let cases = [
        ("vip = \"10.77.0.100\"", "vip = 10.77.0.100", "error"),
        ("protocol = \"udp\"", "protocol = \"sctp\"", "`sctp`"),
        ("scheduler = \"maglev\"", "scheduler = \"random\"", "`random`"),
        ("port = 53", "port = 99999", "99999"),
        ("name = \"eth0\"", "name = \"eth7\"", "the list of interfaces (eth7)"),
        ("flow_capacity = 16384", "flow_capacity = 32768", "cannot change while the node runs"),
        ("weight = 1", "weigth = 1", "weight"),
        ("address = \"10.77.3.1\"", "address = \"10.77.0.100\"", "10.77.0.100"),
        ("address = \"10.77.3.1\"", "address = \"203.0.113.9\"", "not on a network"),
    ];
    for (from, to, reason) in cases {
        ensure!(good.contains(from), "the file has no {from:?}:\n{good}");
        std::fs::write(lb.config(), good.replacen(from, to, 1))?;
        for words in [&["reload"][..], &["reload", "--dry-run"]] {
            let (code, said, errors) = command(&lab, &lb, words)?;
            ensure!(code == Some(1) && said.is_empty(), "{to}: {code:?} {said}");
            ensure!(errors.contains("pointsman.toml:"), "{to}: without its place:\n{errors}");
            ensure!(errors.contains(reason), "{to}: without {reason:?}:\n{errors}");
        }
        ensure!(hash(&lb)? == hash_before, "{to}: it was taken over");
    }
    let refused = status(&lb)?["configuration"]["refused"].clone();
    ensure!(refused == cases.len(), "{refused} refused, a dry run is not counted");
    // Cut off, of other bytes, missing, no file at all.
    let descriptors = files(&lb)?;
    for length in (0..good.len()).step_by(good.len().div_ceil(100)) {
        std::fs::write(lb.config(), &good[..length])?;
        let (code, _, errors) = command(&lab, &lb, &["reload"])?;
        ensure!(code == Some(1) || hash(&lb)? != hash_before, "{length} bytes: {code:?} {errors}");
        if code == Some(0) {
            // What was cut off was not needed.
            reload(&lab, &lb, &good)?;
        }
    }
    let memory = resident(&lb)?;
    for byte in (0..good.len()).step_by(good.len().div_ceil(200)) {
        let mut bytes = good.clone().into_bytes();
        bytes[byte] = 0xff;
        std::fs::write(lb.config(), bytes)?;
        let (code, _, errors) = command(&lab, &lb, &["reload"])?;
        ensure!(code == Some(1) && errors.contains("UTF-8"), "{code:?} {errors}");
    }
    let more = resident(&lb)?.saturating_sub(memory);
    ensure!(more <= 1 << 20, "{more} bytes more after 200 broken files");
    std::fs::remove_file(lb.config())?;
    let (code, _, errors) = command(&lab, &lb, &["reload"])?;
    ensure!(code == Some(1) && errors.contains("cannot read the configuration"), "{errors}");
    rustix::fs::mkfifoat(rustix::fs::CWD, lb.config(), rustix::fs::Mode::RUSR)?;
    let (code, _, errors) = command(&lab, &lb, &["reload"])?;
    ensure!(code == Some(1) && errors.contains("is not a regular file"), "{errors}");
    std::fs::remove_file(lb.config())?;
    ensure!(files(&lb)? <= descriptors, "descriptors were left open");
    reload(&lab, &lb, &good)?;
    ensure!(hash(&lb)? == hash_before, "the good file was not taken over");
    none_lost(probe)?;
    close_books(&lb);
    Ok(())
}

/// SIGHUP does what the command does, and says in the log what became of it.
#[test]
fn sighup_reloads() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let mut lb = lab.start_pointsman(0, &text(&[udp(&lab)]))?;
    let good = std::fs::read_to_string(lb.config())?;
    let probe = probe(&lab)?;
    std::fs::write(lb.config(), good.replacen("weight = 1", "weight = 3", 1))?;
    lb.process().signal(Signal::HUP)?;
    wait_for("taken over", 2 * SECOND, || Ok(status(&lb)?["configuration"]["reloads"] == 1))?;
    let log = lb.log();
    ensure!(log.contains("reload: ~ service udp-53: backend rs1: weight 1 -> 3"), "{log}");
    ensure!(status(&lb)?["services"][0]["backends"][0]["weight"] == 3, "not in force");
    std::fs::write(lb.config(), "nonsense")?;
    lb.process().signal(Signal::HUP)?;
    wait_for("refused", 2 * SECOND, || Ok(status(&lb)?["configuration"]["refused"] == 1))?;
    let log = lb.log();
    ensure!(log.contains("the former one stays in force") && log.contains("toml:1:"), "{log}");
    ensure!(lb.metrics()?.value("pointsman_config_last_reload_successful", &[]) == Some(0.0), "");
    std::fs::remove_file(lb.config())?;
    lb.process().signal(Signal::HUP)?;
    wait_for("refused", 2 * SECOND, || Ok(status(&lb)?["configuration"]["refused"] == 2))?;
    ensure!(lb.process().running(), "{}", lb.log());
    none_lost(probe)?;
    Ok(())
}

/// The way back: by command, and by itself when the operator does not come back.
#[test]
fn undo_confirm_and_the_dead_mans_switch() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let lb = lab.start_pointsman(0, &text(&[udp(&lab)]))?;
    let good = std::fs::read_to_string(lb.config())?;
    let first = hash(&lb)?;
    let weight =
        || Ok::<_, anyhow::Error>(status(&lb)?["services"][0]["backends"][0]["weight"].clone());
    let (code, _, errors) = command(&lab, &lb, &["undo"])?;
    ensure!(code == Some(1) && errors.contains("no configuration before"), "{code:?} {errors}");
    std::fs::write(lb.config(), good.replacen("weight = 1", "weight = 3", 1))?;
    let (code, said, _) = command(&lab, &lb, &["reload", "--dry-run"])?;
    ensure!(code == Some(0) && said.contains("weight 1 -> 3"), "{code:?} {said}");
    ensure!(hash(&lb)? == first && weight()? == 1, "a dry run changed something");
    let (code, said, errors) = command(&lab, &lb, &["reload", "--confirm-within", "1s"])?;
    ensure!(code == Some(0) && said.contains("rolled back in 1s unless"), "{said}{errors}");
    ensure!(weight()? == 3, "not taken over");
    let took = wait_for("the roll-back", 5 * SECOND, || Ok(hash(&lb)? == first))?;
    ensure!(took > SECOND / 2 && weight()? == 1, "after {took:?}");
    ensure!(lb.log().contains("not confirmed in time"), "{}", lb.log());
    let (code, ..) = command(&lab, &lb, &["reload", "--confirm-within", "1s"])?;
    ensure!(code == Some(0), "{code:?}");
    let (code, said, _) = command(&lab, &lb, &["confirm"])?;
    ensure!(code == Some(0) && said.contains("confirmed"), "{code:?} {said}");
    sleep(2 * SECOND);
    ensure!(weight()? == 3, "rolled back in spite of the confirmation");
    let (code, ..) = command(&lab, &lb, &["confirm"])?;
    ensure!(code == Some(1), "nothing waits");
    let (code, said, _) = command(&lab, &lb, &["undo"])?;
    ensure!(code == Some(0) && said.contains("weight 3 -> 1"), "{code:?} {said}");
    ensure!(hash(&lb)? == first, "not the one before");
    let (_, said, _) = command(&lab, &lb, &["undo"])?;
    ensure!(said.contains("weight 1 -> 3"), "undone twice: {said}");
    Ok(())
}

/// A priority moves the VIPs without a restart; a tracked thing, too.
#[test]
fn a_changed_priority_decides_the_election() -> Result<()> {
    let lab = Lab::builder().balancers(2).backends(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let config = |priority: u8| {
        let service = udp(&lab).with("vrrp = \"VI_1\"").service_toml();
        let instance = VrrpText::new("VI_1", priority, Duration::from_millis(100)).to_toml();
        format!("{SMALL}\n[[interface]]\nname = \"eth0\"\n{service}{instance}")
    };
    let first = lab.start_pointsman(0, &config(150))?;
    let second = lab.start_pointsman(1, &config(100))?;
    let state = |lb: &Pointsman| lb.vrrp(0)["state"].clone();
    wait_for("active", 5 * SECOND, || Ok(state(&first) == "active" && state(&second) == "backup"))?;
    let said = reload(&lab, &first, &config(50))?;
    ensure!(said.contains("~ vrrp VI_1: priority 150 -> 50"), "{said}");
    wait_for("moved", 3 * SECOND, || Ok(state(&first) == "backup" && state(&second) == "active"))?;
    ensure!(first.vrrp(0)["effective_priority"] == 50, "{}", first.vrrp(0));
    reload(&lab, &first, &config(150))?;
    wait_for("back", 3 * SECOND, || Ok(state(&first) == "active" && state(&second) == "backup"))?;
    let transitions: u64 = second.vrrp(0)["transitions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["to"] == "active")
        .filter_map(|entry| entry["value"].as_u64())
        .sum();
    ensure!(transitions == 1, "{transitions} times active");
    Ok(())
}

/// Many reloads under load: no datagram is lost, nothing leaks, each is quick.
#[test]
fn reloads_in_a_row_lose_nothing() -> Result<()> {
    let lab = Lab::builder().backends(4).queues(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &text(&[udp(&lab)]))?;
    let probe = probe(&lab)?;
    let variant = |number: u32| {
        let scheduler = ["maglev", "rr", "wrr", "lc", "wlc"][number as usize % 5];
        let weights: Vec<u32> = (0..4).map(|at| 1 + (number >> at) % 5).collect();
        let other = ServiceText::web(&lab).name("other").scheduler(scheduler).weights(&weights);
        let other = if number.is_multiple_of(3) { other.persistence("50s") } else { other };
        let other = if number.is_multiple_of(4) { other.health("tcp = {}") } else { other };
        let services = [udp(&lab), other];
        text(&services[..if number.is_multiple_of(7) { 1 } else { 2 }])
    };
    let mut times = Vec::new();
    let mut descriptors = 0;
    for number in 0..runs(5) * 20 {
        write_config(lab.balancer(0), &variant(number))?;
        let begin = Instant::now();
        let (code, _, errors) = command(&lab, &lb, &["reload"])?;
        times.push(begin.elapsed());
        ensure!(code == Some(0), "{number}: {errors}");
        if number == 20 {
            descriptors = files(&lb)?;
        }
    }
    // Probes of the check that was last there may be under way.
    wait_for("descriptors", 3 * SECOND, || Ok(files(&lb)? <= descriptors + 8))?;
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    measured("reload, with the start of the command, p99", p99.as_millis(), "ms", "");
    none_lost(probe)?;
    close_books(&lb);
    Ok(())
}

/// A drained backend keeps its connections and gets no new one; the drain outlives a reload.
#[test]
fn a_backend_is_drained_and_enabled_by_command() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _web = lab.start_web()?;
    let (large, small) = (lab.files().ensure("1m")?, lab.files().ensure("10k")?);
    let web = ServiceText::web(&lab).scheduler("rr").persistence("50s");
    let lb = lab.start_pointsman(0, &text(std::slice::from_ref(&web)))?;
    let client = lab.client(0);
    let downloads = LoadClient::new(lab.vip_port(80), &large)
        .threads(10)
        .requests(10)
        .sources(client.sources(10))
        .verify(&large)
        .download_rate(300_000)
        .start(client.netns())?;
    let active = |at: usize| -> Result<u64> {
        let status = status(&lb)?;
        status["services"][0]["backends"][at]["active"].as_u64().context("no number")
    };
    wait_for("both have downloads", 5 * SECOND, || Ok(active(0)? >= 4 && active(1)? >= 4))?;
    let (code, said, errors) = command(&lab, &lb, &["drain", "rs1", "--wait", "100ms"])?;
    ensure!(code == Some(4) && said.contains("tcp-80/rs1: drained"), "{code:?} {said}{errors}");
    ensure!(errors.contains("connections are left"), "{errors}");
    // The same sources again, of which half had been sent to it: they go elsewhere now.
    let load =
        || LoadClient::new(lab.vip_port(80), &small).sources(client.sources(10)).requests(40);
    let report = load().run(client.netns())?;
    ensure!(report.failed() == 0 && report.per_backend().keys().eq(["rs2"]), "{report}");
    reload(&lab, &lb, &text(&[web.clone().scheduler("wrr")]))?;
    let shown = status(&lb)?["services"][0]["backends"][0].clone();
    ensure!(shown["operator"] == "drained" && shown["state"] == "draining", "{shown}");
    let report = load().run(client.netns())?;
    ensure!(report.failed() == 0 && report.per_backend().keys().eq(["rs2"]), "{report}");
    let (code, said, errors) = command(&lab, &lb, &["drain", "tcp-80/rs1", "--wait", "30s"])?;
    ensure!(code == Some(0) && said.contains("no connection is left"), "{code:?} {said}{errors}");
    let report = downloads.finish();
    ensure!(report.done() == 10 && report.failed() == 0, "{report}");
    let (code, ..) = command(&lab, &lb, &["enable", "tcp-80"])?;
    ensure!(code == Some(0) && status(&lb)?["services"][0]["backends"][0]["state"] == "up", "");
    let (code, said, _) = command(&lab, &lb, &["weight", "rs2", "0"])?;
    ensure!(code == Some(0) && said.contains("tcp-80/rs2: weight 0"), "{said}");
    let new = LoadClient::new(lab.vip_port(80), &small).sources(client.sources(10)).requests(20);
    let report = new.run(client.netns())?;
    ensure!(report.failed() == 0 && report.per_backend().keys().eq(["rs1"]), "{report}");
    let (code, _, errors) = command(&lab, &lb, &["drain", "rs9"])?;
    ensure!(code == Some(1) && errors.contains("no backend or service `rs9`"), "{code:?} {errors}");
    Ok(())
}

/// A priority, an interval, an added and a removed VIP on a pair that runs, one node after the other, each
/// first once: no transition, no datagram lost, and the VIPs are never at two nodes.
#[test]
fn a_running_pair_takes_over_vips_and_intervals() -> Result<()> {
    let lab = Lab::builder().balancers(2).backends(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let config = |number: usize, (interval, second): (u64, bool)| {
        let (priority, peer) = if number == 0 { (150, 1) } else { (100, 0) };
        let peers = format!("peers = [\"{}\"]", lab.balancer(peer).address());
        let instance = VrrpText::new("VI_1", priority, Duration::from_millis(interval));
        let instance = instance.with(&peers).to_toml();
        let mut services = udp(&lab).with("vrrp = \"VI_1\"").service_toml();
        if second {
            let other = ServiceText::web(&lab).udp().port(7007).name("second");
            let other = other.vip(IpAddr::from([10, 77, 0, 101])).with("vrrp = \"VI_1\"");
            services += &other.service_toml();
        }
        format!("{SMALL}\n[[interface]]\nname = \"eth0\"\n{services}{instance}")
    };
    let plain = (200, false);
    let nodes =
        [lab.start_pointsman(0, &config(0, plain))?, lab.start_pointsman(1, &config(1, plain))?];
    let states = || [0, 1].map(|at: usize| nodes[at].vrrp(0)["state"].clone());
    wait_for("active", 5 * SECOND, || Ok(states() == ["active", "backup"]))?;
    let transitions = || nodes.each_ref().map(|node| node.vrrp(0)["transitions"].clone());
    let (before, probe) = (transitions(), probe(&lab)?);
    let steps = [(1000, false), (1000, true), (100, true), (100, false), (200, true), (200, false)];
    for (step, what) in steps.into_iter().enumerate() {
        for number in if step % 2 == 0 { [0, 1] } else { [1, 0] } {
            write_config(lab.balancer(number), &config(number, what))?;
            let (code, said, errors) = command_on(&lab, number, &nodes[number], &["reload"])?;
            ensure!(code == Some(0) && said.contains("~ vrrp VI_1"), "{said}{errors}");
            // Longer than a Backup with the shorter interval waits.
            sleep(Duration::from_millis(1500));
            ensure!(states() == ["active", "backup"], "{what:?}: {:?}", states());
        }
        for node in &nodes {
            let shown = node.vrrp(0);
            let vips = if what.1 { 2 } else { 1 };
            ensure!(shown["vips"].as_array().map(Vec::len) == Some(vips), "{shown}");
            ensure!(shown["advert_interval_seconds"] == what.0 as f64 / 1000.0, "{shown}");
        }
    }
    ensure!(transitions() == before, "{:?}", transitions());
    for node in &nodes {
        ensure!(!node.log().contains("two owners"), "{}", node.log());
    }
    none_lost(probe)?;
    Ok(())
}

/// Before the deadline of a drain no connection is harmed; at the deadline those that are left are reset.
/// The drain outlives a restart.
#[test]
fn a_drain_has_a_deadline_and_outlives_a_restart() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _web = lab.start_web()?;
    let (large, small) = (lab.files().ensure("1m")?, lab.files().ensure("10k")?);
    let web = text(&[ServiceText::web(&lab).scheduler("rr").persistence("50s")]);
    let lb = lab.start_pointsman(0, &web)?;
    let client = lab.client(0);
    // Some ten seconds each.
    let downloads = LoadClient::new(lab.vip_port(80), &large)
        .threads(100)
        .requests(100)
        .sources(client.sources(100))
        .verify(&large)
        .download_rate(100_000)
        .start(client.netns())?;
    let shown =
        |lb: &Pointsman| -> Result<Value> { Ok(status(lb)?["services"][0]["backends"][0].clone()) };
    let active = |lb: &Pointsman| Ok::<_, anyhow::Error>(shown(lb)?["active"].as_u64());
    wait_for("downloads", 8 * SECOND, || Ok(active(&lb)? >= Some(45)))?;
    let (code, said, errors) = command(&lab, &lb, &["drain", "rs1", "--deadline", "3s"])?;
    ensure!(code == Some(0) && said.contains("tcp-80/rs1: drained"), "{said}{errors}");
    let begin = Instant::now();
    let reason = shown(&lb)?["reason"].to_string();
    ensure!(reason.contains("operator, ") && reason.contains("s left, "), "{reason}");
    ensure!(shown(&lb)?["drain_seconds"].as_f64() <= Some(3.0), "{}", shown(&lb)?);
    let load =
        || LoadClient::new(lab.vip_port(80), &small).sources(client.sources(100)).requests(100);
    let report = load().run(client.netns())?;
    ensure!(report.failed() == 0 && report.per_backend().keys().eq(["rs2"]), "{report}");
    while begin.elapsed() < Duration::from_millis(2500) {
        ensure!(active(&lb)? >= Some(45), "{} before the deadline", shown(&lb)?);
        sleep(Duration::from_millis(100));
    }
    ensure!(shown(&lb)?["resets"] == 0, "{}", shown(&lb)?);
    let (code, said, errors) =
        command(&lab, &lb, &["drain", "rs1", "--deadline", "0s", "--wait", "5s"])?;
    ensure!(code == Some(0) && said.contains("no connection is left"), "{said}{errors}");
    ensure!(shown(&lb)?["resets"].as_u64() >= Some(45), "{}", shown(&lb)?);
    let report = downloads.finish();
    ensure!(
        report.failed() >= 45 && report.failed() <= 55,
        "those of rs1, and no others: {report}"
    );
    drop(lb);
    let lb = lab.start_pointsman(0, &web)?;
    wait_for("ready", 5 * SECOND, || Ok(shown(&lb)?["state"] == "draining"))?;
    ensure!(shown(&lb)?["operator"] == "drained", "{}", shown(&lb)?);
    let report = load().run(client.netns())?;
    ensure!(report.failed() == 0 && report.per_backend().keys().eq(["rs2"]), "{report}");
    let (code, ..) = command(&lab, &lb, &["enable", "rs1"])?;
    ensure!(code == Some(0), "{code:?}");
    // Damaged: one line of the log, and all is as in the file.
    command(&lab, &lb, &["drain", "rs1"])?;
    let kept = lab.balancer(0).dir().join("operator.json");
    wait_for("kept", SECOND, || Ok(std::fs::read_to_string(&kept)?.contains("rs1")))?;
    drop(lb);
    std::fs::write(&kept, "{\"version\":1,\"backends\":[{")?;
    let lb = lab.start_pointsman(0, &web)?;
    wait_for("ready", 5 * SECOND, || Ok(shown(&lb)?["state"] == "up"))?;
    ensure!(lb.log().matches("operator.json is damaged").count() == 1, "{}", lb.log());
    Ok(())
}

/// Clients of a backend that is drained with `--keep-sticky` come back to it; others do not.
#[test]
fn a_drain_can_leave_a_backend_its_clients() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _web = lab.start_web()?;
    let small = lab.files().ensure("10k")?;
    let web = text(&[ServiceText::web(&lab).scheduler("rr").persistence("50s")]);
    let lb = lab.start_pointsman(0, &web)?;
    let client = lab.client(0);
    let all = client.sources(40);
    let run = |sources: &[IpAddr]| {
        let load = LoadClient::new(lab.vip_port(80), &small).sources(sources.to_vec());
        load.requests(40).run(client.netns())
    };
    let before = run(&all[..20])?.backends_by_source();
    let (code, ..) = command(&lab, &lb, &["drain", "rs1", "--keep-sticky"])?;
    ensure!(code == Some(0), "{code:?}");
    ensure!(run(&all[..20])?.backends_by_source() == before, "a client was moved");
    let new = run(&all[20..])?;
    ensure!(new.failed() == 0 && new.per_backend().keys().eq(["rs2"]), "{new}");
    Ok(())
}
