//! One backend: its health for all services that have it, and the probes and sentinels that run for
//! it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use control::health::{Asked, Failure, Host, Judged, Probe, ProbeTarget};
use dataplane::Tick;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::outcome::Outcome;
use super::prepared::{Egress, Prepared, Reachability};
use super::sentinel;
use super::statistics::Durations;
use crate::clock;

/// Distinguishes members, also from former ones.
pub(super) type Id = u64;

/// A backend.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Id,
    pub(super) address: IpAddr,
    pub(super) host: Host,
    /// When the monitor has something to do.
    pub(super) deadline: Option<Tick>,
    /// By which each VIP is reached at this backend, once it is asked for.
    pub(super) marks: BTreeMap<IpAddr, u32>,
    slots: Vec<Slot>,
    reachability: watch::Sender<Reachability>,
    events: UnboundedSender<Event>,
}

/// One check of it.
#[derive(Debug)]
struct Slot {
    asked: Asked,
    prepared: Arc<Prepared>,
    /// With the serial of the probe.
    running: Option<(u32, Task)>,
    /// With the serial of the probe that its connection is from.
    sentinel: Option<(u32, Task)>,
    beside: Beside,
    durations: Durations,
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
    /// A backend whose egress is not known yet, and of which nothing is asked.
    pub(super) fn new(id: Id, address: IpAddr, seed: u64, events: UnboundedSender<Event>) -> Self {
        Self {
            id,
            address,
            host: Host::new(seed),
            deadline: None,
            marks: BTreeMap::new(),
            slots: Vec::new(),
            reachability: watch::Sender::new(Reachability::Unknown),
            events,
        }
    }

    /// Takes other services or checks. Of a check that stays, its sentinel goes on, and its probe if
    /// it has the same place.
    pub(super) fn configure(
        &mut self,
        services: &[Judged],
        prepare: &mut dyn FnMut(&Asked) -> Prepared,
        now: Tick,
    ) {
        self.host.reconfigure(services, now);
        let mut old: Vec<Option<Slot>> = self.slots.drain(..).map(Some).collect();
        for (at, asked) in self.host.asked().iter().enumerate() {
            let same =
                |slot: &Option<Slot>| slot.as_ref().is_some_and(|old| old.asked.is_same(asked));
            let place =
                if old.get(at).is_some_and(same) { Some(at) } else { old.iter().position(same) };
            let known = place.and_then(|place| old.get_mut(place)?.take());
            let mut slot = Slot {
                asked: asked.clone(),
                prepared: Arc::new(prepare(asked)),
                running: None,
                sentinel: None,
                beside: Beside::Unknown,
                durations: Durations::default(),
            };
            if let Some(known) = known {
                (slot.sentinel, slot.beside) = (known.sentinel, known.beside);
                slot.durations = known.durations;
                slot.running = known.running.filter(|_| place == Some(at));
            }
            self.slots.push(slot);
        }
    }

    /// How long the probes of the check at a place took.
    pub(super) fn durations(&self, place: usize) -> Option<&Durations> {
        self.slots.get(place).map(|slot| &slot.durations)
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
        let keep = slot.asked.check.sentinel && slot.sentinel.is_none() && beside != Beside::Silent;
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
                self.ended(probe, outcome, times.took, beside, now);
            }
            What::Lost(serial) => {
                let lost = |slot: &Slot| slot.sentinel.as_ref().is_some_and(|s| s.0 == serial);
                let found = self.slots.iter_mut().enumerate().find(|(_, slot)| lost(slot));
                if let Some((check, slot)) = found {
                    slot.sentinel = None;
                    self.host.sentinel_lost(check, now);
                }
            }
        }
    }

    fn ended(
        &mut self,
        probe: Probe,
        mut outcome: Outcome,
        took: Duration,
        beside: Option<Beside>,
        now: Tick,
    ) {
        let Some(slot) = self.slots.get_mut(probe.check) else { return };
        // Of a cancelled one nothing is of interest: another check may have its place now.
        if slot.running.take_if(|(serial, _)| *serial == probe.serial).is_none() {
            return;
        }
        slot.durations.note(took);
        slot.beside = beside.unwrap_or(slot.beside);
        if slot.asked.check.sentinel
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
        self.host.probe_ended(probe, outcome.result, now);
    }
}

/// The VIP that a check asks, if it asks one.
pub(super) fn vip_of(asked: &Asked) -> Option<IpAddr> {
    (asked.check.target == ProbeTarget::Vip).then(|| asked.address.ip())
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

#[cfg(test)]
mod tests {
    use control::Damping;
    use control::health::{Check, CheckKind};
    use tokio::sync::mpsc::unbounded_channel;

    use super::super::tls::Contexts;
    use super::*;

    fn ping() -> Check {
        Check {
            kind: CheckKind::Ping,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
            fast_interval: Duration::from_secs(1),
            down_interval: Duration::from_secs(1),
            jitter_percent: 0,
            starts_up: false,
            port: None,
            target: ProbeTarget::Backend,
            source: None,
            sentinel: false,
        }
    }

    /// After a reload another check may have the place of the one whose probe was cancelled.
    #[tokio::test]
    async fn what_a_cancelled_probe_found_out_is_of_no_other_check() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let (sender, _events) = unbounded_channel();
        let mut member = Member::new(1, address, 7, sender);
        let judged = Judged {
            service: "web".to_owned(),
            checks: vec![Asked::alone(&ping())],
            damping: Damping::default(),
        };
        let mut contexts = Contexts::default();
        let mut prepare = |asked: &Asked| Prepared::new(asked, address, &mut contexts, None);
        member.configure(&[judged], &mut prepare, Tick::default());
        let found = |serial| What::Ended {
            probe: Probe { check: 0, serial },
            outcome: Outcome::failed(Failure::Timeout),
            times: Times { took: Duration::ZERO, late: None },
            beside: Some(Beside::Silent),
        };
        member.on(found(3), Tick::default());
        assert_eq!(member.slots[0].beside, Beside::Unknown, "no probe of it runs");
        member.slots[0].running = Some((4, Task(tokio::spawn(async {}))));
        member.on(found(4), Tick::default());
        assert_eq!(member.slots[0].beside, Beside::Silent);
    }
}
