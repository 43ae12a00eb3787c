//! Requirement: when the host under 50 established downloads dies and `on_down = "reset"`, every
//! client gets ECONNRESET within 1 s of the verdict, idle ones included; sequence numbers are
//! checked; flows of other backends stay untouched.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use lab::{Capture, Direction, Lab, LoadClient, NetNs, Node, Outcome};
use socket2::{Domain, Socket, Type};
use tests::health;
use tests::{close_books, measured};

const DOWNLOADS: usize = 50;
const IDLE: usize = 20;

/// Half of the connections were downloading, the others were idle: neither sends anything by itself.
#[test]
fn clients_of_a_dead_host_are_reset_within_a_second_of_the_verdict() {
    let lab = Lab::builder().backends(2).queues(4).build().unwrap();
    let _web = lab.start_web().unwrap();
    let times = "interval = \"200ms\"\ntimeout = \"200ms\"\nfall = 2";
    let lb = health::start(&lab, &health::web(&lab, times));
    let client = lab.client(0);
    let (doomed, lucky) = split(&lab, client);
    let capture = Capture::start(
        client.netns(),
        "eth0",
        Direction::In,
        "tcp[tcpflags] & tcp-rst != 0",
        client.dir().join("resets.pcap"),
    )
    .unwrap();

    let file = lab.files().ensure("100m").unwrap();
    let get = format!("GET {} HTTP/1.1\r\nHost: lab\r\n\r\n", file.path);
    let mut waiting = Vec::new();
    for at in 0..DOWNLOADS {
        waiting.push(Waiting::start(client.netns(), doomed[at % doomed.len()], &lab, Some(&get)));
    }
    for at in 0..IDLE {
        waiting.push(Waiting::start(client.netns(), doomed[at % doomed.len()], &lab, None));
    }
    // As many on the other backend: they finish, whole and in order.
    let others = LoadClient::new(lab.vip_port(80), &lab.files().ensure("1m").unwrap());
    let others = others.threads(50).requests(50).sources(lucky).download_rate(400_000);
    let others = others.timeouts(Duration::from_secs(10), Duration::from_secs(20));
    let others = others.verify(&lab.files().ensure("1m").unwrap()).start(client.netns()).unwrap();
    std::thread::sleep(Duration::from_millis(500));

    let dead = SystemTime::now();
    lab.unplug(lab.backend(0)).unwrap();
    let (verdict, _) =
        health::await_verdict(&lb, "rs1", "UP -> DOWN", dead, Duration::from_secs(5));
    let ends: Vec<SystemTime> = waiting.into_iter().map(Waiting::until_reset).collect();
    let after =
        |end: &SystemTime| end.duration_since(dead).unwrap_or_default().saturating_sub(verdict);
    let took: Vec<Duration> = ends.iter().map(after).collect();
    let slowest = health::percentile(&took, 100);
    measured("reset_after_verdict_max", format!("{:.3}", slowest.as_secs_f64()), "s", "<=1");
    assert!(slowest <= Duration::from_secs(1), "{took:?}\n{}", lb.log());

    let report = others.finish();
    assert_eq!(report.done(), 50, "{report}");
    assert!(report.timeline().records().iter().all(|r| r.outcome == Outcome::Ok), "{report}");
    // A Linux client takes a reset only with exactly the next sequence number (RFC 5961 §3.2);
    // one for each connection shows that it was right the first time.
    let resets = capture.finish().unwrap();
    measured("resets_sent", resets.len(), "segments", &format!("{}", DOWNLOADS + IDLE));
    assert_eq!(resets.len(), DOWNLOADS + IDLE, "one exact reset for each connection");
    close_books(&lb);
}

/// A connection through the VIP, and the thread that waits for its end.
struct Waiting(std::thread::JoinHandle<std::io::Result<SystemTime>>);

impl Waiting {
    fn start(ns: &NetNs, source: IpAddr, lab: &Lab, request: Option<&str>) -> Self {
        let (target, request) = (lab.vip_port(80), request.map(str::to_owned));
        let mut stream = ns.enter(|| connect(source, target)).unwrap().unwrap();
        if let Some(request) = &request {
            stream.write_all(request.as_bytes()).unwrap();
        } else {
            // One small answer: the connection carried data, and is idle now.
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
            let mut answer = [0; 4096];
            assert!(stream.read(&mut answer).unwrap() > 0);
        }
        Self(std::thread::spawn(move || wait(stream)))
    }

    fn until_reset(self) -> SystemTime {
        self.0.join().expect("the thread of a client").expect("ECONNRESET")
    }
}

/// Reads slowly until the connection is reset.
fn wait(mut stream: TcpStream) -> std::io::Result<SystemTime> {
    let begin = Instant::now();
    let mut bytes = vec![0; 16 * 1024];
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    while begin.elapsed() < Duration::from_secs(20) {
        match stream.read(&mut bytes) {
            Ok(0) => return Err(std::io::Error::other("closed, not reset")),
            Ok(_) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok(SystemTime::now());
            }
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other("never reset"))
}

fn connect(source: IpAddr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    // A small window: a download is not over before the host dies.
    socket.set_recv_buffer_size(32 * 1024)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&target.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}

/// Which of the client's addresses the first backend has, and which the second one.
fn split(lab: &Lab, client: &Node) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let file = lab.files().ensure("1b").unwrap();
    let probe = LoadClient::new(lab.vip_port(80), &file).requests(32).sources(client.sources(32));
    let report = probe.run(client.netns()).unwrap();
    assert_eq!(report.done(), 32, "{report}");
    let mut parts = (Vec::new(), Vec::new());
    for (source, backends) in report.backends_by_source() {
        if backends.contains("rs1") { parts.0.push(source) } else { parts.1.push(source) }
    }
    assert!(!parts.0.is_empty() && !parts.1.is_empty(), "{parts:?}");
    parts
}
