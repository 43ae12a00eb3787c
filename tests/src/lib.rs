//! What the system tests share: the balancer's books, the lines that say what was measured, and
//! packets that no ordinary socket sends.
//!
//! Each test file names the sentences of the requirements that it shows. All of them need root and
//! fail without: the lab says so. Run them one at a time, for they measure time:
//! `cargo test -p tests -- --test-threads=1`. Those in `tests/waiting` may run beside each other.

#![forbid(unsafe_code)]

pub mod arp;
pub mod arrivals;
pub mod flood;
pub mod freezer;
pub mod guest;
pub mod health;
pub mod lifecycle;
pub mod raw;
pub mod syn;
pub mod two_armed;
pub mod vlan;

use std::{
    fmt::Display,
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use api::status::Count;
pub use api::status::{Frames, Status, Worker};
use lab::{LoadClient, LoadReport, Pointsman};

/// The status document now.
///
/// # Panics
/// When the balancer does not answer, or with something else.
#[must_use]
pub fn status(pointsman: &Pointsman) -> Status {
    match pointsman.http("/status.json") {
        Ok((200, text)) => serde_json::from_str(&text).expect("a status document"),
        other => panic!("/status.json: {other:?}\n{}", pointsman.log()),
    }
}

/// The status document once the packets have stopped: when packet counters and frame places are the
/// same twice in a row, more than two heartbeats of the workers apart.
///
/// # Panics
/// When they still change after 15 s.
#[must_use]
pub fn settled_status(pointsman: &Pointsman) -> Status {
    let begin = Instant::now();
    let mut last = status(pointsman);
    loop {
        thread::sleep(Duration::from_millis(150));
        let next = status(pointsman);
        if books(&last) == books(&next) {
            return next;
        }
        assert!(begin.elapsed() < SETTLE, "counters keep changing: {:?}", books(&next));
        last = next;
    }
}

/// Checks the packet equation and the frame accounting of every worker. Traffic must have stopped:
/// see [`settled_status`].
///
/// # Panics
/// When a packet or a frame is unaccounted for, or there is no worker.
pub fn assert_books(status: &Status) {
    assert!(!status.workers.is_empty(), "no worker");
    for worker in &status.workers {
        let c = &worker.counters;
        let (came, went) = (
            c.received + c.adopted,
            c.forwarded + c.answered + c.handed_over + c.dropped + c.waiting,
        );
        assert_eq!(came, went, "packets of queue {}: {c:?}", worker.queue);
        let f = &worker.frames;
        assert!(f.total > 0, "queue {} has no frames", worker.queue);
        assert_eq!(f.fill + f.tx + f.held, f.total, "frames of queue {}: {f:?}", worker.queue);
    }
    for interface in &status.interfaces {
        let workers = status.workers.iter().filter(|worker| worker.interface == interface.name);
        let by_queue: u64 = workers.map(|worker| worker.fast_path).sum();
        assert_eq!(
            by_queue,
            interface.forwarded(),
            "forwarded by the program of {}",
            interface.name
        );
    }
}

/// Waits for the end of the traffic and checks the books: the last step of every test.
///
/// # Panics
/// As [`settled_status`] and [`assert_books`].
pub fn close_books(pointsman: &Pointsman) -> Status {
    let status = settled_status(pointsman);
    assert_books(&status);
    status
}

/// Lets connections survive a packet that a busy machine lost: what is tested is not the time.
#[must_use]
pub fn patient(load: LoadClient) -> LoadClient {
    load.timeouts(Duration::from_secs(10), Duration::from_secs(20))
}

/// Checks that every request succeeded; else says where the balancer lost packets.
///
/// # Panics
/// When one failed.
pub fn assert_all_done(report: &LoadReport, pointsman: &Pointsman) {
    assert!(report.total() > 0, "no request at all");
    if report.failed() == 0 {
        return;
    }
    let status = status(pointsman);
    let mut text = format!("{report}dropped:{}\n", counts(&status.dropped));
    for interface in &status.interfaces {
        text += &format!("{}:{}\n", interface.name, counts(&interface.outcomes));
    }
    for worker in &status.workers {
        let (queue, age) = (worker.queue, worker.heartbeat_age_seconds);
        text += &format!("queue {queue}, seen {age:.3} s ago:{}\n", counts(&worker.socket));
    }
    panic!("{text}{}", pointsman.log());
}

fn counts<K: Display>(counts: &[Count<K>]) -> String {
    let some = counts.iter().filter(|count| count.value > 0);
    some.map(|count| format!(" {}={}", count.name, count.value)).collect()
}

/// Frames of each queue that were taken from its socket, and those that the XDP program forwarded.
#[must_use]
pub fn received(status: &Status) -> Vec<u64> {
    status.workers.iter().map(|worker| worker.counters.received + worker.fast_path).collect()
}

/// Frames that all workers and XDP programs sent to backends.
#[must_use]
pub fn forwarded(status: &Status) -> u64 {
    status.workers.iter().map(|worker| worker.counters.forwarded + worker.fast_path).sum()
}

/// Frames that all workers dropped.
#[must_use]
pub fn dropped(status: &Status) -> u64 {
    status.workers.iter().map(|worker| worker.counters.dropped).sum()
}

/// Prints `name value unit target` on one line, also while the test harness keeps output back.
pub fn measured(name: &str, value: impl Display, unit: &str, target: &str) {
    // A closed standard output is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{name} {value} {unit} {target}");
}

/// What must stand still before the books are read. Flow counts, heartbeats and wake-ups go on.
fn books(status: &Status) -> Vec<[u64; 13]> {
    let of = |worker: &Worker| {
        let (c, f) = (&worker.counters, &worker.frames);
        [
            worker.fast_path,
            c.received,
            c.adopted,
            c.forwarded,
            c.answered,
            c.handed_over,
            c.dropped,
            c.originated,
            c.originated_lost,
            f.total,
            f.fill,
            f.tx,
            f.held,
        ]
    };
    status.workers.iter().map(of).collect()
}

const SETTLE: Duration = Duration::from_secs(15);
