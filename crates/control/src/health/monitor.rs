//! One backend of one service that shares its checks with no other.

use dataplane::Tick;

use super::action::{Action, Probe, State};
use super::asked::Asked;
use super::check::Check;
use super::host::{Host, Judged};
use super::report::Report;
use super::{Condition, Failure};
use crate::desired::Damping;

/// A [`Host`] with a single service. The same contract.
#[derive(Clone, Debug)]
pub struct Monitor(Host);

impl Monitor {
    /// The first probes start within 200 ms, spread by `seed`, which is to differ from backend to
    /// backend. Without checks it is up for ever.
    pub fn new(checks: &[Check], damping: Damping, seed: u64, now: Tick) -> Self {
        let mut host = Host::new(seed);
        host.arrange(&[judged(checks, damping)], now);
        Self(host)
    }

    /// The check with this index.
    pub fn check(&self, index: usize) -> Option<&Check> {
        self.0.asked().get(index).map(|asked| &asked.check)
    }

    /// [`Host::state`]
    pub fn state(&self) -> State {
        self.0.state(SERVICE).unwrap_or_default()
    }

    /// [`Host::since`]
    pub fn since(&self) -> Tick {
        self.0.since(SERVICE).unwrap_or_default()
    }

    /// The state, as the packet path has to take it.
    pub fn condition(&self) -> Condition {
        self.state().condition()
    }

    /// [`Host::next_deadline`]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.0.next_deadline()
    }

    /// [`Host::handle_timeout`]
    pub fn handle_timeout(&mut self, now: Tick) {
        self.0.handle_timeout(now);
    }

    /// [`Host::probe_ended`]
    pub fn probe_ended(&mut self, probe: Probe, outcome: Result<(), Failure>, now: Tick) {
        self.0.probe_ended(probe, outcome, now);
    }

    /// [`Host::link_restored`]
    pub fn link_restored(&mut self, now: Tick) {
        self.0.link_restored(now);
    }

    /// [`Host::sentinel_lost`]
    pub fn sentinel_lost(&mut self, check: usize, now: Tick) {
        self.0.sentinel_lost(check, now);
    }

    /// [`Host::suspect`]
    pub fn suspect(&mut self, now: Tick) -> bool {
        self.0.suspect(SERVICE, now)
    }

    /// [`Host::release`]
    pub fn release(&mut self, now: Tick) {
        self.0.release(SERVICE, now);
    }

    /// [`Host::reconfigure`]
    pub fn reconfigure(&mut self, checks: &[Check], damping: Damping, now: Tick) {
        self.0.reconfigure(&[judged(checks, damping)], now);
    }

    /// [`Host::poll_action`]
    pub fn poll_action(&mut self) -> Option<Action> {
        Some(match self.0.poll_action()? {
            Action::Start { probe, timeout } => Action::Start { probe, timeout },
            Action::Cancel(probe) => Action::Cancel(probe),
            Action::Changed(verdict) => Action::Changed(verdict.transition),
        })
    }

    /// Everything an operator asks for.
    pub fn report(&self, now: Tick) -> Report {
        self.0.report(SERVICE, now).unwrap_or_default()
    }
}

fn judged(checks: &[Check], damping: Damping) -> Judged {
    let checks = checks.iter().map(Asked::alone).collect();
    Judged { service: SERVICE.to_owned(), checks, damping }
}

/// The only one.
const SERVICE: &str = "";
