//! The machine of one backend. Rule → test:
//!
//! | rule | test |
//! |---|---|
//! | first result decides; rise, fall; intervals | `stories`, `verdict::tests` |
//! | what suspects and what does not | `stories`, `each_failure` |
//! | sentinel: 0, 5, 20 ms | `sentinels`, `confirm::tests` |
//! | triggers and their hold-off | `triggers` |
//! | hold-down | `flapping_*`, `dampener::tests` |
//! | reload | `reload` |
//! | stalls, stale outcomes, forgotten probes | `drivers` |
//! | any calls in any order | `tests/health_sim.rs` |

use std::fmt::Write as _;
use std::time::Duration;

use dataplane::Tick;

use super::*;
use crate::desired::Damping;

mod drivers;
mod flapping;
mod reload;
mod sentinels;
mod sharing;
mod stories;
mod triggers;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Interval 1000 ms, 200 ms while suspected, 500 ms while down, no jitter; timeout 300 ms; rise 2,
/// fall 3; out of service before its first result.
pub(super) fn check(kind: CheckKind) -> Check {
    Check {
        kind,
        interval: ms(1000),
        timeout: ms(300),
        rise: 2,
        fall: 3,
        fast_interval: ms(200),
        down_interval: ms(500),
        jitter_percent: 0,
        starts_up: false,
        port: None,
        target: ProbeTarget::Backend,
        source: None,
        sentinel: true,
    }
}

fn tcp() -> Check {
    check(CheckKind::Tcp(TcpCheck::default()))
}

fn ping() -> Check {
    Check { sentinel: false, ..check(CheckKind::Ping) }
}

const UNDAMPED: Damping = Damping { hold: Duration::ZERO, max: Duration::from_secs(60) };

/// A monitor with a clock and a driver that reports scripted outcomes.
struct Bench {
    monitor: Monitor,
    now: Tick,
    running: Vec<Option<Probe>>,
    changes: Vec<String>,
}

impl Bench {
    fn new(checks: &[Check], damping: Damping) -> Self {
        let now = Tick::from_nanos(5_000_000_000);
        let monitor = Monitor::new(checks, damping, 1, now);
        Self { monitor, now, running: vec![None; 8], changes: Vec::new() }
    }

    /// All checks passed once.
    fn up(checks: &[Check], damping: Damping) -> Self {
        let mut bench = Self::new(checks, damping);
        for _ in checks {
            bench.play("next");
        }
        for index in 0..checks.len() {
            bench.play(&format!("ok {index}"));
        }
        assert_eq!(bench.monitor.state(), State::Up);
        bench
    }

    /// One event: `wait ms`, `next` (on to the next deadline), `lost`, `suspect`, `release`, `restored`, or how the
    /// running probe ended; a number says which check, if it is not the first.
    fn play(&mut self, event: &str) -> String {
        let (verb, number) = event.split_once(' ').unwrap_or((event, "0"));
        let number: u64 = number.parse().expect("a number");
        let index = usize::try_from(number).expect("small");
        let now = self.now;
        let mut out = String::new();
        match verb {
            "wait" => {
                self.now = now + ms(number);
                self.monitor.handle_timeout(self.now);
            }
            "next" => {
                self.now = self.monitor.next_deadline().expect("a deadline").max(now);
                self.monitor.handle_timeout(self.now);
            }
            "lost" => self.monitor.sentinel_lost(index, now),
            "release" => self.monitor.release(now),
            "restored" => self.monitor.link_restored(now),
            "suspect" if self.monitor.suspect(now) => out.push_str("yes; "),
            "suspect" => out.push_str("no; "),
            _ => {
                let probe = self.running[index].take().expect("a running probe");
                self.monitor.probe_ended(probe, outcome(verb), now);
            }
        }
        self.drain(&mut out);
        out
    }

    /// All actions, then the state and the ms to the next deadline.
    fn drain(&mut self, out: &mut String) {
        while let Some(action) = self.monitor.poll_action() {
            match action {
                Action::Start { probe, timeout } => {
                    assert_eq!(self.running[probe.check].replace(probe), None, "overlaps");
                    assert_eq!(Some(timeout), self.monitor.check(probe.check).map(|c| c.timeout));
                    write!(out, "start {}; ", probe.check).unwrap();
                }
                Action::Cancel(probe) => {
                    assert_eq!(self.running[probe.check].take(), Some(probe));
                    write!(out, "cancel {}; ", probe.check).unwrap();
                }
                Action::Changed(transition) => {
                    assert_eq!(transition.to, self.monitor.state());
                    write!(out, "({transition}) ").unwrap();
                    self.changes.push(transition.to_string());
                }
            }
        }
        write!(out, "{}", self.monitor.state()).unwrap();
        if let Some(at) = self.monitor.next_deadline() {
            write!(out, " {}", at.saturating_since(self.now).as_millis()).unwrap();
        }
    }

    /// Each event and what comes of it.
    fn story(&mut self, name: &str, events: &[(&str, &str)]) {
        for (index, (event, expected)) in events.iter().enumerate() {
            let got = self.play(event);
            assert_eq!(got, *expected, "{name}, step {index}: {event}");
        }
    }
}

fn outcome(verb: &str) -> Result<(), Failure> {
    Err(match verb {
        "ok" => return Ok(()),
        "refused" => Failure::Refused,
        "reset" => Failure::Reset,
        "closed" => Failure::Closed,
        "timeout" => Failure::Timeout,
        "unreachable" => Failure::Unreachable,
        "status" => Failure::Status(500),
        "mismatch" => Failure::Mismatch,
        "protocol" => Failure::Protocol("no status line".into()),
        "tls" => Failure::Tls("expired".into()),
        "exit" => Failure::Exit(1),
        "signal" => Failure::Signal(9),
        "local" => Failure::Local("too many open files".into()),
        _ => panic!("no event: {verb}"),
    })
}
