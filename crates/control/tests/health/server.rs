//! One backend: the server, what is known of it, and what the driver has open.

use std::collections::VecDeque;
use std::time::Duration;

use control::Damping;
use control::health::{
    BodyPattern, Check, CheckKind, Failure, HttpCheck, Monitor, Probe, ProbeTarget, StatusSet,
    TcpCheck,
};

use super::promises::{Limits, is_of_server};
use super::{MS, Sabotage, tick};
use crate::seeds::rng::Rng;

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Well,
    /// Killed: the host refuses.
    Refusing,
    /// Host away, or the process stopped: nothing comes.
    Silent,
    /// Status 500.
    Wrong,
}

/// A probe that the driver has open.
#[derive(Clone, Copy)]
pub(crate) struct Open {
    pub(crate) probe: Probe,
    /// What the server did when it began.
    pub(crate) met: Mode,
    pub(crate) began: u64,
}

pub(crate) struct Backend {
    pub(crate) monitor: Monitor,
    pub(crate) checks: Vec<Check>,
    pub(crate) damping: Damping,
    pub(crate) limits: Limits,
    pub(crate) mode: Mode,
    /// When the mode last changed.
    pub(crate) mode_since: u64,
    /// When the server was last anything but well.
    pub(crate) unwell_at: u64,
    /// Kept connections end after this time without use, if they do.
    pub(crate) keep_alive: Option<u64>,
    pub(crate) open: Vec<Open>,
    /// Kept connections: check, and which.
    pub(crate) kept: Vec<(usize, u64)>,
    pub(crate) starts: VecDeque<u64>,
    pub(crate) downs: VecDeque<u64>,
    /// The end of the hold, which is `hold` to `max` long.
    pub(crate) held_until: u64,
    pub(crate) suspected_since: u64,
    /// A kill that must be noticed, and until when.
    pub(crate) killed: Option<u64>,
    /// When a sentinel was last lost.
    pub(crate) lost_at: u64,
    pub(crate) flooded: bool,
    /// The driver looks at its handshakes.
    pub(crate) sampled: bool,
    pub(crate) wake: u64,
    pub(crate) armed: Option<u64>,
}

impl Backend {
    pub(crate) fn new(rng: &mut Rng, now: u64, sabotage: Sabotage) -> Self {
        let count = rng.pick(&[1, 1, 1, 2, 3]);
        let checks: Vec<Check> = (0..count).map(|index| check(index, rng)).collect();
        let hold = Duration::from_millis(rng.pick(&[0, 500, 1000, 1000, 5000]));
        let max = Duration::from_secs(rng.pick(&[10, 60, 60]));
        let damping = Damping { hold, max };
        let seed = rng.next();
        let given = given(&checks, sabotage);
        Self {
            monitor: Monitor::new(&given, given_damping(damping, sabotage), seed, tick(now)),
            limits: Limits::of(&checks),
            checks,
            damping,
            mode: Mode::Well,
            mode_since: now,
            unwell_at: 0,
            keep_alive: rng.pick(&[None, None, Some(0), Some(300 * MS), Some(5000 * MS)]),
            open: Vec::new(),
            kept: Vec::new(),
            starts: VecDeque::new(),
            downs: VecDeque::new(),
            held_until: now,
            suspected_since: now,
            killed: None,
            lost_at: now,
            flooded: false,
            sampled: false,
            wake: now,
            armed: None,
        }
    }

    /// The outcome of a probe whose answer is due now, if there is one.
    pub(crate) fn answer(&self, open: Open) -> Option<Result<(), Failure>> {
        let host_only = self.checks.get(open.probe.check).is_some_and(|c| !is_of_server(c));
        match (open.met, self.mode) {
            (Mode::Silent, _) | (_, Mode::Silent) => None,
            _ if host_only => Some(Ok(())),
            (Mode::Refusing, _) => Some(Err(Failure::Refused)),
            (_, Mode::Refusing) => Some(Err(Failure::Reset)),
            (_, Mode::Wrong) => Some(Err(Failure::Status(500))),
            (_, Mode::Well) => Some(Ok(())),
        }
    }

    /// Other checks: one goes, one comes, or they change places.
    pub(crate) fn reload(&mut self, rng: &mut Rng, now: u64, sabotage: Sabotage) {
        match rng.range(0, 4) {
            0 if self.checks.len() > 1 => {
                let gone = rng.index(self.checks.len());
                self.checks.remove(gone);
            }
            1 if self.checks.len() < 4 => self.checks.push(check(self.checks.len(), rng)),
            2 => self.checks.reverse(),
            _ => {}
        }
        self.limits = Limits::of(&self.checks);
        self.kept.clear();
        self.killed = None;
        let given = given(&self.checks, sabotage);
        self.monitor.reconfigure(&given, given_damping(self.damping, sabotage), tick(now));
    }

    /// The driver's slot of this probe is free again. `None`: it was not open.
    pub(crate) fn close(&mut self, probe: Probe) -> Option<Open> {
        let at = self.open.iter().position(|open| open.probe == probe)?;
        Some(self.open.swap_remove(at))
    }
}

/// What the driver is asked to do.
fn given(checks: &[Check], sabotage: Sabotage) -> Vec<Check> {
    let mut given = checks.to_vec();
    if sabotage == Sabotage::Hasty {
        for check in &mut given {
            check.interval = Duration::from_millis(20);
        }
    }
    given
}

fn given_damping(damping: Damping, sabotage: Sabotage) -> Damping {
    let undamped = sabotage == Sabotage::Undamped;
    Damping { hold: if undamped { Duration::ZERO } else { damping.hold }, ..damping }
}

fn check(index: usize, rng: &mut Rng) -> Check {
    let kind = match (index, rng.range(0, 3)) {
        (0, 0) | (_, 1) => CheckKind::Tcp(TcpCheck::default()),
        (0, _) => CheckKind::Http(http()),
        _ => CheckKind::Ping,
    };
    let interval = rng.pick(&[200, 500, 1000, 2000]);
    let ms = Duration::from_millis;
    Check {
        sentinel: !matches!(kind, CheckKind::Ping) && rng.chance(800),
        kind,
        interval: ms(interval),
        timeout: ms(rng.pick(&[100, 300, 500, 1500])),
        rise: rng.pick(&[1, 2, 3]),
        fall: rng.pick(&[1, 2, 3, 5]),
        fast_interval: ms(interval.min(rng.pick(&[100, 200, 1000]))),
        down_interval: ms(rng.pick(&[200, 1000, 3000])),
        jitter_percent: rng.pick(&[0, 10, 50]),
        starts_up: rng.chance(300),
        port: None,
        target: ProbeTarget::Backend,
        source: None,
    }
}

fn http() -> HttpCheck {
    HttpCheck {
        method: "GET".into(),
        path: "/".into(),
        host: None,
        headers: Vec::new(),
        status: StatusSet::default(),
        body: None::<BodyPattern>,
        tls: None,
    }
}
