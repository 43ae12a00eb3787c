//! Requirement: a hostile server (1 byte/s, endless body, 1 MB header, `HTTP/1.1 99999999999 OK`,
//! no status line, garbage instead of TLS, ANSI escapes, redirects, RST midway) gets its verdict
//! within `timeout` + 50 ms, costs at most 1 MB of memory, puts no raw control byte into logs, and
//! delays no other check by more than 20 ms.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use lab::{Lab, Node, Pointsman, ServiceText};
use socket2::SockRef;
use tests::health;
use tests::measured;

const TIMEOUT: Duration = Duration::from_millis(500);

/// What a server does with a connection after it has read something.
type Trick = (&'static str, fn(&mut TcpStream, &AtomicBool) -> std::io::Result<()>);

const TRICKS: [Trick; 9] = [
    ("one byte a second", |s, stop| drip(s, stop, b"HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyy\r\n")),
    ("endless body of the wrong kind", |s, stop| {
        s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")?;
        pour(s, stop, &[b'x'; 65536])
    }),
    ("a header of a megabyte", |s, _| {
        s.write_all(b"HTTP/1.1 200 OK\r\nX: ")?;
        (0..16).try_for_each(|_| s.write_all(&[b'y'; 65536]))
    }),
    ("a huge status", |s, _| s.write_all(b"HTTP/1.1 99999999999 OK\r\nContent-Length: 0\r\n\r\n")),
    ("no status line", |s, _| s.write_all(b"hello there\r\n\r\n")),
    ("garbage", |s, _| s.write_all(&[0x16, 3, 1, 0xff, 0xff, 0, 1, 2, 3])),
    ("escapes", |s, _| s.write_all(b"\x1b[2J\x1b[31m\r\nFAKE ERROR\x07\r\n\r\n")),
    ("redirect", |s, _| {
        s.write_all(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")
    }),
    ("reset midway", |s, _| {
        s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
        SockRef::from(&*s).set_linger(Some(Duration::ZERO))
    }),
];

/// Every server begins as a good one, then turns: each verdict is timed from the first probe that
/// met the trick.
#[test]
fn hostile_servers_are_found_out_in_time_and_harm_nobody() {
    let count = u8::try_from(TRICKS.len()).unwrap();
    let lab = Lab::builder().backends(count + 1).build().unwrap();
    let good = lab.start_nginx(usize::from(count)).unwrap();
    let servers: Vec<Server> = TRICKS
        .iter()
        .enumerate()
        .map(|(at, trick)| Server::start(lab.backend(at), trick))
        .collect();
    // `fall = 1`: the verdict is that of one probe. The body must match: an endless one does not.
    let times = format!("interval = \"500ms\"\ntimeout = \"{}ms\"\nfall = 1", TIMEOUT.as_millis());
    let check = format!("http = {{ path = \"/health\", body = \"^ok\" }}\n{times}");
    let lb = health::start(&lab, &ServiceText::web(&lab).with(health::STEADY).health(&check));
    let before = resident(&lb);
    let turned = SystemTime::now();
    servers.iter().for_each(Server::turn);
    for (at, server) in servers.iter().enumerate() {
        let name = lab.backend(at).name();
        let limit = Duration::from_secs(5);
        let down = turned + health::await_verdict(&lb, &name, "UP -> DOWN", turned, limit).0;
        let met = server.met().expect("a probe came");
        let took = down.duration_since(met).unwrap_or_default();
        let label = format!("verdict_{}", TRICKS[at].0.replace(' ', "_"));
        measured(&label, format!("{:.0}", took.as_secs_f64() * 1000.0), "ms", "<=550");
        assert!(took <= TIMEOUT + Duration::from_millis(50), "{}: {took:?}", TRICKS[at].0);
    }
    // They go on for a while: nothing piles up.
    std::thread::sleep(Duration::from_secs(5));
    let grown = resident(&lb).saturating_sub(before);
    measured("resident_growth", grown / 1024, "KiB", "<=1024");
    let late = later_than(&lb, "0.02");
    measured("probes_later_than_20_ms", late, "probes", "0");
    drop((servers, good));
    assert!(grown <= 1024 * 1024, "{grown} bytes");
    assert!(late < 1.0, "{late}");
    let log = lb.log();
    let raw = log.bytes().filter(|byte| byte.is_ascii_control() && *byte != b'\n').count();
    assert_eq!(raw, 0, "control bytes in {log:?}");
}

/// Probes that began later than this bound of the histogram.
fn later_than(lb: &Pointsman, bound: &str) -> f64 {
    let metrics = lb.metrics().unwrap();
    let name = "pointsman_health_check_late_seconds";
    let all = metrics.sum(&format!("{name}_count"), &[]);
    let within = metrics.value(&format!("{name}_bucket"), &[("le", bound)]).expect("the bucket");
    all - within
}

/// Memory of the balancer in bytes.
fn resident(lb: &Pointsman) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", lb.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
}

/// A server that can turn.
struct Server {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    turned: AtomicBool,
    met: std::sync::Mutex<Option<SystemTime>>,
}

impl Server {
    fn start(node: &Node, trick: &'static Trick) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            turned: AtomicBool::new(false),
            met: std::sync::Mutex::new(None),
        });
        let listen: SocketAddr = ([0, 0, 0, 0], 80).into();
        let listener = node.netns().enter(|| TcpListener::bind(listen)).unwrap().unwrap();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || theirs.serve(&listener, trick));
        Self { shared, thread: Some(thread) }
    }

    fn turn(&self) {
        self.shared.turned.store(true, Relaxed);
    }

    /// When the first connection came after it had turned.
    fn met(&self) -> Option<SystemTime> {
        *self.shared.met.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, listener: &TcpListener, trick: &'static Trick) {
        listener.set_nonblocking(true).unwrap();
        let mut clients = Vec::new();
        while !self.stop.load(Relaxed) {
            let Ok((stream, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let shared = Arc::clone(self);
            // A client that goes away, or is cut off, is what this is about.
            clients.push(std::thread::spawn(move || drop(shared.answer(stream, trick))));
        }
        clients.into_iter().for_each(|client| drop(client.join()));
    }

    /// One request, well or badly. A good server closes the connection: no sentinel stays.
    fn answer(&self, mut stream: TcpStream, trick: &Trick) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let turned = self.turned.load(Relaxed);
        if turned {
            self.met.lock().unwrap().get_or_insert_with(SystemTime::now);
        }
        let mut request = [0; 4096];
        let read = stream.read(&mut request)?;
        if read == 0 {
            return Ok(());
        }
        if turned {
            return (trick.1)(&mut stream, &self.stop);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
    }
}

fn drip(stream: &mut TcpStream, stop: &AtomicBool, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte])?;
        for _ in 0..50 {
            if stop.load(Relaxed) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn pour(stream: &mut TcpStream, stop: &AtomicBool, bytes: &[u8]) -> std::io::Result<()> {
    while !stop.load(Relaxed) {
        stream.write_all(bytes)?;
    }
    Ok(())
}
