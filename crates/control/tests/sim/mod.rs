//! Two or three routers on a bad network with bad luck: deterministic, in virtual time.
//!
//! A run is a pure function of its seed. Time is nanoseconds of real time; every node sees it
//! through a clock of its own. The driver part (`World::turn`, `World::drain`) does what the
//! `vrrp` module asks of a driver.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use control::vrrp::{Action, Block, Event, Reject};

use faults::Profile;
use invariants::{Broken, UNABLE_LIMIT, Watch};
use link::{Links, Weather};
use node::{Condition, LONGEST_MESSAGE, Node, Packet, Setup};

use crate::seeds::rng::{self, Rng};

mod clock;
mod faults;
mod invariants;
mod liar;
mod link;
mod node;

pub(crate) use invariants::{Broken as BrokenPromise, Violation};
pub(crate) use liar::Liar;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;
pub(crate) const MAX_NODES: usize = 3;

/// A driver with a mistake, to see that the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// Writes leases that end too late.
    LongLease,
    /// Does not take the VIPs back when told to.
    KeepsVips,
    /// The clock that ends leases stands still while the process is frozen.
    StoppedClock,
    /// Loses adverts of a higher priority than its own.
    DeafToBetter,
    /// Never says that it cannot forward.
    HidesFailure,
    /// Preempts without waiting for the predecessor.
    HastyHandover,
    /// Makes leases longer, never shorter.
    NeverShortens,
}

/// What a run went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) adverts: u64,
    pub(crate) delivered: u64,
    pub(crate) transitions: u64,
    pub(crate) activations: u64,
    pub(crate) lapses: u64,
    pub(crate) rejected: u64,
    pub(crate) faults: u64,
    pub(crate) lies: u64,
    pub(crate) reloads: u64,
    /// Adverts with another list of a sender that was not known.
    pub(crate) unknown: u64,
    pub(crate) quiet_ns: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.adverts += other.adverts;
        self.delivered += other.delivered;
        self.transitions += other.transitions;
        self.activations += other.activations;
        self.lapses += other.lapses;
        self.rejected += other.rejected;
        self.faults += other.faults;
        self.lies += other.lies;
        self.reloads += other.reloads;
        self.unknown += other.unknown;
        self.quiet_ns += other.quiet_ns;
    }
}

/// Something that will happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Fault,
    Deliver { to: usize, packet: Packet },
    Start(usize),
    Thaw(usize),
    TellUnable(usize),
    Able(usize),
    SendsWork(usize),
    Reload(usize),
    Lie(usize),
}

struct World {
    seed: u64,
    now: u64,
    rng: Rng,
    nodes: Vec<Node>,
    links: Links,
    weather: Weather,
    profile: Profile,
    queue: BinaryHeap<Reverse<(u64, u64, Due)>>,
    sequence: u64,
    /// Faults that have not ended.
    troubles: u32,
    quiet_since: u64,
    /// What is in the configuration files.
    setup: Setup,
    /// Nodes that have not taken it over.
    unreloaded: Vec<usize>,
    actives: Watch,
    owners: Watch,
    sabotage: Sabotage,
    liar: Liar,
    /// Apart from the world's, so that a lie that moves nothing leaves the rest as it is.
    lies: Rng,
    stats: Stats,
    violation: Option<Violation>,
    trace: bool,
}

/// Simulates `length` ns.
pub(crate) fn run(
    seed: u64,
    length: u64,
    sabotage: Sabotage,
    liar: Liar,
    trace: bool,
) -> Result<Stats, Box<Violation>> {
    let mut world = World::new(seed, sabotage, trace);
    world.liar = liar;
    while world.violation.is_none() && world.step(length) {}
    match world.violation {
        Some(violation) => Err(Box::new(violation)),
        None => Ok(world.stats),
    }
}

/// Any instant will do.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
fn origin() -> Instant {
    Instant::now()
}

impl World {
    fn new(seed: u64, sabotage: Sabotage, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let nodes = node::fleet(origin(), &mut rng, sabotage);
        let count = nodes.len();
        let profile = if seed.is_multiple_of(2) { Profile::HonestNetwork } else { Profile::Storms };
        let mut world = Self {
            seed,
            now: 0,
            rng,
            nodes,
            links: Links::default(),
            weather: Weather::FAIR,
            profile,
            queue: BinaryHeap::with_capacity(64),
            sequence: 0,
            troubles: 0,
            quiet_since: 0,
            setup: Setup::FIRST,
            unreloaded: Vec::new(),
            actives: Watch::actives(),
            owners: Watch::owners(),
            sabotage,
            liar: Liar::None,
            lies: Rng::new(seed ^ 0x11a2),
            stats: Stats::default(),
            violation: None,
            trace,
        };
        for at in 0..count {
            let delay = world.rng.range(0, 2 * SECOND);
            world.trouble(delay, Due::Start(at));
        }
        world.at(20 * SECOND, Due::Fault);
        world
    }

    /// One event; false when the time is over.
    fn step(&mut self, length: u64) -> bool {
        let next = self.next_time();
        self.pass(next.min(length));
        if next > length || self.violation.is_some() {
            return false;
        }
        while let Some(&Reverse((time, _, due))) = self.queue.peek()
            && time <= next
        {
            self.queue.pop();
            self.happen(due);
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].wake <= next {
                self.turn(at);
            }
        }
        self.observe();
        true
    }

    /// The next event, wake-up or end of a lease.
    fn next_time(&self) -> u64 {
        let mut next = self.queue.peek().map_or(u64::MAX, |&Reverse((time, ..))| time);
        for node in &self.nodes {
            next = next.min(node.wake);
            if node.lease_end > self.now {
                next = next.min(node.lease_end);
            }
        }
        next
    }

    /// Nothing happens up to `next`: has what is wrong been wrong for too long?
    fn pass(&mut self, next: u64) {
        if self.troubles == 0 {
            self.stats.quiet_ns += next - self.now;
            let late = [&self.actives, &self.owners].map(|watch| {
                watch.until(next, self.quiet_since).map(|since| (watch.broken, since))
            });
            if let Some(&(broken, since)) = late.iter().flatten().next() {
                self.break_promise(broken, format!("since {} ms", since / MS));
                return;
            }
        }
        self.now = next;
    }

    fn observe(&mut self) {
        let now = self.now;
        let healthy = usize::from(self.nodes.iter().any(Node::is_healthy));
        let actives = self.nodes.iter().filter(|node| node.is_active()).count();
        let owners = self.nodes.iter().filter(|node| node.holds_lease(now)).count();
        self.actives.set(actives == healthy, now);
        self.owners.set(owners == healthy, now);
        let unable = |node: &Node| {
            let since = node.unable_since.filter(|_| node.is_up())?;
            (node.holds_lease(now) && now > since + UNABLE_LIMIT).then_some(since)
        };
        if let Some(since) = self.nodes.iter().find_map(unable) {
            let detail = format!("unable since {} ms", since / MS);
            self.break_promise(Broken::UnableOwner, detail);
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Fault => return self.fault(),
            Due::Deliver { to, packet } => {
                self.nodes[to].enqueue(packet);
                if self.nodes[to].is_up() {
                    self.turn(to);
                }
                return;
            }
            Due::Lie(at) => return self.lie_now(at),
            Due::Reload(at) => self.reload(at),
            Due::Start(at) => self.start(at),
            Due::Thaw(at) => self.thaw(at),
            Due::TellUnable(at) => {
                if self.nodes[at].is_up() && self.sabotage != Sabotage::HidesFailure {
                    self.tell(at, Event::SetForwarding(Some(Block::Worker)));
                }
            }
            Due::Able(at) => {
                self.nodes[at].unable_since = None;
                if self.nodes[at].is_up() {
                    self.tell(at, Event::SetForwarding(None));
                }
            }
            Due::SendsWork(at) => self.nodes[at].sends_fail = false,
        }
        self.troubles -= 1;
        self.quiet_since = self.now;
    }

    fn start(&mut self, at: usize) {
        if self.nodes[at].condition != Condition::Down {
            return;
        }
        // A node that starts with another list or interval than the others is a foreign router to them:
        // the operator reloads all nodes before starting one.
        for other in self.unreloaded.clone() {
            self.reload(other);
        }
        if self.nodes.iter().any(|node| node.reload_waits) {
            self.trouble(SECOND, Due::Start(at));
            return;
        }
        self.log(at, || "starts".into());
        self.nodes[at].condition = Condition::Up;
        if let Some(since) = &mut self.nodes[at].unable_since {
            *since = self.now;
            if self.sabotage != Sabotage::HidesFailure {
                self.tell(at, Event::SetForwarding(Some(Block::Worker)));
            }
        }
        self.tell(at, Event::Start);
    }

    fn thaw(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.condition != Condition::Frozen {
            return;
        }
        node.condition = Condition::Up;
        if let Some(since) = &mut node.unable_since {
            *since = self.now;
        }
        self.log(at, || "thaws".into());
        if let Some((t, priority)) = self.nodes[at].in_send.take() {
            self.send(at, priority, t);
            self.drain(at);
        }
        if self.nodes[at].reload_waits {
            self.turn(at);
            self.take_over(at);
        }
        // What it was told while it could not listen waits in its queue.
        let unable = self.nodes[at].unable_since.is_some();
        let block = (unable && self.sabotage != Sabotage::HidesFailure).then_some(Block::Worker);
        self.tell(at, Event::SetForwarding(block));
    }

    /// A node takes over what is in its file.
    fn reload(&mut self, at: usize) {
        if !self.unreloaded.contains(&at) {
            return;
        }
        self.unreloaded.retain(|other| *other != at);
        self.turn(at);
        let (setup, now) = (self.setup, self.now);
        self.log(at, || format!("reloads {setup:?}"));
        self.stats.reloads += 1;
        self.nodes[at].reload(&setup, now);
        self.drain(at);
        self.arm(at);
    }

    fn take_over(&mut self, at: usize) {
        if self.nodes[at].is_up() {
            self.log(at, || "takes over what it was told while frozen".into());
            let now = self.now;
            self.nodes[at].take_over(now);
            self.drain(at);
            self.arm(at);
        }
    }

    /// One event of the driver's command queue; its turn drains the socket first.
    fn tell(&mut self, at: usize, event: Event) {
        self.turn(at);
        if self.nodes[at].is_up() {
            self.log(at, || format!("{event:?}"));
            let now = self.now;
            self.nodes[at].handle(event, now);
            self.drain(at);
            self.arm(at);
        }
    }

    /// One turn of the driver's loop.
    fn turn(&mut self, at: usize) {
        while self.nodes[at].is_up()
            && let Some(packet) = self.nodes[at].inbox.pop_front()
        {
            self.receive(at, &packet);
        }
        if !self.nodes[at].is_up() {
            return;
        }
        let node = &mut self.nodes[at];
        let now = node.clock.local(self.now);
        if node.router.next_deadline().is_some_and(|deadline| deadline <= now) {
            node.router.handle_timeout(now);
            self.drain(at);
        }
        self.arm(at);
    }

    /// Sets the timer; the kernel wakes late by up to 2 ms.
    fn arm(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.is_up() {
            node.wake = u64::MAX;
            node.armed = None;
            return;
        }
        let deadline = node.router.next_deadline();
        if node.armed != deadline || node.wake <= self.now {
            node.armed = deadline;
            let late = self.rng.range(0, 2 * MS);
            node.wake = deadline.map_or(u64::MAX, |d| node.clock.real(d).max(self.now) + late);
        }
    }

    fn receive(&mut self, at: usize, packet: &Packet) {
        let source = self.nodes[packet.from].config.primary;
        if self.rng.range(0, 256) == 0 {
            self.forge(at, packet);
        }
        let node = &mut self.nodes[at];
        let now = node.clock.local(self.now);
        let envelope = node.envelope(source);
        let message = packet.bytes.get(..packet.len).unwrap_or(&packet.bytes);
        let better = packet.bytes[2] > node.config.priority;
        if better && self.sabotage == Sabotage::DeafToBetter {
            return;
        }
        self.stats.delivered += 1;
        match node.router.receive(message, &envelope, now) {
            Ok(heard) => {
                self.log(at, || format!("hears {} from {}", heard.priority, heard.source));
                self.drain(at);
                self.lie(at, &heard);
            }
            // A node that it does not know yet was reloaded earlier.
            Err(Reject::Addresses) if packet.setup != self.nodes[at].setup => {
                self.stats.unknown += 1;
                self.log(at, || format!("discards another list from {}", packet.from));
            }
            Err(reject) => {
                let detail = format!("a good packet was rejected: {}", reject.name());
                self.break_promise(Broken::RejectedInput, detail);
            }
        }
    }

    /// A damaged or foreign copy of a packet: it must be rejected and change nothing.
    fn forge(&mut self, at: usize, packet: &Packet) {
        let mut bytes = packet.bytes;
        let node = &mut self.nodes[at];
        let mut envelope = node.envelope(node.config.primary);
        let expected = match self.rng.range(0, 4) {
            0 => Reject::Own,
            1 => {
                envelope.ttl = 254;
                Reject::Ttl
            }
            2 => {
                envelope.source = node.config.vips[0];
                // The source is in the pseudo-header of IPv6.
                if envelope.source.is_ipv6() {
                    Reject::Checksum
                } else if node.config.peers.is_empty() {
                    envelope.source = node.config.primary;
                    Reject::Own
                } else {
                    Reject::Source
                }
            }
            _ => {
                bytes[2] ^= 1 << self.rng.range(0, 8);
                Reject::Checksum
            }
        };
        let v6_own = expected == Reject::Own && envelope.source.is_ipv6();
        let expected = if v6_own { Reject::Checksum } else { expected };
        let before = node.router.clone();
        let now = node.clock.local(self.now);
        let result = node.router.receive(&bytes[..packet.len], &envelope, now);
        self.stats.rejected += 1;
        if result != Err(expected) || node.router != before {
            let detail = format!("want {}, got {result:?}", expected.name());
            self.break_promise(Broken::RejectedInput, detail);
        }
    }

    /// Does what the router asks for.
    fn drain(&mut self, at: usize) {
        while let Some(action) = self.nodes[at].router.poll_action() {
            match action {
                Action::SendAdvert { priority } => {
                    let t = self.nodes[at].clock.local(self.now);
                    if let Some(length) = self.nodes[at].freeze_in_next_send.take() {
                        self.nodes[at].in_send = Some((t, priority));
                        self.freeze(at, length);
                        return;
                    }
                    self.send(at, priority, t);
                }
                Action::Activate { until } => {
                    self.stats.activations += 1;
                    self.log(at, || "activates".into());
                    self.lease(at, until);
                }
                Action::Renew { until } => self.lease(at, until),
                Action::Deactivate if self.sabotage == Sabotage::KeepsVips => {}
                Action::Deactivate => self.nodes[at].lease_end = 0,
                Action::AnnounceBurst { .. } => {}
                Action::Transition { from, to, reason } => {
                    self.stats.transitions += 1;
                    let lapse = matches!(reason.name(), "stalled" | "send_failed");
                    self.stats.lapses += u64::from(lapse);
                    self.log(at, || {
                        format!("{} -> {} ({})", from.name(), to.name(), reason.name())
                    });
                }
            }
        }
    }

    fn send(&mut self, at: usize, priority: u8, t: Instant) {
        let ok = !self.nodes[at].sends_fail;
        if ok {
            self.stats.adverts += 1;
            let node = &self.nodes[at];
            let mut packet =
                Packet { from: at, len: 0, bytes: [0; LONGEST_MESSAGE], setup: node.setup };
            let group = node.config.group();
            packet.len = node.router.encode(priority, group, &mut packet.bytes).expect("fits");
            for to in (0..self.nodes.len()).filter(|&to| to != at) {
                let times = self.links.arrivals(&self.weather, (at, to), self.now, &mut self.rng);
                for time in times.into_iter().flatten() {
                    self.push(time, Due::Deliver { to, packet });
                }
            }
        }
        self.log(at, || format!("sends {priority}{}", if ok { "" } else { ", fails" }));
        let node = &mut self.nodes[at];
        node.router.advert_sent(t, node.clock.local(self.now), ok);
    }

    fn lease(&mut self, at: usize, until: Instant) {
        let node = &mut self.nodes[at];
        let end = node.clock.real(until);
        let kept = if self.sabotage == Sabotage::NeverShortens { node.lease_end } else { 0 };
        node.lease_end = end.max(kept);
        if self.sabotage == Sabotage::LongLease {
            node.lease_end += 2 * SECOND;
        }
        if self.profile != Profile::HonestNetwork || !self.nodes[at].holds_lease(self.now) {
            return;
        }
        let now = self.now;
        let other = (0..self.nodes.len()).find(|&n| n != at && self.nodes[n].holds_lease(now));
        if let Some(other) = other {
            let rest = (self.nodes[other].lease_end - now) / MS;
            self.break_promise(Broken::TwoOwners, format!("{at}, and {other} for {rest} ms more"));
        }
    }

    /// A fault that ends with `end` after `delay`.
    fn trouble(&mut self, delay: u64, end: Due) {
        self.troubles += 1;
        self.quiet_since = self.now;
        self.at(self.now + delay, end);
    }

    fn at(&mut self, time: u64, due: Due) {
        self.push(time, due);
    }

    fn push(&mut self, time: u64, due: Due) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence, due)));
    }

    fn break_promise(&mut self, broken: Broken, detail: String) {
        let (seed, at) = (self.seed, self.now);
        self.violation.get_or_insert(Violation { broken, seed, at, detail });
    }

    #[expect(clippy::print_stderr, reason = "the trace of a replay is for the reader of the test")]
    fn log(&self, at: usize, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:12.6} {at} {}", self.now as f64 / SECOND as f64, what());
        }
    }
}
