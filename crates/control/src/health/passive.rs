//! When clients' handshakes say that a backend may be dead.
//!
//! Only the client's half of a connection passes here: a SYN, and the ACK that proves its answer.
//! Any host can forge a SYN that no ACK follows. So this is a hint, for which
//! [`Monitor::suspect`](super::Monitor::suspect) starts a check, and no verdict.

use std::time::Duration;

use dataplane::{Handshakes, Tick};

/// A SYN without an ACK for so long is unanswered: longer than a round trip through most of the
/// world, much shorter than the client's retransmission (1 s).
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Whether new connections of one backend go unanswered: two different ones (of two sources, or two
/// of one source) wait for 200 ms or longer, and none was completed since the older of them began.
///
/// `workers`: what each of them saw. A connection that waits at two workers, because its SYN was
/// repeated on another queue, is one, and began at the first. What began before `since`, when the
/// backend got the state that it is in, says nothing of it.
pub fn unanswered(workers: impl IntoIterator<Item = Handshakes>, since: Tick, now: Tick) -> bool {
    let mut waiting = Vec::new();
    let mut completed = None;
    for worker in workers {
        waiting.extend(worker.waiting.into_iter().flatten());
        completed = completed.max(worker.completed);
    }
    waiting.sort_unstable();
    waiting.dedup_by_key(|(tag, _)| *tag);
    let unanswered = waiting.iter().filter(|(_, began)| {
        *began >= since
            && now.saturating_since(*began) >= PATIENCE
            && completed.is_none_or(|at| at < *began)
    });
    unanswered.count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Tick {
        Tick::from_nanos(ms * 1_000_000)
    }

    /// SYNs that wait at a worker (tag, ms) and when it saw one completed.
    type Worker = (&'static [(u32, u64)], Option<u64>);

    /// At 1000 ms; the backend has been up since 50 ms.
    const CASES: [(&str, &[Worker], bool); 13] = [
        ("no worker", &[], false),
        ("no handshake waits", &[(&[], None), (&[], Some(900))], false),
        ("one waits", &[(&[(1, 100)], None)], false),
        ("two wait", &[(&[(1, 100), (2, 800)], None)], true),
        ("one waits since it was down", &[(&[(1, 49), (2, 800)], None)], false),
        ("two wait at two workers", &[(&[(1, 100)], None), (&[(2, 700)], None)], true),
        ("one waits at two workers", &[(&[(1, 100)], None), (&[(1, 700)], None)], false),
        ("one waits for less than 200 ms", &[(&[(1, 100), (2, 801)], None)], false),
        ("one was completed before", &[(&[(1, 100), (2, 800)], Some(99))], true),
        ("one was completed since", &[(&[(1, 100), (2, 800)], Some(100))], false),
        ("so at another worker", &[(&[(1, 100), (2, 800)], None), (&[], Some(999))], false),
        ("two began after that", &[(&[(1, 100), (2, 500)], None), (&[(3, 600)], Some(400))], true),
        (
            "a repeated SYN is no new connection",
            &[(&[(1, 100), (2, 500)], None), (&[(1, 600)], Some(400))],
            false,
        ),
    ];

    #[test]
    fn hints() {
        for (name, workers, expected) in CASES {
            let workers = workers.iter().map(|(syns, completed)| {
                let mut syns = syns.iter().map(|(tag, at)| (*tag, ms(*at)));
                let waiting = [syns.next(), syns.next()];
                Handshakes { waiting, completed: completed.map(ms) }
            });
            assert_eq!(unanswered(workers, ms(50), ms(1000)), expected, "{name}");
        }
    }

    #[test]
    fn a_clock_that_lies_behind_is_no_hint() {
        let waiting = [Some((1, ms(5000))), Some((2, ms(5000)))];
        assert!(!unanswered([Handshakes { waiting, completed: None }], ms(0), ms(1)));
    }
}
