//! Health checks: probes over sockets, driven by one [`control::health::Host`] per backend.
//!
//! | module | holds |
//! |---|---|
//! | `member` | a backend: its health, what runs for it |
//! | `prepared` | a check with all that can be made ahead |
//! | `http`, `tls`, `tcp`, `udp`, `dns`, `ping`, `script` | one kind of probe each |
//! | `outcome`, `sentinel` | what is left of a probe; a connection that is kept and watched |
//! | `detour` | routes to the VIP at one backend |
//! | `socket`, `text` | sockets and their errors; text from outside |
//! | `statistics` | how long, how late |
//!
//! Everything runs in the control thread: probes and sentinels are tasks of its runtime, and one
//! timer waits for the earliest deadline of all monitors.

mod bounded;
mod detour;
mod dns;
mod http;
mod member;
mod outcome;
mod ping;
mod prepared;
mod script;
mod sentinel;
mod socket;
mod statistics;
mod tcp;
mod text;
mod tls;
mod udp;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use control::Desired;
use control::health::{Action, Asked, Judged, Report, Transition};
use dataplane::Tick;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::clock;
use detour::Detours;
use member::{Event, Id, LinkChange, Member, What, vip_of};
use prepared::Prepared;
use tls::Contexts;

pub use detour::{FIRST_MARK, MARKS, PRIORITY, PROTOCOL};
pub use prepared::Egress;
pub use statistics::{Durations, Histogram, Lateness};
pub use tls::TlsError;

/// All backends that services with checks have.
#[derive(Debug)]
pub struct Health {
    members: BTreeMap<Id, Member>,
    /// By address.
    ids: BTreeMap<IpAddr, Id>,
    deadlines: BTreeSet<(Tick, Id)>,
    events: UnboundedReceiver<Event>,
    sender: UnboundedSender<Event>,
    verdicts: VecDeque<HealthChange>,
    detours: Detours,
    lateness: Lateness,
    /// How often the tasks have been let through since it was found late.
    rounds: u32,
    seed: u64,
    next_id: Id,
    next_mark: u32,
}

/// A backend is now something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// Of this service.
    pub service: String,
    /// Its address.
    pub address: IpAddr,
    /// From what to what, and why.
    pub transition: Transition,
}

/// Checks whose TLS cannot be made: service, index of the check, why. To be asked before a
/// configuration is taken: with it such a check could never pass.
pub fn unusable_tls(desired: &Desired) -> Vec<(String, usize, TlsError)> {
    let checks = desired.services.iter().flat_map(|service| {
        service.health.iter().enumerate().map(move |(index, check)| (service, index, check))
    });
    let mut contexts = Contexts::default();
    checks
        .filter_map(|(service, index, check)| {
            let error = contexts.of(tls::of(check)?).err()?;
            Some((service.name.clone(), index, error))
        })
        .collect()
}

impl Health {
    /// Starts to check. Must be called inside a runtime; nothing happens but in [`Self::next`].
    /// `seed` spreads the probes of different nodes.
    pub fn new(desired: &Desired, seed: u64, now: Tick) -> Self {
        allow_many_files();
        let (sender, events) = unbounded_channel();
        let mut health = Self {
            members: BTreeMap::new(),
            ids: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            events,
            sender,
            verdicts: VecDeque::new(),
            detours: Detours::default(),
            lateness: Lateness::default(),
            rounds: 0,
            seed,
            next_id: 0,
            next_mark: 0,
        };
        let detours = health.detours.clone();
        tokio::spawn(async move { detours.remove_leftovers().await });
        health.reconfigure(desired, now);
        health
    }

    /// Takes a new configuration; what is known of backends that stay is kept. Files of
    /// certificates are read again.
    pub fn reconfigure(&mut self, desired: &Desired, now: Tick) {
        let mut backends: BTreeMap<IpAddr, Vec<Judged>> = BTreeMap::new();
        for service in desired.services.iter().filter(|service| !service.health.is_empty()) {
            for backend in &service.backends {
                let ask = |check| Asked::new(service, backend, check);
                let judged = Judged {
                    service: service.name.clone(),
                    checks: service.health.iter().map(ask).collect(),
                    damping: service.failure.damping,
                };
                backends.entry(backend.address).or_default().push(judged);
            }
        }
        let gone: Vec<IpAddr> =
            self.ids.keys().filter(|address| !backends.contains_key(address)).copied().collect();
        for address in gone {
            self.remove(address);
        }
        let mut contexts = Contexts::default();
        for (address, services) in backends {
            self.configure(address, &services, &mut contexts, now);
        }
    }

    /// The next change of a backend. May be dropped at any time; probes go on meanwhile, but
    /// neither are new ones started nor results judged.
    pub async fn next(&mut self) -> HealthChange {
        loop {
            // Results before deadlines: they were there before.
            self.hear();
            self.catch_up().await;
            self.start_due(clock::now());
            if let Some(verdict) = self.verdicts.pop_front() {
                return verdict;
            }
            let due = self.deadlines.first().map(|(due, _)| *due);
            tokio::select! {
                Some(event) = self.events.recv() => self.on_event(event),
                () = until(due) => {}
            }
        }
    }

    /// New connections to a backend go unanswered: a reason to look at once.
    pub fn suspect(&mut self, service: &str, address: IpAddr, now: Tick) {
        if let Some(id) = self.id(address)
            && let Some(member) = self.members.get_mut(&id)
        {
            member.host.suspect(service, now);
            self.settle(id, None, now);
        }
    }

    /// A backend that is down for flapping alone may come up: no other backend of its service is.
    pub fn release(&mut self, service: &str, address: IpAddr, now: Tick) {
        if let Some(id) = self.id(address)
            && let Some(member) = self.members.get_mut(&id)
        {
            member.host.release(service, now);
            self.settle(id, None, now);
        }
    }

    /// The interface towards a backend; probes wait until this is called for the first time. Where
    /// there is none they fail at once.
    pub fn set_egress(&mut self, address: IpAddr, way: Option<Egress>, now: Tick) {
        let Some(id) = self.id(address) else { return };
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.set_egress(way) == LinkChange::Restored {
            member.host.link_restored(now);
            self.settle(id, None, now);
        }
    }

    /// Since when a backend has its state. `None`: it has no checks.
    pub fn since(&self, service: &str, address: IpAddr) -> Option<Tick> {
        self.member(address)?.host.since(service)
    }

    /// What operators ask for. `None`: it has no checks.
    pub fn report(&self, service: &str, address: IpAddr, now: Tick) -> Option<Report> {
        self.member(address)?.host.report(service, now)
    }

    /// How long the probes of a check took, by its place among those of its address.
    pub fn durations(&self, address: IpAddr, place: usize) -> Option<&Durations> {
        self.member(address)?.durations(place)
    }

    /// How late probes were started, of all backends.
    pub fn lateness(&self) -> &Lateness {
        &self.lateness
    }

    /// Stops checking and removes its routes.
    pub async fn close(self) {
        let detours = self.detours.clone();
        drop(self);
        detours.remove_all().await;
    }

    fn id(&self, address: IpAddr) -> Option<Id> {
        self.ids.get(&address).copied()
    }

    fn member(&self, address: IpAddr) -> Option<&Member> {
        self.members.get(&self.id(address)?)
    }

    fn configure(
        &mut self,
        address: IpAddr,
        services: &[Judged],
        contexts: &mut Contexts,
        now: Tick,
    ) {
        let id = self.id(address).unwrap_or_else(|| self.add(address));
        let vips = services.iter().flat_map(|judged| &judged.checks).filter_map(vip_of);
        let marks: BTreeMap<IpAddr, u32> = vips.map(|vip| (vip, self.mark_of(id, vip))).collect();
        self.forget_marks(id, &marks);
        let detours = self.detours.clone();
        if let Some(member) = self.members.get_mut(&id) {
            let mut prepare = |asked: &Asked| {
                let mark = vip_of(asked).and_then(|vip| marks.get(&vip).copied());
                let detour = mark.map(|mark| (detours.clone(), mark));
                Prepared::new(asked, address, contexts, detour)
            };
            member.configure(services, &mut prepare, now);
        }
        self.settle(id, None, now);
    }

    fn add(&mut self, address: IpAddr) -> Id {
        self.next_id += 1;
        let (id, sender) = (self.next_id, self.sender.clone());
        let member = Member::new(id, address, self.seed.wrapping_add(id), sender);
        self.members.insert(id, member);
        self.ids.insert(address, id);
        id
    }

    /// The mark of a VIP at a backend, or one that is free, as long not used as possible.
    fn mark_of(&mut self, id: Id, vip: IpAddr) -> u32 {
        let known = self.members.get(&id).and_then(|member| member.marks.get(&vip));
        if let Some(mark) = known {
            return *mark;
        }
        let marks = |member: &Member| member.marks.values().copied().collect::<Vec<_>>();
        let used: BTreeSet<u32> = self.members.values().flat_map(marks).collect();
        loop {
            let mark = FIRST_MARK + self.next_mark;
            self.next_mark = (self.next_mark + 1) % MARKS;
            // There are more of them than backends of services.
            if !used.contains(&mark) {
                if let Some(member) = self.members.get_mut(&id) {
                    member.marks.insert(vip, mark);
                }
                return mark;
            }
        }
    }

    /// Removes the routes to VIPs that are not asked at this backend any more.
    fn forget_marks(&mut self, id: Id, kept: &BTreeMap<IpAddr, u32>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let known = std::mem::take(&mut member.marks);
        let (stay, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            known.into_iter().partition(|(vip, _)| kept.contains_key(vip));
        member.marks = stay;
        self.remove_detours(gone.into_values());
    }

    fn remove_detours(&self, marks: impl Iterator<Item = u32>) {
        for mark in marks {
            let detours = self.detours.clone();
            tokio::spawn(async move { detours.remove(mark).await });
        }
    }

    fn remove(&mut self, address: IpAddr) {
        let Some(id) = self.ids.remove(&address) else { return };
        let Some(member) = self.members.remove(&id) else { return };
        if let Some(due) = member.deadline {
            self.deadlines.remove(&(due, id));
        }
        self.remove_detours(member.marks.into_values());
    }

    /// Takes in what the tasks have reported; whether that was anything.
    fn hear(&mut self) -> bool {
        let mut heard = false;
        while let Ok(event) = self.events.try_recv() {
            self.on_event(event);
            heard = true;
        }
        heard
    }

    /// After a stall of this thread answers wait in sockets: has the tasks report them before
    /// anybody is given up. Where it is cut short it goes on the next time.
    async fn catch_up(&mut self) {
        while self.rounds < MOST_ROUNDS && self.is_late() {
            self.rounds += 1;
            yield_now().await;
            if !self.hear() && self.rounds >= FEWEST_ROUNDS {
                break;
            }
        }
        self.rounds = 0;
    }

    fn is_late(&self) -> bool {
        let due = self.deadlines.first().map(|(due, _)| *due);
        due.is_some_and(|due| clock::now().saturating_since(due) > LATE)
    }

    fn on_event(&mut self, event: Event) {
        let now = clock::now();
        if let What::Ended { times, .. } = &event.what
            && let Some(late) = times.late
        {
            self.lateness.note(late);
        }
        // It may be gone meanwhile.
        if let Some(member) = self.members.get_mut(&event.id) {
            member.on(event.what, now);
            self.settle(event.id, None, now);
        }
    }

    fn start_due(&mut self, now: Tick) {
        let later = self.deadlines.split_off(&(now, Id::MAX));
        for (due, id) in std::mem::replace(&mut self.deadlines, later) {
            if let Some(member) = self.members.get_mut(&id) {
                member.deadline = None;
                member.host.handle_timeout(now);
                self.settle(id, Some(due), now);
            }
        }
    }

    /// Does what a monitor asks for; `due`: when it should have been able to.
    fn settle(&mut self, id: Id, due: Option<Tick>, now: Tick) {
        let Some(member) = self.members.get_mut(&id) else { return };
        while let Some(action) = member.host.poll_action() {
            match action {
                Action::Start { probe, timeout } => {
                    member.start(probe, timeout, due.unwrap_or(now));
                }
                Action::Cancel(probe) => member.cancel(probe),
                Action::Changed(verdict) => self.verdicts.push_back(HealthChange {
                    service: verdict.service,
                    address: member.address,
                    transition: verdict.transition,
                }),
            }
        }
        let next = member.host.next_deadline();
        if next != member.deadline {
            if let Some(due) = std::mem::replace(&mut member.deadline, next) {
                self.deadlines.remove(&(due, id));
            }
            self.deadlines.extend(next.map(|due| (due, id)));
        }
    }
}

/// A deadline that is found later than this was missed because the thread stood still.
const LATE: Duration = Duration::from_millis(5);
/// In the first the runtime asks the kernel what is ready, in the second the tasks run.
const FEWEST_ROUNDS: u32 = 2;
/// The runtime lets 61 tasks through in a round; this is enough for thousands.
const MOST_ROUNDS: u32 = 64;

/// A sentinel per backend and a probe beside it need more than the 1,024 files that a process has
/// by default.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "cannot raise the limit of open files");
    }
}

/// Sleeps until a tick; for ever if there is none.
async fn until(due: Option<Tick>) {
    match due {
        Some(due) => {
            sleep_until(Instant::now() + due.saturating_since(clock::now())).await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
