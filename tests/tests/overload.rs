//! Requirement: after 20 s at twice the measured capacity, forwarding is back to what it was within
//! 1 s, no frame is lost from the accounting, and the packet equation holds.
//!
//! What limits it: sender, switch, balancer and backends share a few CPUs, and a veth makes the
//! sender's CPU do the receiving side's work, so a sender of ordinary datagrams cannot offer twice
//! what a worker with a CPU of its own forwards. Therefore one queue with one worker is loaded; the
//! worker shares its CPU with a thread that is always busy, and the sender has the others; and the
//! switch sends each of the client's frames to the balancer eight times, which costs far less than
//! eight datagrams. What counts as offered is what the switch's port passed on, whatever the sender
//! meant to send. The capacity is that of half a CPU of this machine at this moment.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use api::status::SocketCounter;
use lab::{Lab, Pointsman, ServiceText, node::Role};
use tests::{
    Status, assert_books, close_books,
    flood::{Flood, Hog},
    forwarded, measured, settled_status, status,
};

#[test]
fn forwarding_recovers_from_twice_the_capacity() {
    let lab = Lab::builder().backends(2).queues(1).build().unwrap();
    // The worker is what is overloaded: the XDP program takes nothing off it.
    let config =
        ServiceText::web(&lab).udp().port(9).to_toml() + "\n[dataplane]\nfast_path = \"off\"\n";
    let lb = lab.start_pointsman(0, &config).unwrap();
    let target = SocketAddr::new(lab.vip().into(), 9);
    // Bound and never read: what does not fit is dropped, and no ICMP error goes back.
    let bind = || UdpSocket::bind(target).unwrap();
    let _sinks: Vec<UdpSocket> =
        lab.nodes_of(Role::Backend).map(|node| node.netns().enter(bind).unwrap()).collect();
    repeat_frames(&lab);
    let idle = settled_status(&lb);
    assert_books(&idle);
    let cpu = idle.workers[0].cpu.expect("a worker on a CPU of its own");
    let _hog = Hog::start(cpu);
    let flood = Flood::start(lab.client(0).netns(), &lab.client(0).sources(1), target, cpu);
    let at = |frames: f64| flood.set_rate(frames / f64::from(COPIES));
    let over = |time| Window::over(&lab, &lb, time);

    let capacity = capacity(&at, &over);
    let load = capacity / 4.0;
    at(load);
    thread::sleep(Duration::from_secs(1));
    let before = over(Duration::from_secs(3));
    let (overload, capacity) = overload(&at, &over, capacity);
    at(load);
    let after = over(Duration::from_secs(1));
    drop(flood);
    let books = close_books(&lb);

    let k = |rate: f64| format!("{:.1}", rate / 1e3);
    measured("capacity", k(capacity), "kpps", "measured");
    measured("offered_in_overload", k(overload.offered), "kpps", "2 x capacity");
    measured("offered_to_capacity", format!("{:.2}", overload.offered / capacity), "ratio", "2");
    measured("forwarded_in_overload", k(overload.forwarded), "kpps", "beside");
    measured("refused_by_the_full_ring", k(overload.refused), "kpps", ">0");
    measured("forwarded_before", k(before.forwarded), "kpps", "measured");
    let recovered = 100.0 * after.forwarded / before.forwarded;
    measured("forwarded_in_the_first_second_after", format!("{recovered:.1}"), "%", ">=90");
    measured("frames_leaked", leaked(&idle, &books), "frames", "0");
    assert!(overload.seconds >= 20.0);
    // The capacity may have been that of a better moment: what shows the overload is the loss.
    assert!(overload.refused > overload.offered / 10.0, "no overload: {overload:?}");
    assert!(overload.forwarded > 0.0, "livelock: {overload:?}");
    assert!(recovered >= 90.0, "{before:?} {after:?}");
    assert_eq!(leaked(&idle, &books), 0, "{:?} {:?}", idle.workers, books.workers);
}

/// What is forwarded in 3 s at the load, of a rising series, at which the most is.
fn capacity(at: &impl Fn(f64), over: &impl Fn(Duration) -> Window) -> f64 {
    // 40,000 to 1.3 million: far beyond, more load only takes CPU time away.
    let loads = (0..10).map(|step| 40e3 * 1.475_f64.powi(step));
    let tried = loads.map(|load| {
        at(load);
        thread::sleep(Duration::from_millis(200));
        (over(Duration::from_millis(500)).forwarded, load)
    });
    let (_, best) = tried.max_by(|a, b| a.0.total_cmp(&b.0)).expect("ten loads");
    at(best);
    thread::sleep(Duration::from_millis(200));
    over(Duration::from_secs(3)).forwarded
}

/// 20 s at twice the capacity, which is corrected where more was forwarded than it says: a machine
/// that others use as well has better and worse moments.
fn overload(
    at: &impl Fn(f64),
    over: &impl Fn(Duration) -> Window,
    mut capacity: f64,
) -> (Window, f64) {
    let mut whole = Window::default();
    for _ in 0..20 {
        at(2.0 * capacity);
        let window = over(Duration::from_secs(1));
        capacity = capacity.max(window.forwarded);
        whole.extend(&window);
    }
    (whole, capacity)
}

/// Rates over a stretch of time, in frames a second.
#[derive(Debug, Default)]
struct Window {
    seconds: f64,
    /// Passed on by the switch to the balancer's port.
    offered: f64,
    /// Sent to backends.
    forwarded: f64,
    /// Lost because the worker did not empty its ring, or give frames back, in time.
    refused: f64,
}

impl Window {
    fn over(lab: &Lab, lb: &Pointsman, time: Duration) -> Self {
        let counts = || {
            let status = status(lb);
            let offered: u64 = lab.queue_frames(lab.balancer(0)).unwrap().iter().sum();
            (Instant::now(), offered, forwarded(&status), refused(&status))
        };
        let begin = counts();
        thread::sleep(time);
        let end = counts();
        let seconds = (end.0 - begin.0).as_secs_f64();
        let rate = |end: u64, begin: u64| end.saturating_sub(begin) as f64 / seconds;
        Self {
            seconds,
            offered: rate(end.1, begin.1),
            forwarded: rate(end.2, begin.2),
            refused: rate(end.3, begin.3),
        }
    }

    /// The stretch that `next` ends.
    fn extend(&mut self, next: &Self) {
        let seconds = self.seconds + next.seconds;
        let mean = |a: f64, b: f64| (a * self.seconds + b * next.seconds) / seconds;
        *self = Self {
            seconds,
            offered: mean(self.offered, next.offered),
            forwarded: mean(self.forwarded, next.forwarded),
            refused: mean(self.refused, next.refused),
        };
    }
}

fn refused(status: &Status) -> u64 {
    let sockets = status.workers.iter().flat_map(|worker| &worker.socket);
    let lost = sockets.filter(|count| {
        [SocketCounter::RxDropped, SocketCounter::RxRingFull].contains(&count.name)
    });
    lost.map(|count| count.value).sum()
}

/// Frames that are no longer where they were when nothing had happened.
fn leaked(idle: &Status, now: &Status) -> u64 {
    let pairs = idle.workers.iter().zip(&now.workers).map(|(idle, now)| (idle.frames, now.frames));
    pairs
        .map(|(idle, now)| idle.fill.abs_diff(now.fill) + now.tx + idle.held.abs_diff(now.held))
        .sum()
}

/// Has the switch send each of the client's IPv4 frames to the balancer [`COPIES`] times.
fn repeat_frames(lab: &Lab) {
    let (client, lb) = (lab.client(0).name(), lab.balancer(0).name());
    let run = |line: &str| {
        let argv: Vec<&str> = line.split_ascii_whitespace().collect();
        lab.switch().run(&argv, Duration::from_secs(5)).unwrap().ok().unwrap();
    };
    run(&format!("tc qdisc add dev {client} clsact"));
    let mirror = format!(" action mirred egress mirror dev {lb}").repeat(COPIES as usize - 1);
    run(&format!("tc filter add dev {client} ingress protocol ip u32 match u32 0 0{mirror}"));
}

const COPIES: u32 = 8;
