//! The load client and the probes against real servers and against one that misbehaves on
//! purpose. Needs root.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use lab::{
    Capture, Direction, EchoResponder, Lab, LoadClient, NetNs, Outcome, ProbeClient, Served, pcap,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn straight_to_a_backend_everything_arrives() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let web = lab.start_web().unwrap();
    let rs: SocketAddr = (lab.backend(0).address(), 80).into();
    for (name, count) in [("1b", 50), ("50k", 200), ("100k", 100), ("3m", 4)] {
        let file = lab.files().ensure(name).unwrap();
        for kept in [false, true] {
            let load = LoadClient::new(rs, &file)
                .threads(4)
                .sources(lab.client(0).sources(10))
                .requests(count)
                .verify(&file);
            let load = if kept { load.kept() } else { load };
            let report = load.run(lab.client(0).netns()).unwrap();
            assert_eq!((report.total() as u64, report.failed()), (count, 0), "{name}\n{report}");
            assert_eq!(report.bytes(), count * file.length);
            assert_eq!(report.per_backend()[web[0].name()] as u64, count);
            let used = report.backends_by_source().len() as u64;
            let expected = if kept { 1..=4 } else { 10.min(count)..=10.min(count) };
            assert!(expected.contains(&used), "{used} sources, kept: {kept}");
            let by_slice = report.buckets(Duration::from_millis(100));
            assert_eq!(by_slice.iter().map(|bucket| bucket.ok).sum::<u64>(), count);
        }
    }
    // IPv6, and a file that is not the one that was asked for.
    let file = lab.files().ensure("50k").unwrap();
    let rs_v6: SocketAddr = (lab.backend(0).address_v6(), 80).into();
    let load = LoadClient::new(rs_v6, &file).sources(lab.client(0).sources_v6(3)).requests(9);
    assert_eq!(load.run(lab.client(0).netns()).unwrap().done(), 9);
    let other = Served { hash: [0; 32], ..file };
    let load = LoadClient::new(rs, &other).verify(&other);
    let report = load.run(lab.client(0).netns()).unwrap();
    assert_eq!(report.failures()[&Outcome::HashMismatch], 1);
}

#[test]
fn bounds_on_time_and_rate_are_kept() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let _web = lab.start_web().unwrap();
    let rs: SocketAddr = (lab.backend(0).address(), 80).into();
    let file = lab.files().ensure("1b").unwrap();
    let plan = LoadClient::new(rs, &file).threads(5).kept().duration(SECOND).rate(200.0);
    let report = plan.run(lab.client(0).netns()).unwrap();
    assert!((100..=205).contains(&report.done()), "{report}");
    assert!(report.timeline().length() < 3 * SECOND);
    // 1 MiB at 2 MiB/s takes half a second.
    let file = lab.files().ensure("1m").unwrap();
    let slow = LoadClient::new(rs, &file).download_rate(2 << 20).verify(&file);
    let report = slow.run(lab.client(0).netns()).unwrap();
    assert_eq!(report.done(), 1, "{report}");
    let took = report.latency().max;
    assert!((Duration::from_millis(400)..5 * SECOND).contains(&took), "{took:?}");
    // Stopped from outside.
    let running = LoadClient::new(rs, &file).duration(1000 * SECOND).start(lab.client(0).netns());
    let running = running.unwrap();
    while running.progress().0 < 3 {
        thread::sleep(Duration::from_millis(1));
    }
    running.stop();
    assert!(running.finish().done() >= 3);
}

#[test]
fn each_kind_of_failure_has_its_name() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let client = lab.client(0).netns();
    let file = Served { path: "/x".into(), length: 1000, hash: [0; 32] };
    let body = "x".repeat(1000);
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let cases = [
        (format!("{}{body}", head(1000)), After::Close, Outcome::Ok),
        (format!("{}{}", head(1000), &body[..999]), After::Close, Outcome::ShortBody),
        ("HTTP/1.1 200 OK\r\nConte".to_owned(), After::Close, Outcome::ShortBody),
        (format!("{}{}", head(1000), &body[..10]), After::Stall, Outcome::ReadTimeout),
        (String::new(), After::Stall, Outcome::ReadTimeout),
        (String::new(), After::Close, Outcome::Reset),
        (String::new(), After::Reset, Outcome::Reset),
        (format!("{}{body}", head(1001)), After::Close, Outcome::WrongLength),
        (format!("{}{body}y", head(1000)), After::Close, Outcome::WrongLength),
        (
            "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".into(),
            After::Close,
            Outcome::BadStatus(503),
        ),
        ("220 smtp.example ready\r\n\r\n".into(), After::Close, Outcome::Malformed),
    ];
    for (reply, after, expected) in cases {
        let what = format!("{reply:.40?} then {after:?}");
        let server = BadServer::start(lab.backend(0).netns(), reply, after);
        let load = LoadClient::new((lab.backend(0).address(), server.port).into(), &file)
            .timeouts(SECOND, Duration::from_millis(300));
        let report = load.run(client).unwrap();
        let outcome = report.timeline().records()[0].outcome;
        assert_eq!(outcome, expected, "{what}");
        assert_eq!(report.failed(), usize::from(!expected.is_ok()), "{what}");
    }
    let outcome = |to: SocketAddr| {
        let load = LoadClient::new(to, &file).timeouts(Duration::from_millis(300), SECOND);
        load.run(client).unwrap().timeline().records()[0].outcome
    };
    assert_eq!(outcome((lab.backend(0).address(), 9).into()), Outcome::Refused);
    // No host has this address: the connection ends with its time-out, before ARP gives up.
    assert_eq!(outcome((Ipv4Addr::new(10, 77, 9, 9), 80).into()), Outcome::ConnectTimeout);
    assert_eq!(outcome((Ipv4Addr::new(192, 0, 2, 1), 80).into()), Outcome::Unreachable);
}

#[test]
fn a_dead_server_shows_as_refused_and_as_a_gap() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let mut nginx = lab.start_nginx(0).unwrap();
    let file = lab.files().ensure("1b").unwrap();
    let rs: SocketAddr = (lab.backend(0).address(), 80).into();
    let load = LoadClient::new(rs, &file)
        .threads(2)
        .sources(lab.client(0).sources(50))
        .rate(500.0)
        .duration(3 * SECOND);
    let running = load.start(lab.client(0).netns()).unwrap();
    thread::sleep(SECOND);
    nginx.process().kill().unwrap();
    thread::sleep(SECOND);
    drop(nginx);
    let _again = lab.start_nginx(0).unwrap();
    let report = running.finish();
    let gap = report.longest_gap();
    assert!((900..2000).contains(&gap.length.as_millis()), "{report}");
    assert!(report.failures()[&Outcome::Refused] > 100, "{report}");
    assert!(report.done() > 200, "{report}");
}

#[test]
fn every_queue_of_a_balancer_gets_its_part() {
    let lab = Lab::builder().backends(0).queues(4).build().unwrap();
    // A stand-in for a service: the balancer's own kernel refuses, which is an exchange too.
    let file = Served { path: "/".into(), length: 0, hash: [0; 32] };
    let load = LoadClient::new((lab.balancer(0).address(), 81).into(), &file)
        .threads(4)
        .sources(lab.client(0).sources(1))
        .requests(1000);
    let before = lab.queue_frames(lab.balancer(0)).unwrap();
    let report = load.run(lab.client(0).netns()).unwrap();
    assert_eq!(report.failures()[&Outcome::Refused], 1000, "{report}");
    let after = lab.queue_frames(lab.balancer(0)).unwrap();
    let frames: Vec<u64> =
        after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let all: u64 = frames.iter().sum();
    assert_eq!(frames.len(), 4);
    assert!(frames.iter().all(|queue| queue * 100 >= all * 5), "{frames:?}");
}

#[test]
fn captures_on_both_sides_of_the_switch_agree() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let _web = lab.start_web().unwrap();
    let file = lab.files().ensure("50k").unwrap();
    let dir = lab.backend(0).dir();
    let start = |ns, interface, direction, name: &str| {
        let filter = "tcp dst port 80";
        Capture::start(ns, interface, direction, filter, dir.join(name)).unwrap()
    };
    let mut sent = start(lab.client(0).netns(), "eth0", Direction::Out, "sent.pcap");
    let mut got = start(lab.backend(0).netns(), "eth0", Direction::In, "got.pcap");
    let load = LoadClient::new((lab.backend(0).address(), 80).into(), &file).requests(20);
    assert_eq!(load.run(lab.client(0).netns()).unwrap().failed(), 0);
    got.wait_for(100, 5 * SECOND).unwrap();
    for capture in [&mut sent, &mut got] {
        capture.settle(SECOND / 4, 5 * SECOND).unwrap();
    }
    let (sent, got) = (sent.finish().unwrap(), got.finish().unwrap());
    let comparison = pcap::compare(&sent, &got);
    assert_eq!((comparison.only_first, comparison.only_second), (0, 0));
    assert!(comparison.equal >= 100);
    let summary = got[0].summary().unwrap();
    assert_eq!(summary.kind, "TCP SYN");
    assert_eq!(summary.source_mac, lab.client(0).mac());
    assert_eq!(summary.destination_mac, lab.backend(0).mac());
}

#[test]
fn probes_measure_an_interruption() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let backend = lab.backend(0);
    let to: SocketAddr = (backend.address(), 7).into();
    let echo = EchoResponder::start(backend.netns(), to).unwrap();
    let probes = ProbeClient::start(lab.client(0).netns(), to, 1000).unwrap();
    thread::sleep(SECOND);
    lab.unplug(backend).unwrap();
    thread::sleep(Duration::from_millis(300));
    lab.plug(backend).unwrap();
    thread::sleep(SECOND);
    let report = probes.finish();
    assert!((2000..3500).contains(&report.sent), "{report:?}");
    assert_eq!(echo.answered(), report.answered as u64);
    assert_eq!(report.repeated, 0);
    let outage = report.longest_outage().as_millis();
    assert!((290..900).contains(&outage), "{report:?}");
    assert!((250..900).contains(&report.lost()), "{report:?}");
}

/// What a [`BadServer`] does after its reply.
#[derive(Clone, Copy, Debug)]
enum After {
    Close,
    Reset,
    Stall,
}

/// Serves one connection in the given way.
struct BadServer {
    port: u16,
    /// Dropped to end a stall.
    end: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl BadServer {
    fn start(ns: &NetNs, reply: String, after: After) -> Self {
        let listener = ns.enter(|| TcpListener::bind("0.0.0.0:0")).unwrap().unwrap();
        let port = listener.local_addr().unwrap().port();
        let (end, ended) = mpsc::channel();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream);
            stream.write_all(reply.as_bytes()).unwrap();
            match after {
                After::Close => {}
                // SO_LINGER with 0 s: closing sends a reset.
                After::Reset => {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap()
                }
                After::Stall => drop(ended.recv()),
            }
        };
        let thread = Some(ns.spawn("bad-server", serve).unwrap());
        Self { port, end: Some(end), thread }
    }
}

impl Drop for BadServer {
    fn drop(&mut self) {
        drop(self.end.take());
        let result = self.thread.take().unwrap().join();
        assert!(result.is_ok() || thread::panicking());
    }
}

fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
}
