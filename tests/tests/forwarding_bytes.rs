//! Requirement: of 10,000 packets captured on both sides of the balancer, all bytes are equal but
//! the two MAC addresses; downloads of 1 B, 50 KB, 100 KB and 100 MB have the SHA-256 of the file.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
    time::Duration,
};

use lab::{
    Capture, Direction, Lab, LoadClient, NetNs, Pointsman, ServiceText,
    node::Role,
    pcap::{Comparison, Frame, compare},
};
use tests::{
    assert_all_done, close_books, forwarded, measured, patient,
    raw::{Fields, Packet, RawSender},
};

#[test]
fn ten_thousand_packets_keep_all_bytes_but_the_two_macs() {
    let lab = Lab::builder().backends(2).queues(4).build().unwrap();
    let _web = lab.start_web().unwrap();
    let sinks: Vec<_> = lab.nodes_of(Role::Backend).map(|node| sink(node.netns())).collect();
    let upload = |text: ServiceText| text.port(UPLOAD).service_toml();
    let datagrams = |text: ServiceText| text.udp().port(DATAGRAMS).service_toml();
    let (v4, v6) = (ServiceText::web(&lab), ServiceText::web_v6(&lab).name("web6"));
    let named = |name| ServiceText::web_v6(&lab).name(name);
    let config = [
        v4.to_toml(),
        v6.service_toml(),
        upload(v4.clone()),
        upload(named("upload6")),
        datagrams(v4),
        datagrams(named("datagrams6")),
    ];
    let lb = lab.start_pointsman(0, &config.concat()).unwrap();

    let (mut before, mut behind) = captures(&lab);
    requests(&lab, &lb);
    uploads(&lab);
    odd_datagrams(&lab);
    // The last FINs and ACKs are still on their way.
    let (quiet, limit) = (Duration::from_millis(300), Duration::from_secs(20));
    before.settle(quiet, limit).unwrap();
    behind.iter_mut().for_each(|capture| capture.settle(quiet, limit).unwrap());
    let before = before.finish().unwrap();
    let behind: Vec<Vec<Frame>> =
        behind.into_iter().map(|capture| capture.finish().unwrap()).collect();

    let all = compare(&before, &behind.concat());
    let full = before.iter().filter(|frame| frame.length >= 1500).count();
    let options = before.iter().filter(|frame| frame.bytes[14] > 0x45 && frame.bytes[14] < 0x50);
    let options = options.count();
    measured("packets_equal_but_for_macs", all.equal, "packets", ">=10000");
    measured("packets_that_differ_or_miss", all.only_first + all.only_second, "packets", "0");
    measured("packets_of_full_size", full, "packets", ">=2000");
    measured("packets_with_ip_options", options, "packets", ">=500");
    let expected = Comparison { equal: before.len(), ..Comparison::default() };
    assert_eq!(all, expected);
    assert!(before.len() >= 10_000 && full >= 2_000 && options >= 500);
    macs(&lab, &before, &behind);
    let books = close_books(&lb);
    assert_eq!(forwarded(&books), before.len() as u64);
    drop(sinks);
}

#[test]
fn downloads_have_the_hash_of_the_file() {
    let lab = Lab::builder().backends(2).queues(4).build().unwrap();
    let _web = lab.start_web().unwrap();
    let config =
        ServiceText::web(&lab).to_toml() + &ServiceText::web_v6(&lab).name("web6").service_toml();
    let lb = lab.start_pointsman(0, &config).unwrap();
    let v6 = SocketAddr::new(lab.vip_v6().into(), 80);
    for (name, count, count_v6) in
        [("1b", 200, 200), ("50k", 200, 200), ("100k", 200, 200), ("100m", 1, 1)]
    {
        let file = lab.files().ensure(name).unwrap();
        let client = lab.client(0);
        let paths = [
            ("v4", lab.vip_port(80), client.sources(20), count),
            ("v6", v6, client.sources_v6(20), count_v6),
        ];
        for (family, target, sources, count) in paths {
            let load = LoadClient::new(target, &file).verify(&file).threads(4).sources(sources);
            let report = patient(load).requests(count).run(client.netns()).unwrap();
            assert_all_done(&report, &lb);
            assert_eq!(report.bytes(), count * file.length);
            let what = format!("equal_sha256_{name}_ip{family}");
            measured(&what, report.done(), "downloads", &format!("={count}"));
        }
    }
    close_books(&lb);
}

/// At the switch's port to the balancer, and at each backend: only what goes to a VIP.
fn captures(lab: &Lab) -> (Capture, Vec<Capture>) {
    let (v4, v6) = (lab.vip(), lab.vip_v6());
    let filter = format!("ip dst host {v4} or (ip6 dst host {v6} and not icmp6)");
    let start = |ns: &NetNs, port: &str, direction, file| {
        Capture::start(ns, port, direction, &filter, file).unwrap()
    };
    let lb = lab.balancer(0);
    let before = start(lab.switch(), &lb.name(), Direction::Out, lb.dir().join("before.pcap"));
    let behind = lab
        .nodes_of(Role::Backend)
        .map(|node| start(node.netns(), "eth0", Direction::In, node.dir().join("behind.pcap")));
    (before, behind.collect())
}

/// Small requests: handshakes, acknowledgements, FINs.
fn requests(lab: &Lab, lb: &Pointsman) {
    let file = lab.files().ensure("1b").unwrap();
    let client = lab.client(0);
    let v6 = SocketAddr::new(lab.vip_v6().into(), 80);
    for (target, sources) in [(lab.vip_port(80), client.sources(50)), (v6, client.sources_v6(50))] {
        let load = LoadClient::new(target, &file).threads(4).sources(sources).requests(400);
        let report = patient(load).run(client.netns()).unwrap();
        assert_all_done(&report, lb);
    }
}

/// 4 MB in one connection each: frames as large as the MTU.
fn uploads(lab: &Lab) {
    for vip in [IpAddr::V4(lab.vip()), IpAddr::V6(lab.vip_v6())] {
        let got = lab.client(0).netns().enter(|| {
            let mut stream = TcpStream::connect((vip, UPLOAD)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let piece: Vec<u8> = (0..=255).collect();
            (0..UPLOAD_BYTES / 256).for_each(|_| stream.write_all(&piece).unwrap());
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            reply
        });
        assert_eq!(got.unwrap(), UPLOAD_BYTES.to_string());
    }
}

/// Datagrams of every length, with options, DSCP, hop limits and flow labels of all kinds.
fn odd_datagrams(lab: &Lab) {
    let raw = RawSender::open(lab.client(0).netns());
    let (v4, v6) = (lab.client(0).sources(200), lab.client(0).sources_v6(200));
    for n in 0..3_000_u32 {
        let pick = usize::try_from(n % 200).unwrap();
        let byte = |n: u32| u8::try_from(n % 251).unwrap();
        // At most 1,420 bytes: 40 bytes of options more still fit the MTU.
        let payload: Vec<u8> = (0..n * 7 % 1_400).map(|at| byte(at * n)).collect();
        let fields = Fields {
            dscp: byte(n) % 64,
            ttl: byte(n).max(2),
            option_words: byte(n) % 11,
            flow_label: n * 300,
        };
        let port = u16::try_from(1024 + n).unwrap();
        let (from, vip) = if n % 3 == 0 {
            (v6[pick], IpAddr::V6(lab.vip_v6()))
        } else {
            (v4[pick], IpAddr::V4(lab.vip()))
        };
        let (from, to) = (SocketAddr::new(from, port), SocketAddr::new(vip, DATAGRAMS));
        raw.send(&Packet::udp(from, to, fields, &payload));
    }
}

/// Before: from the client to the balancer. Behind: from the balancer to that backend.
fn macs(lab: &Lab, before: &[Frame], behind: &[Vec<Frame>]) {
    let (client, lb) = (lab.client(0).mac(), lab.balancer(0).mac());
    let pair = |frame: &Frame| frame.bytes[..12].to_vec();
    assert!(before.iter().all(|frame| pair(frame) == [lb, client].concat()));
    for (node, frames) in lab.nodes_of(Role::Backend).zip(behind) {
        assert!(!frames.is_empty(), "{} got nothing", node.name());
        assert!(frames.iter().all(|frame| pair(frame) == [node.mac(), lb].concat()));
    }
}

/// Takes two uploads and answers each with its length. Ends with the namespace's last socket.
fn sink(ns: &NetNs) -> JoinHandle<()> {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), UPLOAD);
    let listener = ns.enter(|| TcpListener::bind(any)).unwrap().unwrap();
    let serve = move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(bytes.len().to_string().as_bytes()).unwrap();
        }
    };
    ns.spawn("sink", serve).unwrap()
}

const UPLOAD: u16 = 9000;
const UPLOAD_BYTES: usize = 4 << 20;
const DATAGRAMS: u16 = 5353;
