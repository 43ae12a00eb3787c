//! [`Health`] as the node drives it.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use control::health::{Check, CheckKind, FailureKind, State, TcpCheck};
use control::{Desired, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{AMPLE, check, get, loopback, nobody, servers, service};
use crate::clock;
use crate::health::{Health, HealthChange};

/// A server that dies when this is dropped: listener and connections are closed at once.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers requests, and closes a kept connection after `idle`.
    async fn start(idle: Duration) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), idle).await
    }

    async fn at(address: SocketAddr, idle: Duration) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&counter), idle));
            }
        });
        Self { address, requests, task }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    async fn die(self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

async fn serve(mut stream: TcpStream, requests: Arc<AtomicUsize>, idle: Duration) {
    let mut request = [0; 1024];
    while let Ok(Ok(count @ 1..)) = timeout(idle, stream.read(&mut request)).await {
        requests.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        if request[..count].windows(5).any(|word| word == b"close") {
            return;
        }
    }
}

fn desired(address: SocketAddr, health: Vec<Check>) -> Desired {
    let text = "[[interface]]\nname = \"lo\"\n\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\n\
        protocol = \"tcp\"\nport = 80\n\n[[service.backend]]\nname = \"rs1\"\naddress = \"192.0.2.11\"\n";
    let mut desired = config::parse("test.toml", text).expect("a configuration").desired;
    let mut service = service(address, health);
    service.failure.damping.hold = Duration::ZERO;
    desired.services = vec![service];
    desired
}

fn start(address: SocketAddr, health: Vec<Check>) -> Health {
    let mut health = Health::new(&desired(address, health), 1, clock::now());
    health.set_egress(address.ip(), Some(loopback()), clock::now());
    health
}

/// Many services, each with this backend; their names.
fn start_many(address: SocketAddr, check: Check, count: usize) -> (Health, Vec<String>) {
    let mut desired = desired(address, vec![check]);
    let one = desired.services.remove(0);
    let names: Vec<String> = (0..count).map(|number| format!("web{number}")).collect();
    let service = |name: &String| Service { name: name.clone(), ..one.clone() };
    desired.services.extend(names.iter().map(service));
    let mut health = Health::new(&desired, 1, clock::now());
    health.set_egress(address.ip(), Some(loopback()), clock::now());
    (health, names)
}

fn http() -> Check {
    check(CheckKind::Http(get("/")), Duration::from_millis(500))
}

/// A check that finds nothing by itself for a minute.
fn seldom(check: Check) -> Check {
    let interval = Duration::from_secs(60);
    Check { interval, fast_interval: interval, fall: 3, sentinel: true, ..check }
}

async fn next(health: &mut Health) -> HealthChange {
    timeout(AMPLE, health.next()).await.expect("a verdict")
}

fn state(health: &Health, address: SocketAddr) -> State {
    health.report("web", address.ip(), clock::now()).expect("a report").state
}

/// Drives for a while; fails at a verdict.
async fn drive(health: &mut Health, time: Duration) {
    if let Ok(verdict) = timeout(time, health.next()).await {
        panic!("{verdict:?}");
    }
}

async fn assert_death_is_noticed(check: Check) {
    let server = Server::start(AMPLE).await;
    let address = server.address;
    let mut health = start(address, vec![seldom(check)]);
    let begin = Instant::now();
    let up = next(&mut health).await;
    assert_eq!(up.transition.to, State::Up);
    assert!(begin.elapsed() < Duration::from_millis(300), "up after {:?}", begin.elapsed());
    drive(&mut health, Duration::from_millis(50)).await;

    server.die().await;
    let begin = Instant::now();
    let down = loop {
        let verdict = next(&mut health).await;
        if verdict.transition.to == State::Down {
            break verdict;
        }
    };
    assert!(begin.elapsed() < Duration::from_millis(60), "down after {:?}", begin.elapsed());
    let text = down.transition.to_string();
    assert!(text.contains("sentinel closed, connect refused"), "{text}");
    assert_eq!(state(&health, address), State::Down);
}

#[tokio::test]
async fn the_sentinel_notices_a_death_http() {
    assert_death_is_noticed(http()).await;
}

#[tokio::test]
async fn the_sentinel_notices_a_death_tcp() {
    let kind = CheckKind::Tcp(TcpCheck::default());
    assert_death_is_noticed(check(kind, AMPLE)).await;
}

/// A server with one worker, which is busy with a connection for as long as it is kept.
#[tokio::test]
async fn a_server_that_serves_one_connection_at_a_time_is_not_kept_from_its_clients() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, Arc::clone(&counter), 10 * AMPLE).await;
        }
    });
    let mut health = start(
        address,
        vec![Check { interval: Duration::from_millis(200), sentinel: true, ..http() }],
    );
    assert_eq!(next(&mut health).await.transition.to, State::Up);
    // No check fails, and clients are served.
    for _ in 0..5 {
        drive(&mut health, Duration::from_millis(200)).await;
        let client = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await?;
            stream.read_to_end(&mut Vec::new()).await
        };
        let (answer, ()) = tokio::join!(
            timeout(AMPLE / 2, client),
            drive(&mut health, Duration::from_millis(100))
        );
        assert!(answer.is_ok_and(|answer| answer.is_ok_and(|bytes| bytes > 0)));
    }
    assert!(requests.load(Ordering::Relaxed) >= 10);
}

#[tokio::test]
async fn an_idle_timeout_neither_takes_a_server_down_nor_makes_a_storm() {
    let server = Server::start(Duration::from_millis(20)).await;
    let mut health = start(server.address, vec![seldom(http())]);
    assert_eq!(next(&mut health).await.transition.to, State::Up);
    drive(&mut health, Duration::from_secs(1)).await;
    let report = health.report("web", server.address.ip(), clock::now()).expect("a report");
    let losses = report.checks[0].tally.sentinel_losses;
    assert!(losses > 0, "no loss was seen");
    assert!(server.requests() < 20, "{} requests in a second", server.requests());
}

#[tokio::test]
async fn a_server_goes_and_comes_back() {
    let server = Server::start(AMPLE).await;
    let address = server.address;
    let mut health = start(address, vec![http()]);
    assert_eq!(next(&mut health).await.transition.to, State::Up);
    server.die().await;
    assert_eq!(next(&mut health).await.transition.to, State::Down);
    let _server = Server::at(address, AMPLE).await;
    assert_eq!(next(&mut health).await.transition.to, State::Up);
    let report = health.report("web", address.ip(), clock::now()).expect("a report");
    assert_eq!(
        report.checks[0].tally.failures.keys().copied().collect::<Vec<_>>(),
        [FailureKind::Refused]
    );
    let probes = health.durations(address.ip(), 0).expect("a backend").count();
    assert!(probes >= 3, "{probes} probes");
    assert!(health.lateness().count() >= probes, "every start is counted");
}

#[tokio::test]
async fn without_a_way_a_probe_says_nothing_and_before_it_is_known_it_waits() {
    let server = Server::start(AMPLE).await;
    let address = server.address;
    let slow = check(CheckKind::Http(get("/")), AMPLE);
    let mut health = Health::new(&desired(address, vec![slow]), 1, clock::now());
    drive(&mut health, Duration::from_millis(400)).await;
    health.set_egress(address.ip(), Some(loopback()), clock::now());
    let begin = Instant::now();
    assert_eq!(next(&mut health).await.transition.to, State::Up);
    assert!(begin.elapsed() < Duration::from_millis(50), "up after {:?}", begin.elapsed());

    // That this node has lost its link says nothing of the backend, however long it takes.
    health.set_egress(address.ip(), None, clock::now());
    drive(&mut health, Duration::from_millis(500)).await;
    let report = health.report("web", address.ip(), clock::now()).expect("a report");
    let failure = report.checks[0].tally.last_failure.as_ref().map(|(failure, _)| failure.name());
    assert_eq!(failure, Some("local"));
    assert_eq!(state(&health, address), State::Up);
}

#[tokio::test]
async fn a_probe_whose_way_goes_meanwhile_says_nothing() {
    let (asked, asks) = std::sync::mpsc::channel();
    // It takes the request and is then silent, as behind a link that was lost.
    let address = servers::tcp(move |mut stream| {
        servers::head(&mut stream);
        let _ = asked.send(());
        thread::sleep(AMPLE);
    });
    let once = seldom(check(CheckKind::Http(get("/")), Duration::from_millis(600)));
    let once = Check { starts_up: true, fall: 1, ..once };
    let mut health = start(address, vec![once]);
    drive(&mut health, Duration::from_millis(300)).await;
    assert_eq!(asks.try_recv(), Ok(()), "the probe runs");
    health.set_egress(address.ip(), None, clock::now());
    drive(&mut health, Duration::from_millis(600)).await;
    assert_eq!(state(&health, address), State::Up);
}

#[tokio::test]
async fn a_suspicion_is_looked_into_at_once() {
    let server = Server::start(AMPLE).await;
    let mut health = start(server.address, vec![seldom(http())]);
    assert_eq!(next(&mut health).await.transition.to, State::Up);
    drive(&mut health, Duration::from_millis(50)).await;
    let before = server.requests();
    health.suspect("web", server.address.ip(), clock::now());
    assert_eq!(next(&mut health).await.transition.to, State::Suspected);
    let begin = Instant::now();
    assert_eq!(next(&mut health).await.transition.to, State::Up);
    assert!(begin.elapsed() < Duration::from_millis(50), "cleared after {:?}", begin.elapsed());
    assert_eq!(server.requests(), before + 1);
}

#[tokio::test]
async fn a_reload_keeps_what_is_known() {
    let server = Server::start(AMPLE).await;
    let address = server.address;
    let mut health = start(address, vec![seldom(http())]);
    assert_eq!(next(&mut health).await.transition.to, State::Up);
    drive(&mut health, Duration::from_millis(50)).await;
    let before = server.requests();

    health.reconfigure(&desired(address, vec![seldom(http())]), clock::now());
    drive(&mut health, Duration::from_millis(300)).await;
    assert_eq!(state(&health, address), State::Up);
    assert_eq!(server.requests(), before, "nothing changed, nothing is asked");

    // The sentinel is still there although its check has another index now.
    let kind = CheckKind::Tcp(TcpCheck::default());
    let two = vec![Check { sentinel: false, ..seldom(check(kind, AMPLE)) }, seldom(http())];
    health.reconfigure(&desired(address, two), clock::now());
    drive(&mut health, Duration::from_millis(300)).await;
    server.die().await;
    let begin = Instant::now();
    while next(&mut health).await.transition.to != State::Down {}
    assert!(begin.elapsed() < Duration::from_millis(60), "down after {:?}", begin.elapsed());

    let mut none = desired(address, Vec::new());
    health.reconfigure(&none, clock::now());
    assert_eq!(health.report("web", address.ip(), clock::now()), None, "it is not checked");
    none.services.clear();
    health.reconfigure(&none, clock::now());
    drive(&mut health, Duration::from_millis(100)).await;
}

#[tokio::test]
async fn waiting_may_be_interrupted_at_any_time() {
    let mut health = start(nobody(), vec![http()]);
    let verdict = timeout(AMPLE, async {
        loop {
            tokio::select! {
                biased;
                () = sleep(Duration::from_millis(1)) => {}
                verdict = health.next() => return verdict,
            }
        }
    });
    assert_eq!(verdict.await.expect("a verdict").transition.to, State::Down);
}

/// More backends than a control thread should have, all at once: none is forgotten.
#[tokio::test]
async fn every_backend_of_many_is_judged() {
    let server = Server::start(AMPLE).await;
    let (mut health, names) = start_many(server.address, seldom(http()), 300);
    let mut up = std::collections::BTreeSet::new();
    while up.len() < names.len() {
        let verdict = next(&mut health).await;
        assert_eq!(verdict.transition.to, State::Up, "{verdict:?}");
        assert!(up.insert(verdict.service), "judged twice");
    }
}

/// The answers come while this thread stands still, and so does the end of the probes' time. There
/// are more of them than the runtime lets through at once.
#[tokio::test]
async fn answers_that_wait_are_heard_before_a_probe_is_given_up() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    // Past the driver's and the monitor's end of a probe, but not so far that it is made anew.
    const STALL: Duration = Duration::from_millis(332);
    let address = servers::tcp(|mut stream| {
        servers::head(&mut stream);
        thread::sleep(TIMEOUT / 3);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let one = seldom(check(CheckKind::Http(get("/")), TIMEOUT));
    let one = Check { sentinel: false, fall: 1, ..one };
    let (mut health, names) = start_many(address, one, 100);
    for _ in &names {
        assert_eq!(next(&mut health).await.transition.to, State::Up);
    }

    let begin = Instant::now();
    for name in &names {
        health.suspect(name, address.ip(), clock::now());
    }
    for _ in &names {
        assert_eq!(next(&mut health).await.transition.to, State::Suspected);
    }
    drive(&mut health, TIMEOUT / 6).await;
    thread::sleep(STALL.saturating_sub(begin.elapsed()));
    for _ in &names {
        let verdict = next(&mut health).await;
        assert_eq!(verdict.transition.to, State::Up, "{verdict:?}");
    }
}
