//! One backend of one service: its monitor, and the probes and sentinels that run for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control::health::{Check, Failure, Monitor, Probe};
use control::{Backend, Service};
use dataplane::Tick;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::outcome::Outcome;
use super::prepared::{Egress, Plan, Prepared, Reachability};
use super::sentinel;
use super::statistics::Durations;
use crate::clock;

/// Tells members apart, also from former ones.
pub(super) type Id = u64;

/// A backend.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Id,
    pub(super) service: String,
    pub(super) address: IpAddr,
    pub(super) monitor: Monitor,
    /// When the monitor has something to do.
    pub(super) deadline: Option<Tick>,
    pub(super) durations: Durations,
    /// By which the VIP is reached at this backend, once it is asked for.
    pub(super) mark: Option<u32>,
    slots: Vec<Slot>,
    reachability: watch::Sender<Reachability>,
    events: UnboundedSender<Event>,
}

/// One check of it.
#[derive(Debug)]
struct Slot {
    check: Check,
    prepared: Arc<Prepared>,
    /// With the serial of the probe.
    running: Option<(u32, Task)>,
    /// With the serial of the probe that its connection is from.
    sentinel: Option<(u32, Task)>,
    beside: Beside,
}

/// Whether the server answers while a connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Not tried yet.
    Unknown,
    Answers,
    /// It serves one connection at a time: a kept one would keep out its clients.
    Silent,
}

/// What became of the link towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkChange {
    /// Nothing, or it went down, or it is known for the first time.
    None,
    /// It came back.
    Restored,
}

/// What its tasks report.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: Id,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A probe ended; `beside` is what was found out about kept connections.
    Ended { probe: Probe, outcome: Outcome, times: Times, beside: Option<Beside> },
    /// The sentinel was lost whose connection is from the probe with this serial.
    Lost(u32),
}

/// When a probe ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How long it took.
    pub(super) took: Duration,
    /// How late it began. `None`: it never did.
    pub(super) late: Option<Duration>,
}

impl Member {
    /// A backend whose egress is not known yet.
    pub(super) fn new(
        id: Id,
        (service, backend): (&Service, &Backend),
        monitor: Monitor,
        events: UnboundedSender<Event>,
    ) -> Self {
        Self {
            id,
            service: service.name.clone(),
            address: backend.address,
            monitor,
            deadline: None,
            durations: Durations::default(),
            mark: None,
            slots: Vec::new(),
            reachability: watch::Sender::new(Reachability::Unknown),
            events,
        }
    }

    /// Takes other checks. Of one that stays, its probe goes on if it has the same place, and its
    /// sentinel if it asks the same address.
    pub(super) fn configure(&mut self, service: &Service, backend: &Backend, plans: &[Plan]) {
        let mut old: Vec<Option<Slot>> = self.slots.drain(..).map(Some).collect();
        for (at, (check, plan)) in service.health.iter().zip(plans).enumerate() {
            let prepared = Prepared::new(service, backend, check, plan, self.mark);
            let same = |slot: &Option<Slot>| slot.as_ref().is_some_and(|old| old.check == *check);
            let place =
                if old.get(at).is_some_and(same) { Some(at) } else { old.iter().position(same) };
            let known = place.and_then(|place| old.get_mut(place)?.take());
            let mut slot = Slot {
                check: check.clone(),
                prepared: Arc::new(prepared),
                running: None,
                sentinel: None,
                beside: Beside::Unknown,
            };
            if let Some(known) = known {
                if known.prepared.asked() == slot.prepared.asked() {
                    (slot.sentinel, slot.beside) = (known.sentinel, known.beside);
                }
                slot.running = known.running.filter(|_| place == Some(at));
            }
            self.slots.push(slot);
        }
    }

    /// Takes note of the way to it.
    pub(super) fn set_egress(&self, way: Option<Egress>) -> LinkChange {
        let restored = way.is_some() && *self.reachability.borrow() == Reachability::Gone;
        let changed = self.reachability.send_if_modified(|reachability| reachability.set(way));
        if changed && restored { LinkChange::Restored } else { LinkChange::None }
    }

    /// Starts a probe that was due at `due`.
    pub(super) fn start(&mut self, probe: Probe, timeout: Duration, due: Tick) {
        let Some(slot) = self.slots.get_mut(probe.check) else { return };
        let beside = slot.beside;
        let keep = slot.check.sentinel && slot.sentinel.is_none() && beside != Beside::Silent;
        let begin = Instant::now();
        let sender = self.events.clone();
        let mut report =
            Report { sender, id: self.id, probe, begin, late: None, beside: None, sent: false };
        let (prepared, mut reachability) =
            (Arc::clone(&slot.prepared), self.reachability.subscribe());
        let task = tokio::spawn(async move {
            report.late = Some(clock::now().saturating_since(due));
            let deadline = begin + timeout;
            let probe = prepared.probe(&mut reachability, keep, deadline);
            let outcome = timeout_at(deadline, probe).await;
            let mut outcome = outcome.unwrap_or_else(|_| Outcome::failed(Failure::Timeout));
            let took = begin.elapsed();
            if beside == Beside::Unknown && outcome.is_idle() {
                let patience = BESIDE.max(4 * took);
                let deadline = Instant::now() + patience;
                let second = prepared.probe(&mut reachability, false, deadline);
                report.beside = Some(if timeout_at(deadline, second).await.is_ok() {
                    Beside::Answers
                } else {
                    outcome.forgo_keeping();
                    Beside::Silent
                });
            }
            report.send(outcome, took);
        });
        slot.running = Some((probe.serial, Task(task)));
    }

    /// Gives a probe up.
    pub(super) fn cancel(&mut self, probe: Probe) {
        if let Some(slot) = self.slots.get_mut(probe.check) {
            slot.running.take_if(|(serial, _)| *serial == probe.serial);
        }
    }

    /// Takes note of what a task reports.
    pub(super) fn on(&mut self, what: What, now: Tick) {
        match what {
            What::Ended { probe, outcome, times, beside } => {
                if let (Some(slot), Some(beside)) = (self.slots.get_mut(probe.check), beside) {
                    slot.beside = beside;
                }
                self.ended(probe, outcome, times.took, now);
            }
            What::Lost(serial) => {
                let lost = |slot: &Slot| slot.sentinel.as_ref().is_some_and(|s| s.0 == serial);
                let found = self.slots.iter_mut().enumerate().find(|(_, slot)| lost(slot));
                if let Some((check, slot)) = found {
                    slot.sentinel = None;
                    self.monitor.sentinel_lost(check, now);
                }
            }
        }
    }

    fn ended(&mut self, probe: Probe, mut outcome: Outcome, took: Duration, now: Tick) {
        let Some(slot) = self.slots.get_mut(probe.check) else { return };
        // Of a cancelled one nothing is of interest.
        if slot.running.take_if(|(serial, _)| *serial == probe.serial).is_none() {
            return;
        }
        self.durations.note(took);
        if slot.check.sentinel
            && slot.sentinel.is_none()
            && let Some(rest) = outcome.take_idle()
        {
            let (sender, id) = (self.events.clone(), self.id);
            let task = tokio::spawn(async move {
                sentinel::watch(rest).await;
                // Fails when the receiver is gone.
                let _ = sender.send(Event { id, what: What::Lost(probe.serial) });
            });
            slot.sentinel = Some((probe.serial, Task(task)));
        }
        if let Some(rest) = outcome.rest {
            tokio::spawn(rest.close());
        }
        self.monitor.probe_ended(probe, outcome.result, now);
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sees to it that every probe is reported, however its task ends.
struct Report {
    sender: UnboundedSender<Event>,
    id: Id,
    probe: Probe,
    begin: Instant,
    late: Option<Duration>,
    beside: Option<Beside>,
    sent: bool,
}

impl Report {
    fn send(mut self, outcome: Outcome, took: Duration) {
        self.publish(outcome, took);
    }

    fn publish(&mut self, outcome: Outcome, took: Duration) {
        self.sent = true;
        let times = Times { took, late: self.late };
        let what = What::Ended { probe: self.probe, outcome, times, beside: self.beside };
        // Fails when the receiver is gone.
        let _ = self.sender.send(Event { id: self.id, what });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.sent {
            let failure = Failure::Local("the probe broke off".to_owned());
            self.publish(Outcome::failed(failure), self.begin.elapsed());
        }
    }
}

/// A server that has not answered a second connection for so long serves one at a time; longer where
/// the first took longer.
const BESIDE: Duration = Duration::from_millis(500);
