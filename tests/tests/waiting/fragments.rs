//! Requirement: datagrams of 1,400 to 60,000 bytes reach one backend whole, over IPv4 and IPv6, on one
//! queue and on four, without persistence and beside other services of the VIP, in any order; a flood
//! of fragments without a beginning costs established connections nothing, and other datagrams little.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{EchoResponder, Lab, LoadClient, Pointsman, ServiceText};
use tests::lifecycle::{SMALL, named, status};
use tests::raw::{Fields, Packet, RawSender};
use tests::{assert_all_done, close_books, measured, patient, received};

/// Without persistence, in turn.
const SCATTERED: u16 = 7001;
/// With persistence, on the same VIP.
const PERSISTENT: u16 = 7002;
const SIZES: [usize; 7] = [1_400, 1_473, 2_000, 4_000, 9_000, 20_000, 60_000];
const SOCKETS: usize = 24;

#[test]
fn large_datagrams_arrive_whole() -> Result<()> {
    for queues in [1, 4] {
        let lab = Lab::builder().backends(3).queues(queues).build()?;
        let _echo = echoes(&lab)?;
        let lb = lab.start_pointsman(0, &services(&lab))?;
        for vip in [IpAddr::V4(lab.vip()), IpAddr::V6(lab.vip_v6())] {
            for port in [SCATTERED, PERSISTENT] {
                let equal = lab.client(0).netns().enter(|| exchange((vip, port).into()))??;
                let all = SOCKETS * SIZES.len();
                measured("large_datagrams_lost", all - equal, "datagrams", "=0");
                ensure!(equal == all, "{vip} port {port}, {queues} queues: {equal}\n{}", lb.log());
            }
        }
        let disordered = disordered(&lab)?;
        measured("datagrams_in_disorder_lost", 2 * SOCKETS - disordered, "datagrams", "=0");
        ensure!(disordered == 2 * SOCKETS, "{queues} queues: {disordered}\n{}", lb.log());
        let books = close_books(&lb);
        ensure!(dropped_fragments(&lb)? == 0, "fragments were dropped");
        let used = received(&books).into_iter().filter(|&frames| frames > 0).count();
        measured("queues_with_fragments", used, "queues", &format!("<={queues}"));
    }
    Ok(())
}

#[test]
fn a_flood_of_fragments_harms_no_connection() -> Result<()> {
    let lab = Lab::builder().backends(3).queues(2).build()?;
    let (_web, _echo) = (lab.start_web()?, echoes(&lab)?);
    let text = services(&lab) + &ServiceText::web(&lab).service_toml();
    let lb = lab.start_pointsman(0, &text)?;
    let file = lab.files().ensure("1k")?;
    let load = LoadClient::new(lab.vip_port(80), &file).threads(20).kept().rate(500.0);
    let load = patient(load).duration(Duration::from_secs(3)).start(lab.client(0).netns())?;
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| -> Result<usize> {
        let flood = scope.spawn(|| flood(&lab, &stop));
        let begin = Instant::now();
        let (mut equal, mut all) = (0, 0);
        while begin.elapsed() < Duration::from_secs(3) {
            let target = (lab.vip(), SCATTERED).into();
            equal += lab.client(0).netns().enter(|| exchange(target))??;
            all += SOCKETS * SIZES.len();
        }
        stop.store(true, Relaxed);
        let limit = all / 20;
        measured("lost_during_the_flood", all - equal, "datagrams", &format!("<={limit} of {all}"));
        ensure!(all - equal <= limit, "{equal} of {all} came through");
        flood.join().map_err(|_| anyhow::anyhow!("the flood failed"))
    })?;
    let report = load.finish();
    assert_all_done(&report, &lb);
    close_books(&lb);
    let dropped = dropped_fragments(&lb)?;
    measured("fragments_of_the_flood", sent, "frames", ">10000");
    ensure!(sent > 10_000 && dropped > sent / 2, "{dropped} of {sent} were dropped for it");
    Ok(())
}

fn services(lab: &Lab) -> String {
    let of = |base: &ServiceText, suffix: &str| {
        let scattered = base.clone().udp().port(SCATTERED).scheduler("rr");
        let persistent = base.clone().udp().port(PERSISTENT).scheduler("rr").persistence("50s");
        scattered.name(&format!("scattered{suffix}")).service_toml()
            + &persistent.name(&format!("persistent{suffix}")).service_toml()
    };
    let (v4, v6) = (ServiceText::web(lab), ServiceText::web_v6(lab));
    format!("[[interface]]\nname = \"eth0\"\n{SMALL}{}{}", of(&v4, ""), of(&v6, "6"))
}

fn echoes(lab: &Lab) -> Result<Vec<EchoResponder>> {
    let mut echoes = Vec::new();
    for backend in lab.nodes_of(lab::node::Role::Backend) {
        for vip in [IpAddr::V4(lab.vip()), IpAddr::V6(lab.vip_v6())] {
            for port in [SCATTERED, PERSISTENT] {
                echoes.push(EchoResponder::start(backend.netns(), (vip, port).into())?);
            }
        }
    }
    Ok(echoes)
}

/// Every size from every socket: how many came back as they were sent.
fn exchange(to: SocketAddr) -> Result<usize> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let mut equal = 0;
    for _ in 0..SOCKETS {
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        for size in SIZES {
            let content: Vec<u8> = (0..=250).cycle().take(size).collect();
            socket.send_to(&content, to)?;
            equal += usize::from(comes_back(&socket, &content));
        }
    }
    Ok(equal)
}

fn comes_back(socket: &UdpSocket, content: &[u8]) -> bool {
    let mut buffer = vec![0; 65_535];
    socket.recv(&mut buffer).is_ok_and(|len| buffer[..len] == *content)
}

/// Datagrams whose fragments are sent last to first, or the first one last: how many came back.
fn disordered(lab: &Lab) -> Result<usize> {
    let client = lab.client(0);
    let raw = RawSender::open(client.netns());
    let content: Vec<u8> = (0..=250).cycle().take(9_000).collect();
    let own = [IpAddr::V4(client.address()), IpAddr::V6(client.address_v6())];
    let mut equal = 0;
    for (own, vip) in own.into_iter().zip([IpAddr::V4(lab.vip()), IpAddr::V6(lab.vip_v6())]) {
        for number in 0..SOCKETS {
            let socket = client.netns().enter(|| UdpSocket::bind((own, 0)))??;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            let from = socket.local_addr()?;
            let to = (vip, SCATTERED).into();
            let id = u16::try_from(0x7000 + number)?;
            let packet = Packet::udp(from, to, Fields::default(), &content);
            let mut fragments = packet.fragments(id, 1_400);
            if number % 2 == 0 {
                fragments.reverse();
            } else {
                fragments.rotate_left(1);
            }
            fragments.iter().for_each(|fragment| raw.send(fragment));
            equal += usize::from(comes_back(&socket, &content));
        }
    }
    Ok(equal)
}

/// Last fragments of datagrams that have no beginning, from many sources; how many.
fn flood(lab: &Lab, stop: &AtomicBool) -> usize {
    let raw = RawSender::open(lab.client(0).netns());
    let content = [0x5a; 64];
    let strays: Vec<Packet> = (0..10_000_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let from = SocketAddr::from(([10, 77, 100 + high % 100, low], 4000 + number));
            let to = (lab.vip(), SCATTERED).into();
            let packet = Packet::udp(from, to, Fields::default(), &content);
            packet.fragments(number + 1, 40).pop().expect("two fragments")
        })
        .collect();
    let mut sent = 0;
    while !stop.load(Relaxed) {
        for at in sent..sent + 100 {
            raw.send(&strays[at % strays.len()]);
        }
        sent += 100;
        std::thread::sleep(Duration::from_millis(1));
    }
    sent
}

fn dropped_fragments(lb: &Pointsman) -> Result<usize> {
    let status = status(lb).context("the status")?;
    let dropped = ["fragment", "fragment_full"].map(|reason| named(&status["dropped"], reason));
    Ok(usize::try_from(dropped.iter().sum::<u64>())?)
}
