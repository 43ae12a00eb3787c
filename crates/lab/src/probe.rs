//! Numbered UDP probes, many a second, and the responders that send them back: how long was the
//! path interrupted, to the millisecond?

use std::{
    collections::HashSet,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::{Doing as _, LabError, Result},
    netns::NetNs,
};

/// Sends every datagram back to where it came from. Dropping it ends it.
#[derive(Debug)]
pub struct EchoResponder {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl EchoResponder {
    /// Listens in `ns` on `address`: on a backend that is the VIP, so that answers come from it.
    ///
    /// # Errors
    /// When the address cannot be bound there.
    pub fn start(ns: &NetNs, address: SocketAddr) -> Result<Self> {
        let socket = ns.enter(|| UdpSocket::bind(address))?;
        let socket = socket.doing(|| format!("bind udp {address}"))?;
        socket.set_read_timeout(Some(STOP_CHECK)).doing(|| "set a time-out".into())?;
        let (stop, answered) = (Arc::default(), Arc::default());
        let shared: (Arc<AtomicBool>, Arc<AtomicU64>) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = ns.spawn("echo", move || echo(&socket, &shared.0, &shared.1))?;
        Ok(Self { stop, answered, thread: Some(thread) })
    }

    /// Datagrams sent back so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for EchoResponder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool, answered: &AtomicU64) {
    let mut buffer = vec![0; 65_535];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if socket.send_to(&buffer[..length], from).is_ok() {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends probes until it is stopped.
#[derive(Debug)]
pub struct ProbeClient {
    stop: Arc<AtomicBool>,
    began: Instant,
    sender: JoinHandle<Vec<Duration>>,
    receiver: JoinHandle<Vec<Answer>>,
}

/// An answer: number of the probe, when it came, and how often it has come.
type Answer = (u64, Duration);

impl ProbeClient {
    /// Sends `per_second` probes (at most 10,000) from one socket in `ns` to `target`, one UDP
    /// flow.
    ///
    /// # Errors
    /// When the rate is out of range or the socket cannot be made.
    pub fn start(ns: &NetNs, target: SocketAddr, per_second: u32) -> Result<Self> {
        if !(1..=10_000).contains(&per_second) {
            let detail = format!("{per_second} probes a second, not 1 to 10,000");
            return Err(LabError::Malformed { what: "probe plan".into(), detail });
        }
        let local = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let doing = || format!("make a udp socket for {target}");
        let socket = ns.enter(|| UdpSocket::bind(local))?.doing(doing)?;
        socket.connect(target).doing(doing)?;
        socket.set_read_timeout(Some(STOP_CHECK)).doing(doing)?;
        let twin = socket.try_clone().doing(doing)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (began, interval) = (Instant::now(), Duration::from_secs(1) / per_second);
        let all = Arc::new(OnceLock::new());
        let (flag, sent) = (Arc::clone(&stop), Arc::clone(&all));
        let receiver = ns.spawn("probe-rx", move || receive(&twin, began, &flag, &sent))?;
        let flag = Arc::clone(&stop);
        let sender = ns.spawn("probe-tx", move || {
            let sent = send(&socket, began, interval, &flag);
            all.get_or_init(|| sent.len());
            sent
        });
        match sender {
            Ok(sender) => Ok(Self { stop, began, sender, receiver }),
            Err(error) => {
                stop.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Time since the first probe was due: the scale of the report.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Stops sending and reports: at once if every probe was answered, else after 200 ms for late
    /// answers.
    ///
    /// # Panics
    /// When one of the threads panicked.
    #[must_use]
    pub fn finish(self) -> ProbeReport {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let answers = self.receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ProbeReport::new(&sent, &answers)
    }
}

/// Sends at fixed times; a probe that is late is sent at once, none is left out.
fn send(
    socket: &UdpSocket,
    began: Instant,
    interval: Duration,
    stop: &AtomicBool,
) -> Vec<Duration> {
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = sent.len() as u64;
        let due = interval.mul_f64(number as f64);
        if let Some(early) = due.checked_sub(began.elapsed()) {
            thread::sleep(early);
        }
        sent.push(began.elapsed());
        // A refused or unreachable target is what is being measured: it shows as no answer.
        let _ = socket.send(&number.to_be_bytes());
    }
    sent
}

/// `sent` is how many there were, once that is known.
fn receive(
    socket: &UdpSocket,
    began: Instant,
    stop: &AtomicBool,
    sent: &OnceLock<usize>,
) -> Vec<Answer> {
    let (mut answers, mut answered) = (Vec::new(), HashSet::new());
    let mut buffer = [0; 8];
    let mut deadline = None;
    loop {
        if sent.get().is_some_and(|sent| answered.len() >= *sent) {
            return answers;
        }
        if stop.load(Ordering::Relaxed) {
            let end = *deadline.get_or_insert_with(|| Instant::now() + LATE);
            if Instant::now() >= end {
                return answers;
            }
        }
        match socket.recv(&mut buffer) {
            Ok(8) => {
                let number = u64::from_be_bytes(buffer);
                answers.push((number, began.elapsed()));
                answered.insert(number);
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // An ICMP error about an earlier probe.
            Err(_) => thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// What became of the probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// Probes sent.
    pub sent: usize,
    /// Probes answered at least once.
    pub answered: usize,
    /// Answers beyond the first to the same probe.
    pub repeated: usize,
    /// Stretches of unanswered probes, in order.
    pub outages: Vec<Outage>,
    /// Longest time between two answers (by their arrival): also sees answers that came late.
    pub longest_silence: Duration,
}

/// A stretch of unanswered probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When the first of them was sent.
    pub begin: Duration,
    /// From then until the next answered probe was sent (or the last probe, if none was).
    pub length: Duration,
    /// How many.
    pub lost: usize,
}

impl ProbeReport {
    /// `sent[n]` is the time of probe `n`.
    fn new(sent: &[Duration], answers: &[Answer]) -> Self {
        let mut counts = vec![0_usize; sent.len()];
        let mut arrivals = Vec::new();
        for (number, at) in answers {
            let count = usize::try_from(*number).ok().and_then(|n| counts.get_mut(n));
            if let Some(count) = count {
                *count += 1;
                arrivals.push(*at);
            }
        }
        arrivals.sort_unstable();
        let steps = arrivals.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        let answered = counts.iter().filter(|count| **count > 0).count();
        Self {
            sent: sent.len(),
            answered,
            repeated: arrivals.len() - answered,
            outages: outages(sent, &counts),
            longest_silence: steps.max().unwrap_or_default(),
        }
    }

    /// The longest outage; zero if every probe was answered.
    #[must_use]
    pub fn longest_outage(&self) -> Duration {
        self.outages.iter().map(|outage| outage.length).max().unwrap_or_default()
    }

    /// Probes without an answer.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.sent - self.answered
    }
}

fn outages(sent: &[Duration], counts: &[usize]) -> Vec<Outage> {
    let mut found = Vec::new();
    let mut open: Option<Outage> = None;
    for (at, count) in sent.iter().zip(counts) {
        let outage = open.get_or_insert(Outage { begin: *at, length: Duration::ZERO, lost: 0 });
        outage.length = at.saturating_sub(outage.begin);
        if *count == 0 {
            outage.lost += 1;
            continue;
        }
        found.extend(open.take().filter(|outage| outage.lost > 0));
    }
    found.extend(open);
    found
}

/// How soon a thread that waits for a datagram notices that it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// How long answers are waited for after the last probe.
const LATE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn report(count: u32, answers: &[(u64, u32)]) -> ProbeReport {
        let sent: Vec<Duration> = (0..count).map(|n| n * MS).collect();
        let answers: Vec<Answer> = answers.iter().map(|(n, at)| (*n, *at * MS)).collect();
        ProbeReport::new(&sent, &answers)
    }

    #[test]
    fn all_answered() {
        let all = report(3, &[(0, 1), (1, 2), (2, 3)]);
        assert_eq!((all.sent, all.answered, all.lost(), all.repeated), (3, 3, 0, 0));
        assert_eq!((all.longest_outage(), all.longest_silence), (Duration::ZERO, MS));
    }

    #[test]
    fn an_outage_lasts_until_the_next_answered_probe() {
        let some = report(10, &[(0, 0), (1, 1), (5, 6), (6, 7), (6, 8), (9, 9), (77, 9)]);
        let outage =
            |begin: u32, length: u32, lost| Outage { begin: begin * MS, length: length * MS, lost };
        assert_eq!(some.outages, [outage(2, 3, 3), outage(7, 2, 2)]);
        assert_eq!((some.answered, some.repeated), (5, 1));
        assert_eq!(some.longest_silence, 5 * MS);
    }

    #[test]
    fn an_outage_may_last_to_the_end() {
        assert_eq!(report(4, &[(0, 0)]).longest_outage(), 2 * MS);
        assert_eq!(report(4, &[]).longest_outage(), 3 * MS);
        assert_eq!(report(0, &[]).longest_outage(), Duration::ZERO);
    }
}
