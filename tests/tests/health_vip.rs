//! The way of a probe to the VIP at one backend: the product's own module, driven without the rest
//! of the node.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use control::health::{Check, CheckKind, HttpCheck, ProbeTarget, State, StatusSet};
use control::{Backend, Desired, Service};
use lab::capture::{Capture, Direction};
use lab::{Lab, NetNs};
use pointsman::clock;
use pointsman::health::{Egress, FIRST_MARK, Health, PRIORITY};
use serde_json::Value;
use tests::lifecycle::run;
use tokio::time::timeout;

/// `target = "vip"`: each probe's frames go to its own backend, nothing else is routed
/// differently, and nothing stays behind.
#[test]
fn a_probe_of_the_vip_goes_to_its_backend_and_leaves_nothing() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let mut web = lab.start_web()?;
    let lb = lab.balancer(0);
    // The strict reverse path check takes the answers, which come from the VIP.
    lb.netns().set_sysctls(&["net/ipv4/conf/all/rp_filter=1", "net/ipv4/conf/eth0/rp_filter=1"])?;
    let desired = vip_services(&lab)?;
    let ifindex = ifindex(lb.netns())?;
    let plain = || run(lb.netns(), &["ip", "route", "get", &lab.vip().to_string()]);
    let before = plain()?;
    let captures: Result<Vec<_>> = (0..2).map(|index| capture(&lab, index)).collect();

    let states = in_balancer(lb.netns(), {
        let desired = desired.clone();
        move || async move {
            let mut health = Health::new(&desired, 1, clock::now());
            set_egresss(&mut health, &desired, "eth0", ifindex);
            // Dropped as if the process had been killed: the rules stay.
            last_states(&mut health, Duration::from_millis(800)).await
        }
    })?;
    ensure!(states.len() == 4 && states.values().all(|state| *state == State::Up), "{states:?}");
    for (index, capture) in captures?.into_iter().enumerate() {
        check_frames(&lab, index, capture)?;
    }
    ensure!(rules(lb.netns())? == 4, "one rule per backend and family");
    ensure!(plain()? == before, "others are routed as before");

    // The next start removes them, and finds one of the two dead.
    web.remove(0).process().kill()?;
    let states = in_balancer(lb.netns(), move || async move {
        let mut health = Health::new(&desired, 1, clock::now());
        set_egresss(&mut health, &desired, "eth0", ifindex);
        let states = last_states(&mut health, Duration::from_millis(800)).await;
        health.close().await;
        states
    })?;
    let one = lab.backend(0);
    let killed: [IpAddr; 2] = [one.address().into(), one.address_v6().into()];
    for ((_, address), state) in &states {
        let expected = if killed.contains(address) { State::Down } else { State::Up };
        ensure!(*state == expected, "{states:?}");
    }
    ensure!(states.len() == 4, "{states:?}");
    ensure!(rules(lb.netns())? == 0, "rules are left");
    for family in ["-4", "-6"] {
        let all = run(lb.netns(), &["ip", family, "route", "show", "table", "all"])?;
        ensure!(!all.contains("proto 80"), "{all}");
    }
    ensure!(plain()? == before, "others are routed as before");
    Ok(())
}

/// The service of the first VIP in both families, checked at the VIP.
fn vip_services(lab: &Lab) -> Result<Desired> {
    let check = http(Duration::from_millis(100), Duration::from_millis(500));
    let mut check = Check { target: ProbeTarget::Vip, ..check };
    if let CheckKind::Http(http) = &mut check.kind {
        http.path = "/health".into();
    }
    let (one, two) = (lab.backend(0), lab.backend(1));
    let v4: [IpAddr; 2] = [one.address().into(), two.address().into()];
    let v6: [IpAddr; 2] = [one.address_v6().into(), two.address_v6().into()];
    let vips = [SocketAddr::new(lab.vip().into(), 80), SocketAddr::new(lab.vip_v6().into(), 80)];
    desired(vec![service("v4", vips[0], &v4, &check)?, service("v6", vips[1], &v6, &check)?])
}

fn capture(lab: &Lab, index: usize) -> Result<Capture> {
    let node = lab.backend(index);
    let file = node.dir().join("probes.pcap");
    Ok(Capture::start(lab.switch(), &node.name(), Direction::Out, "tcp dst port 80", file)?)
}

/// All frames that came to a backend were for its MAC and for the VIP, in both families.
fn check_frames(lab: &Lab, index: usize, mut capture: Capture) -> Result<()> {
    capture.settle(Duration::from_millis(200), Duration::from_secs(5))?;
    let frames = capture.finish()?;
    let mut seen = BTreeMap::new();
    for frame in &frames {
        let mac = frame.bytes.get(..6).context("a short frame")?;
        ensure!(*mac == lab.backend(index).mac(), "{:?}", frame.summary());
        let summary = frame.summary().context("a broken frame")?;
        let (_, to) = summary.addresses.context("no addresses")?;
        *seen.entry(to).or_insert(0) += 1;
    }
    println!("frames to backend {index}: {seen:?}");
    let vips: [IpAddr; 2] = [lab.vip().into(), lab.vip_v6().into()];
    ensure!(seen.len() == 2 && vips.iter().all(|vip| seen.contains_key(vip)), "{seen:?}");
    Ok(())
}

fn ifindex(netns: &NetNs) -> Result<u32> {
    let links: Value = serde_json::from_str(&run(netns, &["ip", "-j", "link", "show", "eth0"])?)?;
    let index = links[0]["ifindex"].as_u64().context("no ifindex")?;
    Ok(u32::try_from(index)?)
}

/// How many rules of the product there are.
fn rules(netns: &NetNs) -> Result<usize> {
    let (mark, priority) = (format!("fwmark {FIRST_MARK:#x}"), format!("{PRIORITY}:"));
    let mark = mark.trim_end_matches('0').to_owned();
    let mut count = 0;
    for family in ["-4", "-6"] {
        let rules = run(netns, &["ip", family, "rule"])?;
        count += rules.lines().filter(|l| l.contains(&mark) && l.starts_with(&priority)).count();
    }
    Ok(count)
}

/// Runs a task in the balancer's namespace.
fn in_balancer<T: Send + 'static, F: Future<Output = T>>(
    netns: &NetNs,
    task: impl FnOnce() -> F + Send + 'static,
) -> Result<T> {
    let thread = netns.spawn("control", move || runtime().block_on(task()))?;
    Ok(thread.join().expect("the thread ends well"))
}

/// The last state of each backend, by service and address.
async fn last_states(health: &mut Health, time: Duration) -> BTreeMap<(String, IpAddr), State> {
    let mut states = BTreeMap::new();
    let end = Instant::now() + time;
    while let Ok(verdict) =
        timeout(end.saturating_duration_since(Instant::now()), health.next()).await
    {
        println!("{}/{}: {}", verdict.service, verdict.address, verdict.transition);
        states.insert((verdict.service, verdict.address), verdict.transition.to);
    }
    states
}

/// `GET /` with `interval`, and the defaults of the configuration but for `fall = 1`.
fn http(interval: Duration, timeout: Duration) -> Check {
    Check {
        kind: CheckKind::Http(HttpCheck {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            status: StatusSet::default(),
            body: None,
            tls: None,
        }),
        interval,
        timeout,
        rise: 1,
        fall: 1,
        fast_interval: interval,
        down_interval: interval,
        jitter_percent: 10,
        starts_up: false,
        port: None,
        target: ProbeTarget::Backend,
        source: None,
        sentinel: true,
    }
}

/// A configuration with these services.
fn desired(services: Vec<Service>) -> Result<Desired> {
    Ok(Desired { services, ..any()? })
}

/// With one service.
fn any() -> Result<Desired> {
    let text = "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"x\"\nvip = \"192.0.2.1\"\n\
        protocol = \"tcp\"\nport = 80\n";
    let parsed = config::parse("health", text);
    Ok(parsed.map_err(|error| anyhow::anyhow!(error.render(false)))?.desired)
}

/// A TCP service of these backends, all checked alike.
fn service(name: &str, at: SocketAddr, backends: &[IpAddr], check: &Check) -> Result<Service> {
    let mut service = any()?.services.into_iter().next().context("no service")?;
    service.name = name.into();
    (service.vip, service.first_port, service.last_port) = (at.ip(), at.port(), at.port());
    service.health = vec![check.clone()];
    service.backends = (1..)
        .zip(backends)
        .map(|(n, address)| Backend {
            name: format!("rs{n}"),
            address: *address,
            weight: 1,
            check: control::health::CheckOverride::default(),
            drain: None,
        })
        .collect();
    Ok(service)
}

/// Says that all backends are behind one interface.
fn set_egresss(health: &mut Health, desired: &Desired, interface: &str, ifindex: u32) {
    let way = Egress { interface: Arc::from(interface), ifindex };
    for service in &desired.services {
        for backend in &service.backends {
            health.set_egress(backend.address, Some(way.clone()), clock::now());
        }
    }
}

/// The runtime of the control thread.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
