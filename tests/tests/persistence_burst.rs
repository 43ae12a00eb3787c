//! Requirement: six SYNs that one client address sends at once, as a browser does, go to one
//! backend under every scheduler.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use lab::{Lab, ServiceText, topology::vip};
use socket2::{Domain, Socket, Type};
use tests::{close_books, measured, received};

#[test]
fn six_syns_at_once_get_one_backend_under_every_scheduler() {
    let lab = Lab::builder().backends(4).queues(4).vips(5).build().unwrap();
    let _web = lab.start_web().unwrap();
    let mut config = "[[interface]]\nname = \"eth0\"\n".to_owned();
    for (scheduler, vip) in SCHEDULERS.iter().zip((0..).map(vip)) {
        let text = ServiceText::web(&lab).name(scheduler).vip(vip.into()).scheduler(scheduler);
        config += &text.persistence("50s").service_toml();
    }
    let lb = lab.start_pointsman(0, &config).unwrap();
    let sources = lab.client(0).sources(ADDRESSES);
    for (scheduler, vip) in SCHEDULERS.iter().zip((0..).map(vip)) {
        let bursts = bursts(&lab, SocketAddr::new(vip.into(), 80), &sources);
        let one = bursts.iter().filter(|burst| burst.backends.len() == 1).count();
        let at_once = bursts.iter().filter(|burst| burst.at_once).count();
        let used: BTreeSet<&String> = bursts.iter().flat_map(|burst| &burst.backends).collect();
        measured(&format!("one_backend_for_six_syns_{scheduler}"), one, "addresses", "=200");
        measured(&format!("six_syns_before_an_answer_{scheduler}"), at_once, "addresses", ">=20");
        assert_eq!(one, bursts.len(), "{scheduler}");
        assert_eq!(used.len(), 4, "{scheduler} used {used:?} only");
        assert!(at_once >= 20, "{scheduler}: the SYNs came one after another");
    }
    let books = close_books(&lb);
    assert!(received(&books).iter().all(|count| *count > 0), "{:?}", received(&books));
}

/// Six connections of one address.
struct Burst {
    backends: BTreeSet<String>,
    /// Whether the last was begun before the first was answered.
    at_once: bool,
}

/// When a connection was begun, when it was answered, and who answered its request.
type Visit = (Instant, Instant, String);

/// Six threads visit the target together from each source in turn.
fn bursts(lab: &Lab, target: SocketAddr, sources: &[IpAddr]) -> Vec<Burst> {
    let together = Arc::new(Barrier::new(6));
    let threads: Vec<_> = (0..6)
        .map(|number| {
            let (together, sources) = (Arc::clone(&together), sources.to_vec());
            let body = move || -> Vec<Visit> {
                let visit = |source| visit(&together, SocketAddr::new(source, 0), target);
                sources.into_iter().map(visit).collect()
            };
            lab.client(0).netns().spawn(&format!("visitor-{number}"), body).unwrap()
        })
        .collect();
    let visits: Vec<Vec<Visit>> =
        threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    (0..sources.len())
        .map(|at| {
            let six = || visits.iter().map(|of_thread| &of_thread[at]);
            Burst {
                backends: six().map(|visit| visit.2.clone()).collect(),
                at_once: six().map(|visit| visit.0).max() < six().map(|visit| visit.1).min(),
            }
        })
        .collect()
}

fn visit(together: &Barrier, source: SocketAddr, target: SocketAddr) -> Visit {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).unwrap();
    socket.bind(&source.into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    together.wait();
    let begun = Instant::now();
    socket.connect(&target.into()).unwrap();
    let answered = Instant::now();
    let mut stream = std::net::TcpStream::from(socket);
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let backend = reply.lines().find_map(|line| line.strip_prefix("X-Backend: "));
    (begun, answered, backend.expect("a reply of a backend").to_owned())
}

const SCHEDULERS: [&str; 5] = ["maglev", "rr", "wrr", "lc", "wlc"];
const ADDRESSES: u16 = 200;
