//! Requirement: a balancer whose clients are on one interface and whose backends are on another forwards as
//! one with a single interface does: without loss at nine tenths of its rate, and one interface that
//! comes, goes or changes does not disturb what passes through the other.

use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::node::Role;
use lab::{EchoResponder, Lab, Pointsman, ProbeClient, ServiceText};
use tests::lifecycle::{echo_everywhere, run, status, udp, wait_for};
use tests::two_armed::{
    Lost, Uploads, add_second_arm, connect, lost, on_second_arm, take_uploads, two_interfaces,
    upload, upload_service,
};
use tests::{close_books, measured};

/// Frames of the two paths take turns, so that other work on the machine slows both.
#[test]
fn eight_uploads_lose_nothing_on_their_way_to_the_other_interface() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    add_second_arm(&lab)?;
    take_uploads(&lab)?;
    let service = upload_service(&lab).service_toml();
    let one = format!("{}{service}", two_interfaces());
    let two = format!("{}{}", two_interfaces(), on_second_arm(&service));
    let (single, single_lost) = under_load(&lab, &one, None)?;
    let (full, full_lost) = under_load(&lab, &two, None)?;
    let (paced, paced_lost) = under_load(&lab, &two, Some(0.9 * single.rate))?;
    for (name, uploads, lost) in [
        ("one_interface", single, single_lost),
        ("two_interfaces", full, full_lost),
        ("two_interfaces_paced", paced, paced_lost),
    ] {
        measured(&format!("{name}_rate"), (uploads.rate / 1e6).round(), "MB/s", "beside");
        measured(&format!("{name}_again"), uploads.again, "segments", "beside");
        measured(&format!("{name}_lost"), format!("{lost:?}"), "frames", "0");
    }
    ensure!(full_lost.mailbox_full == 0 && paced_lost.mailbox_full == 0, "{full_lost:?}");
    ensure!(paced_lost.dropped <= single_lost.dropped, "{paced_lost:?}, one: {single_lost:?}");
    // Without a limit the transmit ring may be full for a moment.
    ensure!(full_lost.dropped * 100 <= full_lost.received, "{full_lost:?}");
    Ok(())
}

/// Frames of queues that the other interface does not have go to another thread, which may be slower
/// than they come in.
#[test]
fn with_fewer_queues_on_the_other_interface_eight_uploads_arrive() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(4).build()?;
    add_second_arm(&lab)?;
    set_queues(&lab, "1")?;
    take_uploads(&lab)?;
    let service = upload_service(&lab).service_toml();
    let one = format!("{}{service}", two_interfaces());
    let two = format!("{}{}", two_interfaces(), on_second_arm(&service));
    let (single, single_lost) = under_load(&lab, &one, None)?;
    let (paced, lost) = under_load(&lab, &two, Some(0.9 * single.rate))?;
    for (name, uploads, lost) in
        [("four_queues", single, single_lost), ("four_queues_to_one", paced, lost)]
    {
        measured(&format!("{name}_rate"), (uploads.rate / 1e6).round(), "MB/s", "beside");
        measured(&format!("{name}_again"), uploads.again, "segments", "beside");
        measured(&format!("{name}_lost"), format!("{lost:?}"), "frames", "beside");
    }
    // One thread sends what four receive: what it cannot is dropped at its mailbox, counted, and sent
    // again by the clients.
    ensure!(lost.dropped == lost.mailbox_full, "{lost:?}");
    ensure!(lost.dropped * 4 <= lost.received, "{lost:?}");
    Ok(())
}

fn under_load(lab: &Lab, config: &str, limit: Option<f64>) -> Result<(Uploads, Lost)> {
    let mut lb = lab.start_pointsman(0, config)?;
    let uploads = upload(lab, 8, 32 << 20, limit)?;
    let lost = lost(&lb);
    close_books(&lb);
    lb.process().stop(Duration::from_secs(5))?;
    Ok((uploads, lost))
}

/// Whatever becomes of `eth1`, its queue's thread goes on with `eth0`.
#[test]
fn one_interface_forwards_while_the_other_one_changes() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(2).build()?;
    add_second_arm(&lab)?;
    let (near, far) = (echo_everywhere(&lab)?, echo_far(&lab)?);
    set_queues(&lab, "1")?;
    let lb = lab.start_pointsman(0, &both_services(&lab))?;
    let [client, balancer] = [lab.client(0), lab.balancer(0)].map(|node| node.netns());
    let link = |state: &str| lab.switch().ip(&format!("link set lb1b {state}\n"));
    let queues = |count: u64| bound(&lb, "eth1", count);

    let probe = ProbeClient::start(client, (lab.vip(), 53).into(), 500)?;
    reached(&lab)?;
    set_queues(&lab, "2")?;
    wait_for("the new queue is served", LIMIT, || queues(2))?;
    balancer.ip("link set eth1 mtu 1400\n")?;
    wait_for("bound anew", LIMIT, || Ok(lb.log().matches("queue bound").count() == 2 + 4))?;
    reached(&lab)?;
    link("down")?;
    wait_for("not ready without a link", LIMIT, || Ok(!lb.ready()?))?;
    link("up")?;
    reached(&lab)?;
    lab.switch().ip("link del lb1b\n")?;
    wait_for("the loss is noticed", LIMIT, || queues(0))?;
    connect(&lab, lab.balancer(0), lab.queues())?;
    wait_for("both queues are served again", LIMIT, || queues(2))?;
    reached(&lab)?;

    let report = probe.finish();
    measured("longest_silence", format!("{:?}", report.longest_silence), "s", "beside");
    ensure!(report.outages.is_empty() && report.repeated == 0, "{report:?}");
    ensure!(near.iter().any(|echo| echo.answered() > 0), "nothing went by eth0");
    ensure!(far.iter().any(|echo| echo.answered() > 0), "nothing went by eth1");
    close_books(&lb);
    Ok(())
}

/// A queue that another program holds is tried for a while, once a second: the thread of that queue number
/// serves the other interface meanwhile.
#[test]
fn a_queue_that_another_program_holds_keeps_no_other_interface_waiting() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    add_second_arm(&lab)?;
    let (_near, _far) = (echo_everywhere(&lab)?, echo_far(&lab)?);
    let lb = lab.start_pointsman(0, &both_services(&lab))?;
    let netns = lab.balancer(0).netns();
    // Its name comes last, so that the other program is first.
    netns.ip("link set eth1 down\nlink set eth1 name held\nlink set held up\n")?;
    wait_for("the loss is noticed", LIMIT, || bound(&lb, "eth1", 0))?;
    let holder = netns.enter(|| xsk::open(&xsk::OpenConfig::new("held", 0)))??;
    netns.ip("link set held down\nlink set held name eth1\nlink set eth1 up\n")?;
    // Later attempts fail alike, and the log says so once.
    let busy = || lb.log().contains("cannot bind the queue");
    wait_for("the queue is busy", LIMIT, || Ok(busy()))?;
    let (begin, mut late) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(4) {
        late += u32::from(!asked(&lab, 53)?);
        sleep(Duration::from_millis(2));
    }
    measured("late_answers", late, "answers", "<=1");
    ensure!(bound(&lb, "eth1", 0)?, "the other program holds the queue");
    ensure!(late <= 1, "{late} answers came late");
    drop(holder);
    wait_for("eth1 is served", LIMIT, || bound(&lb, "eth1", 1))?;
    reached(&lab)
}

/// Port 53 goes by `eth0`, port 5353 by `eth1`.
fn both_services(lab: &Lab) -> String {
    let near = udp(lab).service_toml();
    let far = on_second_arm(&ServiceText::web(lab).udp().port(FAR).service_toml());
    format!("{}{near}{far}", two_interfaces())
}

fn echo_far(lab: &Lab) -> Result<Vec<EchoResponder>> {
    let target = (lab.vip(), FAR).into();
    let backends = lab.nodes_of(Role::Backend);
    backends.map(|node| Ok(EchoResponder::start(node.netns(), target)?)).collect()
}

/// Waits until a client is answered by way of `eth1`.
fn reached(lab: &Lab) -> Result<()> {
    wait_for("an answer by way of eth1", LIMIT, || asked(lab, FAR)).map(drop)
}

/// Whether a datagram to the VIP is answered.
fn asked(lab: &Lab, port: u16) -> Result<bool> {
    let target = SocketAddr::from((lab.vip(), port));
    let ask = || -> Result<bool> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.send_to(b"question", target)?;
        Ok(socket.recv(&mut [0; 64]).is_ok())
    };
    lab.client(0).netns().enter(ask)?
}

/// Whether so many queues of an interface have a socket.
fn bound(lb: &Pointsman, interface: &str, count: u64) -> Result<bool> {
    let status = status(lb)?;
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    let found = interfaces.iter().find(|found| found["name"] == interface);
    Ok(found.context("not there")?["queues_bound"] == count)
}

/// A veth with an XDP program must not have fewer receive queues than its peer sends from.
fn set_queues(lab: &Lab, count: &str) -> Result<()> {
    let own = || run(lab.balancer(0).netns(), &["ethtool", "-L", "eth1", "rx", count]);
    let peer = || run(lab.switch(), &["ethtool", "-L", "lb1b", "tx", count]);
    if count == "1" {
        peer()?;
        own()?;
    } else {
        own()?;
        peer()?;
    }
    Ok(())
}

const FAR: u16 = 5353;
const LIMIT: Duration = Duration::from_secs(10);
