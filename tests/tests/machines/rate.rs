//! Overload: a machine that is sent three times what it can forward goes on at its full rate.
//!
//! Before Linux 6.17 one system call sends at most 32 frames. A worker that takes more from the card
//! than it sends drops the rest after the work was done.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{Guest, Lab};
use tests::guest::{DATAGRAMS, Servers};

use super::{
    report::{Line, Seen},
    rows::Row,
    run::{Start, seen, start, timed, with_evidence},
};

/// Compares the rate under overload with that of clients that wait for answers.
pub(crate) fn run(row: &Row) -> Line {
    timed(row, check)
}

fn check(row: &Row) -> Result<Seen> {
    let lab = Lab::builder().balancers(0).backends(2).build()?;
    let _servers = Servers::start(&lab)?;
    let guest = Guest::boot(&lab, &row.spec())?;
    let seen = seen(&guest)?;
    let Start::Ready(got) = start(&guest, &lab, row)? else {
        anyhow::bail!("it refuses to start");
    };
    let (mut closed, mut overloaded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let waits = lab.client(0).netns().enter(|| answers(&lab, Pace::Window(WINDOW)))??;
        let flood = Pace::Interval(Duration::from_secs_f64(1.0 / (waits * OVERLOAD)));
        let floods = lab.client(0).netns().enter(|| answers(&lab, flood))??;
        closed.push(waits);
        overloaded.push(floods);
        ratios.push(floods / waits);
    }
    let ratio = median(&mut ratios);
    let dropped = tx_full(&guest)?;
    let note = format!(
        "{:.0}/s to clients that wait, {:.0}/s at {OVERLOAD} times that, ratio {ratio:.2}, dropped \
         for want of room to send {:.1} %",
        median(&mut closed),
        median(&mut overloaded),
        dropped * 100.0
    );
    if ratio < KEPT || dropped > DROPPED {
        return Err(with_evidence(anyhow::anyhow!("{note}, of rounds {ratios:.2?}"), &guest));
    }
    Ok(Seen { got, note, ..seen })
}

/// The share of what the workers received that they dropped because TX was full.
fn tx_full(guest: &Guest) -> Result<f64> {
    let status = guest.status()?;
    let sum = |of: &dyn Fn(&serde_json::Value) -> Option<u64>| -> u64 {
        status["workers"].as_array().into_iter().flatten().filter_map(of).sum()
    };
    let received = sum(&|worker| worker["counters"]["received"].as_u64());
    let drops = status["dropped"].as_array().into_iter().flatten();
    let dropped = drops.filter(|drop| drop["name"] == "tx_full");
    let dropped: u64 = dropped.filter_map(|drop| drop["value"].as_u64()).sum();
    ensure!(received > 0, "nothing received: {status}");
    Ok(dropped as f64 / received as f64)
}

/// How datagrams are sent.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// So many without an answer at a time.
    Window(u64),
    /// One each time.
    Interval(Duration),
}

/// Answers a second that come back to a client.
fn answers(lab: &Lab, pace: Pace) -> Result<f64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(SocketAddr::new(lab.vip().into(), DATAGRAMS))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (received, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let receiver = scope.spawn(|| {
            let mut buffer = [0; 256];
            while !over.load(Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    received.fetch_add(1, Relaxed);
                }
            }
        });
        let result = send(&socket, pace, begin, &received);
        over.store(true, Relaxed);
        receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        result
    })?;
    let rate = received.load(Relaxed) as f64 / begin.elapsed().as_secs_f64();
    ensure!(rate > 0.0, "no answer");
    Ok(rate)
}

fn send(socket: &UdpSocket, pace: Pace, begin: Instant, received: &AtomicU64) -> Result<()> {
    let mut sent = 0;
    // Answers that were lost free their place after a while.
    let (mut last, mut lost) = ((0, begin), 0);
    while begin.elapsed() < ROUND {
        let answered = received.load(Relaxed);
        if answered != last.0 {
            last = (answered, Instant::now());
        } else if last.1.elapsed() > Duration::from_millis(50) {
            lost = sent - answered;
        }
        let allowed = match pace {
            Pace::Window(window) => answered + lost + window,
            Pace::Interval(interval) => {
                u64::try_from(begin.elapsed().as_nanos() / interval.as_nanos().max(1))?
            }
        };
        if sent >= allowed {
            thread::sleep(Duration::from_micros(200));
        }
        while sent < allowed {
            socket.send(&[7; 64]).context("send")?;
            sent += 1;
        }
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);
/// Fewer than the rings of any card hold.
const WINDOW: u64 = 128;
const OVERLOAD: f64 = 3.0;
/// Of the rate of clients that wait.
const KEPT: f64 = 0.8;
/// Of what was received.
const DROPPED: f64 = 0.01;
