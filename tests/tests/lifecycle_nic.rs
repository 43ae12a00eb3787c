//! The network card changes under a running balancer: more queues, no link, no device.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::net::{SocketAddr, UdpSocket};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{EchoResponder, Lab, Node, Pointsman, ProbeClient};
use tests::close_books;
use tests::lifecycle::{
    attached, config, detach, echo_everywhere, make_mtu_too_large, named, number, outcome, run,
    runs, status, udp, wait_for,
};

#[test]
fn queues_that_are_added_are_served_and_none_is_taken_away() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(4).build()?;
    let mut bypassed = 0;
    for _ in 0..runs(2) {
        set_queues(&lab, 1)?;
        let mut lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
        ensure!(queues(&lb)? == [1, 1, 1], "{:?}", queues(&lb)?);
        let spray = Spray::start(&lab)?;
        for count in [2, 4] {
            set_queues(&lab, count)?;
            let took = wait_for("all queues served", Duration::from_secs(5), || {
                Ok(queues(&lb)? == [count; 3])
            })?;
            println!("{count} queues served after {took:?}");
            ensure!(took <= Duration::from_secs(2), "{took:?}");
            ensure!(lb.ready()?, "not ready: {}", lb.http("/readyz")?.1);
        }
        shrinking_is_refused(&lab, &lb)?;
        sleep(Duration::from_millis(300));
        let before = each_received(&lb)?;
        sleep(Duration::from_millis(300));
        let after = each_received(&lb)?;
        ensure!(
            after.len() == 4 && after.iter().zip(&before).all(|(after, before)| after > before),
            "a queue gets nothing: {before:?} {after:?}"
        );
        // A veth does not run the program on a new queue before it is told to: until then frames
        // bypass the program itself.
        bypassed += spray.finish(&lb, 25)?;
        close_books(&lb);
        lb.process().stop(Duration::from_secs(5))?;
    }
    ensure!(bypassed > 0, "what came before a socket was bound was not counted");
    Ok(())
}

/// Queues without a TX queue of their number, as virtio-net adds them for XDP.
#[test]
fn with_fewer_tx_than_rx_queues_nothing_is_lost() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(4).build()?;
    let echo = echo_everywhere(&lab)?;
    let set_tx =
        |count: &str| run(lab.balancer(0).netns(), &["ethtool", "-L", "eth0", "tx", count]);
    set_tx("1")?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    ensure!(packet_sockets(&lb)? == [false, true, true, true], "{:?}", packet_sockets(&lb)?);
    all_are_answered(&lab, 400)?;
    set_tx("4")?;
    wait_for("TX queues are used", Duration::from_secs(2), || {
        Ok(packet_sockets(&lb)? == [false; 4])
    })?;
    all_are_answered(&lab, 400)?;
    ensure!(answered(&echo) == 800, "{} answered", answered(&echo));
    ensure!(each_received(&lb)?.iter().all(|count| *count > 50), "{:?}", each_received(&lb)?);
    let sockets = &status(&lb)?["workers"];
    for worker in sockets.as_array().into_iter().flatten() {
        for counter in ["tx_full", "tx_dropped", "tx_unsent", "tx_invalid"] {
            ensure!(named(&worker["socket"], counter) == 0, "{counter}: {worker:#}");
        }
    }
    close_books(&lb);
    Ok(())
}

/// Queues that the configuration leaves out are not served, and what arrives there is counted.
#[test]
fn queues_that_are_left_out_may_go_and_are_counted() -> Result<()> {
    let lab = Lab::builder().backends(1).queues(4).build()?;
    // Questions for the VIP's MAC may come to any queue.
    let mac = lab.balancer(0).mac().map(|byte| format!("{byte:02x}")).join(":");
    lab.client(0).netns().ip(&format!("neigh add {} lladdr {mac} dev eth0\n", lab.vip()))?;
    let text = config(&udp(&lab)).replace("name = \"eth0\"", "name = \"eth0\"\nqueues = [0]");
    let lb = lab.start_pointsman(0, &text)?;
    ensure!(queues(&lb)? == [4, 1, 1], "{:?}", queues(&lb)?);
    let spray = Spray::start(&lab)?;
    sleep(Duration::from_millis(500));
    set_queues(&lab, 2)?;
    wait_for("the count is followed", Duration::from_secs(2), || Ok(queues(&lb)? == [2, 1, 1]))?;
    sleep(Duration::from_millis(200));
    // As long as they keep coming, clients are lost.
    let refused = || Ok(lb.http("/readyz")?.1.contains("on queues without a socket"));
    wait_for("not ready while frames are unbound", Duration::from_secs(5), refused)?;
    ensure!(spray.finish(&lb, 10)? > 0, "nothing was counted as unbound");
    wait_for("ready again", Duration::from_secs(3), || Ok(lb.ready()?))?;
    close_books(&lb);
    Ok(())
}

/// The driver of a macvlan does not tell how many queues it has.
#[test]
fn all_queues_of_a_macvlan_are_served() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(4).build()?;
    let _echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &on_macvlan(&lab, 4)?)?;
    ensure!(queues(&lb)? == [4; 3], "{:?}", queues(&lb)?);
    all_are_answered(&lab, 400)?;
    let status = status(&lb)?;
    ensure!(outcome(&status, "unbound") == 0, "{:#}", status["interfaces"]);
    let used = each_received(&lb)?.iter().filter(|count| **count > 0).count();
    ensure!(used >= 2, "{:?}", each_received(&lb)?);
    close_books(&lb);
    Ok(())
}

/// A queue below that hardly sends keeps what it is given: no call fails, and nothing comes back.
#[test]
fn transmissions_that_never_complete_are_noticed() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let echo = echo_everywhere(&lab)?;
    let node = lab.balancer(0);
    // What is watched is what workers send.
    let own = "[dataplane]\nfast_path = \"off\"\n";
    let config = on_macvlan(&lab, 1)?.replacen("[dataplane]\n", own, 1);
    let lb = lab.start_pointsman(0, &config)?;
    ensure!(packet_sockets(&lb)? == [false], "{}", lb.log());
    let slow = ["tbf", "rate", "8bit", "burst", "1600", "limit", "10000000"];
    let qdisc = |what, more: &[&str]| {
        run(node.netns(), &[&["tc", "qdisc", what, "dev", "eth0", "root"], more].concat())
    };
    qdisc("add", &slow)?;
    let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
    let noticed = || Ok(lb.log().contains("what is sent does not leave"));
    let took = wait_for("noticed", Duration::from_secs(10), noticed);
    qdisc("del", &[])?;
    println!("noticed after {:?}", took?);
    wait_for("sent by a packet socket", Duration::from_secs(10), || {
        Ok(packet_sockets(&lb)? == [true])
    })?;
    ensure!(named(&status(&lb)?["workers"][0]["socket"], "tx_unsent") > 0, "not counted");
    wait_for("ready again", Duration::from_secs(10), || Ok(lb.ready()?))?;
    goes_on(&echo, answered(&echo))?;
    drop(probe);
    Ok(())
}

#[test]
fn a_link_that_comes_back_forwards_within_a_second() -> Result<()> {
    let lab = Lab::builder().backends(1).queues(2).build()?;
    let echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    let netns = lab.balancer(0).netns();
    for round in 0..runs(5) {
        let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
        sleep(Duration::from_millis(200));
        // First the interface itself, then, as a pulled cable does, its other end.
        let set = |state: &str| -> Result<()> {
            match round % 2 {
                0 => netns.ip(&format!("link set eth0 {state}\n"))?,
                _ if state == "down" => lab.unplug(lab.balancer(0))?,
                _ => lab.plug(lab.balancer(0))?,
            }
            Ok(())
        };
        set("down")?;
        wait_for("not ready without a link", Duration::from_secs(1), || Ok(!lb.ready()?))?;
        let (_, why) = lb.http("/readyz")?;
        let expected = if round % 2 == 0 { "eth0 is down" } else { "eth0 has no link" };
        ensure!(why.contains(&format!("interface {expected}")), "{why}");
        sleep(Duration::from_millis(200));
        let (up, answered) = (probe.elapsed(), answered(&echo));
        set("up")?;
        goes_on(&echo, answered)?;
        let report = probe.finish();
        let back = after(&report.outages, up)?;
        println!("forwarding {back:?} after the link came up");
        ensure!(back <= Duration::from_secs(1), "{back:?} {report:?}");
        ensure!(lb.ready()?, "not ready: {}", lb.http("/readyz")?.1);
    }
    close_books(&lb);
    Ok(())
}

#[test]
fn a_device_that_is_made_anew_is_taken_up_and_flows_are_kept() -> Result<()> {
    // One queue: the new device may hash the flow to another one, where it is entered anew.
    let lab = Lab::builder().backends(2).build()?;
    let echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab).scheduler("rr")))?;
    let mut seen_before = 0;
    for _ in 0..runs(4) {
        let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
        sleep(Duration::from_millis(200));
        let connections = connections(&lb)?;
        lab.switch().ip("link del lb1\n")?;
        wait_for("the loss is noticed", Duration::from_secs(1), || Ok(!lb.ready()?))?;
        let (_, why) = lb.http("/readyz")?;
        ensure!(why.contains("interface eth0 does not exist"), "{why}");
        sleep(Duration::from_millis(200));
        let answered = answered(&echo);
        make_device(&lab, lab.balancer(0))?;
        let made = probe.elapsed();
        goes_on(&echo, answered)?;
        let report = probe.finish();
        let back = after(&report.outages, made)?;
        println!("forwarding {back:?} after the device was there again");
        ensure!(back <= Duration::from_secs(3), "{back:?} {report:?}");
        wait_for("it is ready again", Duration::from_secs(1), || Ok(lb.ready()?))?;
        let now = self::connections(&lb)?;
        ensure!(now == connections, "the flow was entered anew: {connections} → {now}");
        let seen = outcome(&status(&lb)?, "redirected");
        ensure!(seen > seen_before, "the counter went back: {seen_before} → {seen}");
        seen_before = seen;
    }
    let bindings = lb.log().matches("queue bound").count();
    let devices = 1 + usize::try_from(runs(4))?;
    ensure!(bindings == devices, "{bindings} bindings of {devices} devices");
    let found = attached(lab.balancer(0))?;
    ensure!(found.contains(" 1 AF_XDP"), "sockets of gone devices: {found}");
    close_books(&lb);
    Ok(())
}

/// Nothing notifies of it, and on a quiet interface nothing else would show it.
#[test]
fn a_program_that_somebody_detached_is_attached_anew() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    for time in 1..=2 {
        detach(lab.balancer(0))?;
        let attached_anew = || Ok(lb.log().matches("queue bound").count() > time);
        wait_for("attached anew", Duration::from_secs(2), attached_anew)?;
        wait_for("ready again", Duration::from_secs(2), || Ok(lb.ready()?))?;
        let answered = answered(&echo);
        let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
        goes_on(&echo, answered)?;
        drop(probe);
    }
    // No slower mode, in which a veth loses VLAN tags.
    ensure!(!lb.log().contains("generic"), "{}", lb.log());
    Ok(())
}

/// What cannot be used is tried again every second; the log says once why.
#[test]
fn what_cannot_be_used_is_named_once() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let node = lab.balancer(0);
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    make_mtu_too_large(&lab)?;
    wait_for("not ready", Duration::from_secs(3), || Ok(!lb.ready()?))?;
    sleep(Duration::from_secs(3));
    ensure!(lb.log().matches("cannot bind the queue").count() == 1, "{}", lb.log());
    ensure!(lb.http("/readyz")?.1.contains("MTU 9000"), "{}", lb.http("/readyz")?.1);
    node.netns().ip("link set eth0 mtu 1500\n")?;
    wait_for("ready again", Duration::from_secs(5), || Ok(lb.ready()?))?;
    Ok(())
}

/// To another network namespace and back, as containers are given theirs: name and index are what they
/// were, the program is still attached, but the kernel took the sockets off.
#[test]
fn a_device_that_went_and_came_back_unnoticed_is_served_again() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let echo = echo_everywhere(&lab)?;
    let node = lab.balancer(0);
    let there_and_back = || -> Result<()> {
        node.netns().ip(&format!("link set eth0 netns {}\n", lab.switch().name()))?;
        lab.switch().ip(&format!("link set eth0 netns {}\n", node.netns().name()))?;
        set_up(node)
    };
    // On its first way it gets an index that is free in both.
    there_and_back()?;
    let index = || -> Result<String> {
        let link = run(node.netns(), &["ip", "-o", "link", "show", "dev", "eth0"])?;
        Ok(link.split(':').next().unwrap_or_default().to_owned())
    };
    let index_before = index()?;
    let offloads = || run(node.netns(), &["ethtool", "-k", "eth0"]);
    let before = offloads()?;
    let mut lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    lb.process().pause()?;
    there_and_back()?;
    ensure!(index()? == index_before, "the test does not test: another index");
    lb.process().resume()?;
    let bound = || Ok(lb.log().matches("queue bound").count() == 2);
    wait_for("bound anew", Duration::from_secs(2), bound)?;
    wait_for("ready again", Duration::from_secs(5), || Ok(lb.ready()?))?;
    let answered = answered(&echo);
    let _probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
    goes_on(&echo, answered)?;
    lb.process().stop(Duration::from_secs(5))?;
    let after = offloads()?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

/// Sets the receive queues of the balancer, and as many transmit queues of the switch's port: a
/// veth hands a packet to the queue that it was sent from.
fn set_queues(lab: &Lab, count: u64) -> Result<()> {
    let count = count.to_string();
    // A veth with an XDP program must not have fewer receive queues than its peer sends from.
    let own = || run(lab.balancer(0).netns(), &["ethtool", "-L", "eth0", "rx", &count]);
    let peer = || run(lab.switch(), &["ethtool", "-L", "lb1", "tx", &count]);
    // Growing: first the receiver; shrinking: first the sender.
    if own().is_ok() && peer().is_ok() {
        return Ok(());
    }
    peer()?;
    own().map(drop)
}

/// The kernel does not take a queue away from a socket.
fn shrinking_is_refused(lab: &Lab, lb: &Pointsman) -> Result<()> {
    run(lab.switch(), &["ethtool", "-L", "lb1", "tx", "2"])?;
    let refused = run(lab.balancer(0).netns(), &["ethtool", "-L", "eth0", "rx", "2"]);
    ensure!(refused.is_err(), "the kernel took bound queues away");
    run(lab.switch(), &["ethtool", "-L", "lb1", "tx", "4"])?;
    sleep(Duration::from_millis(600));
    ensure!(lb.ready()? && queues(lb)? == [4; 3], "{:?}", queues(lb)?);
    Ok(())
}

/// RX queues of the device, wanted, bound.
fn queues(lb: &Pointsman) -> Result<[u64; 3]> {
    let status = status(lb)?;
    let count = |name: &str| number(&status["interfaces"][0], &format!("/{name}"));
    Ok([count("queues")?, count("queues_wanted")?, count("queues_bound")?])
}

/// Datagrams for the VIP from ever new ports, so that all queues get some; to a port without a
/// service, so that nothing comes back.
#[derive(Debug)]
struct Spray {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Spray {
    fn start(lab: &Lab) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, target) = (Arc::clone(&stop), SocketAddr::new(lab.vip().into(), 54));
        let body = move || -> Result<u64> {
            let mut sent = 0;
            while !flag.load(Relaxed) {
                UdpSocket::bind("0.0.0.0:0")?.send_to(b"spray", target)?;
                sent += 1;
                sleep(Duration::from_millis(1));
            }
            Ok(sent)
        };
        Ok(Self { stop, thread: lab.client(0).netns().spawn("spray", body)? })
    }

    /// Ends it; how many datagrams were counted as having bypassed the sockets. At most `missed` of
    /// a hundred may not have been counted at all.
    fn finish(self, lb: &Pointsman, missed: u64) -> Result<u64> {
        self.stop.store(true, Relaxed);
        let sent = self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        sleep(Duration::from_millis(100));
        let status = status(lb)?;
        let [unbound, redirected] = ["unbound", "redirected"].map(|name| outcome(&status, name));
        println!("{sent} sent, {redirected} redirected, {unbound} unbound");
        // A question for the VIP's MAC may have bypassed the sockets, too.
        ensure!(redirected + unbound <= sent + 5, "counted more than was sent");
        ensure!(redirected + unbound >= sent - sent * missed / 100, "too many were not counted");
        Ok(unbound)
    }
}

/// Whether each queue's frames leave by a packet socket.
fn packet_sockets(lb: &Pointsman) -> Result<Vec<bool>> {
    let status = status(lb)?;
    let workers = status["workers"].as_array().context("no workers")?;
    Ok(workers.iter().map(|worker| worker["packet_socket"] == true).collect())
}

/// Sends datagrams from so many ports, and wants an answer to each.
fn all_are_answered(lab: &Lab, count: u32) -> Result<()> {
    let target = SocketAddr::new(lab.vip().into(), 53);
    let body = move || -> Result<u32> {
        let mut answered = 0;
        for number in 0..count {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.send_to(&number.to_be_bytes(), target)?;
            answered += u32::from(socket.recv(&mut [0; 64]).is_ok());
        }
        Ok(answered)
    };
    let thread = lab.client(0).netns().spawn("questions", body)?;
    let answered = thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
    ensure!(answered == count, "{answered} of {count} answered");
    Ok(())
}

fn each_received(lb: &Pointsman) -> Result<Vec<u64>> {
    let status = status(lb)?;
    let workers = status["workers"].as_array().context("no workers")?;
    let of = |worker: &serde_json::Value| {
        anyhow::Ok(number(worker, "/counters/received")? + number(worker, "/fast_path")?)
    };
    workers.iter().map(of).collect()
}

/// Flows entered so far, on all backends.
fn connections(lb: &Pointsman) -> Result<u64> {
    let status = status(lb)?;
    let backends = status["services"][0]["backends"].as_array().context("no backends")?;
    backends.iter().map(|backend| number(backend, "/connections")).sum()
}

/// Probes that the backends have answered.
fn answered(echo: &[EchoResponder]) -> u64 {
    echo.iter().map(EchoResponder::answered).sum()
}

/// Waits until a backend answers again, and half a second more: it must go on.
fn goes_on(echo: &[EchoResponder], before: u64) -> Result<()> {
    wait_for("an answer", Duration::from_secs(5), || Ok(answered(echo) > before))?;
    sleep(Duration::from_millis(500));
    Ok(())
}

/// How long after `mark` the last outage ended.
fn after(outages: &[lab::probe::Outage], mark: Duration) -> Result<Duration> {
    let last = outages.last().context("there was no outage")?;
    Ok((last.begin + last.length).saturating_sub(mark))
}

/// Gives the balancer a macvlan with so many queues in the place of its card; a configuration for it.
fn on_macvlan(lab: &Lab, queues: u8) -> Result<String> {
    let node = lab.balancer(0);
    node.netns().ip(&format!(
        "link set eth0 promisc on\naddr flush dev eth0\n\
         link add mv0 link eth0 numrxqueues {queues} type macvlan mode private\nlink set mv0 up\n\
         addr add {}/16 dev mv0\n",
        node.address()
    ))?;
    Ok(config(&udp(lab)).replace("name = \"eth0\"", "name = \"mv0\""))
}

/// The balancer's link, as the lab made it.
fn make_device(lab: &Lab, node: &Node) -> Result<()> {
    let mac = node.mac().map(|byte| format!("{byte:02x}")).join(":");
    let queues = lab.queues();
    lab.switch().ip(&format!(
        "link add lb1 numtxqueues {queues} numrxqueues {queues} type veth peer name eth0 \
         address {mac} numtxqueues {queues} numrxqueues {queues} netns {}\n\
         link set lb1 master br0 up\n",
        node.netns().name()
    ))?;
    if lab::fast_path::is_on() {
        lab::fast_path::receive(lab.switch(), "lb1", node.dir())?;
    }
    set_up(node)
}

/// Its addresses, which went with the device.
fn set_up(node: &Node) -> Result<()> {
    node.netns().ip(&format!(
        "addr add {}/16 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n",
        node.address(),
        node.address_v6()
    ))?;
    Ok(())
}
