//! The loop: sockets, commands, timers, in this order, in every turn.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use control::STANDALONE;
use control::vrrp::{Block, DiscardedAdvert, Event, Reject};
use crossbeam::channel::{Receiver, Sender};
use dataplane::{InstanceSlot, PortId, Tick};
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::report::{Counters, Report};
use super::standalone::Standalone;
use super::sync_group::SyncGroup;
use super::watch::{LOOK_EVERY, Watch};
use super::{Anchor, Command, EventKind, Instance, InstanceEvent, Reconfigured, Shared};
use crate::clock;
use crate::panics::{Site, site};

/// How long one renewal of the standalone lease lasts. No other node waits to take over: generous
/// against starvation.
const STANDALONE_LEASE: Duration = Duration::from_secs(1);
/// At most one log line per reason in this time.
const REJECTS_EVERY: Duration = Duration::from_secs(1);
const TIMER: u64 = u64::MAX;
const COMMANDS: u64 = u64::MAX - 1;
const EVENTS: usize = 600;

/// The thread's state.
#[derive(Debug)]
pub(super) struct Thread {
    groups: Vec<Option<Box<SyncGroup>>>,
    announcing: BTreeMap<PortId, Box<Standalone>>,
    ctx: ThreadContext,
    watch: Watch,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    epoll: OwnedFd,
    timer: OwnedFd,
    next_look: Instant,
    /// Whether the VIPs without an instance are to be active.
    standalone: bool,
}

/// What all groups use.
#[derive(Debug)]
pub(super) struct ThreadContext {
    leases: steer::Leases,
    anchor: Anchor,
    /// By position; `None`: it was removed.
    instances: Vec<Option<InstanceState>>,
    reports: Vec<Report>,
    outbox: Outbox,
}

/// What is known of an instance whether or not it has sockets.
#[derive(Debug)]
struct InstanceState {
    fixed: Instance,
    priority: Option<u8>,
    link: bool,
    block: Option<Block>,
    last_rejects: [Option<Instant>; Reject::ALL.len()],
}

/// Events for the control thread.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) queue: Sender<InstanceEvent>,
    /// A pulled waker rings the control thread's wakeup.
    pub(super) waker: UnixStream,
}

impl Thread {
    pub(super) fn new(
        leases: steer::Leases,
        instances: Vec<Instance>,
        inbox: Receiver<Command>,
        outbox: Outbox,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), readable)?;
        epoll::add(&epoll, &*shared, epoll::EventData::new_u64(COMMANDS), readable)?;
        let reports = vec![Report::default(); instances.len()];
        let instances: Vec<_> =
            instances.into_iter().map(|fixed| Some(InstanceState::new(fixed))).collect();
        let groups = instances.iter().map(|_| None).collect();
        let ctx = ThreadContext { leases, anchor: Anchor::new(), instances, reports, outbox };
        let watch = Watch::default();
        let next_look = Instant::now();
        let (standalone, announcing) = (false, BTreeMap::new());
        Ok(Self {
            groups,
            announcing,
            ctx,
            watch,
            inbox,
            shared,
            epoll,
            timer,
            next_look,
            standalone,
        })
    }

    /// Whatever ends the loop, a panic of its own included: VIPs are released, and goodbyes sent.
    pub(super) fn run(mut self) {
        // The hook has logged it, and the control thread stops the rest.
        let _ = catch_unwind(AssertUnwindSafe(|| self.drive()));
        self.stop();
    }

    fn drive(&mut self) {
        // Without the permission the default priority has to do.
        let _ = crate::sys::real_time();
        let nothing = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(TIMER),
        };
        let mut events = [nothing; EVENTS];
        self.arm(self.next_look);
        while !self.shared.stop.load(Relaxed) {
            let ready = epoll::wait(&self.epoll, &mut events[..], None).unwrap_or(0);
            let next = self.turn(events.get(..ready).unwrap_or_default());
            self.publish();
            self.arm(next);
            site(Site::Vrrp);
        }
    }

    fn renew_standalone(&mut self) {
        let until = if self.standalone { (clock::now() + STANDALONE_LEASE).as_nanos() } else { 0 };
        self.ctx.write_lease(STANDALONE, until);
    }

    /// Returns when the next one is due.
    fn turn(&mut self, events: &[epoll::Event]) -> Instant {
        for event in events {
            match event.data.u64() {
                TIMER => drain(&self.timer),
                COMMANDS => drain(&self.shared.call),
                group => {
                    let at = usize::try_from(group).unwrap_or(usize::MAX);
                    if let Some(Some(group)) = self.groups.get_mut(at) {
                        group.receive(&mut self.ctx);
                    }
                }
            }
        }
        while let Ok(command) = self.inbox.try_recv() {
            self.take(command);
        }
        if Instant::now() >= self.next_look {
            self.look();
        }
        let mut next = self.next_look;
        let now = Instant::now();
        let announcing = self.announcing.values_mut().filter_map(|vips| vips.on_time(now));
        next = announcing.fold(next, Instant::min);
        for group in self.groups.iter_mut().flatten() {
            if let Some(due) = group.on_time(&mut self.ctx) {
                next = next.min(due);
            }
        }
        next
    }

    fn arm(&self, next: Instant) {
        let wait = next.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let spec = Itimerspec { it_interval: zero, it_value };
        // A valid descriptor and a valid time: it cannot fail.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Instance(at, instance) => self.introduce(at, instance),
            Command::Forget(at) => {
                self.ctx.set_lease(at, None);
                if let Some(place) = self.ctx.instances.get_mut(at) {
                    *place = None;
                }
            }
            Command::SyncGroup(at, group) => self.replace(at, group),
            Command::Reconfigure(instance, with) => self.reconfigure(instance, *with),
            Command::ControlTimeout(instance, time) => {
                if let Some(instance_state) = self.ctx.instance_mut(instance) {
                    instance_state.fixed.control_timeout = time;
                }
            }
            Command::Priority(instance, priority) => {
                if let Some(instance_state) = self.ctx.instance_mut(instance) {
                    instance_state.priority = Some(priority);
                }
                self.handle(instance, Event::SetPriority(priority));
            }
            Command::Link(instance, up) => {
                if let Some(instance_state) = self.ctx.instance_mut(instance) {
                    instance_state.link = up;
                }
                self.judge(instance, clock::now());
            }
            Command::Mac(instance, mac) => {
                for group in self.groups.iter_mut().flatten() {
                    group.follow_mac(instance, mac, &mut self.ctx);
                }
            }
            Command::Workers(workers) => self.watch.watch(workers),
            Command::Standalone(active) => {
                self.standalone = active;
                self.renew_standalone();
            }
            Command::Announce(port, Some(vips)) => {
                self.announcing.insert(port, vips);
            }
            Command::Announce(port, None) => {
                self.announcing.remove(&port);
            }
            Command::Event(instance, event) => self.handle(instance, event),
        }
    }

    /// Makes room for an instance that was added.
    fn introduce(&mut self, at: usize, instance: Instance) {
        if at >= self.ctx.instances.len() {
            self.ctx.instances.resize_with(at + 1, || None);
            self.ctx.reports.resize_with(at + 1, Report::default);
            self.groups.resize_with(at + 1, || None);
        }
        *self.ctx.report(at) = Report::default();
        if let Some(place) = self.ctx.instances.get_mut(at) {
            *place = Some(InstanceState::new(instance));
        }
    }

    /// Another configuration and other sockets, in the middle of everything.
    fn reconfigure(&mut self, instance: usize, with: Reconfigured) {
        for (number, group) in (0..).zip(&mut self.groups) {
            let Some(group) = group.as_mut().filter(|group| group.has(instance)) else { continue };
            let data = epoll::EventData::new_u64(number);
            // What waits in the former sockets was sent before this.
            group.receive(&mut self.ctx);
            for socket in group.sockets(instance) {
                let _ = epoll::delete(&self.epoll, socket);
            }
            group.reconfigure(instance, with, &mut self.ctx);
            for socket in group.sockets(instance) {
                let _ = epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN);
            }
            return;
        }
    }

    /// The old group says goodbye on its own sockets before the new one starts.
    fn replace(&mut self, at: usize, new: Option<Box<SyncGroup>>) {
        let Some(place) = self.groups.get_mut(at) else { return };
        if let Some(mut old) = place.take() {
            old.shut_down(&mut self.ctx);
            for (instance, socket) in old.members() {
                let _ = epoll::delete(&self.epoll, socket);
                let _ = epoll::delete(&self.epoll, socket.link());
                self.ctx.report(instance).status = None;
            }
        }
        let Some(mut group) = new else { return };
        let data = epoll::EventData::new_u64(u64::try_from(at).unwrap_or(COMMANDS));
        for (_, socket) in group.members() {
            // It fails only for want of memory; then its socket is read when its timer ends.
            let _ = epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN);
            let _ = epoll::add(&self.epoll, socket.link(), data, epoll::EventFlags::IN);
        }
        group.start(&mut self.ctx);
        *place = Some(group);
    }

    fn handle(&mut self, instance: usize, event: Event) {
        for group in self.groups.iter_mut().flatten() {
            group.handle(instance, event, &mut self.ctx);
        }
    }

    fn look(&mut self) {
        self.next_look = Instant::now() + LOOK_EVERY;
        self.renew_standalone();
        let now = clock::now();
        self.shared.beat.store(now.as_nanos(), Relaxed);
        self.watch.look(now);
        for group in self.groups.iter_mut().flatten() {
            group.receive_others(&mut self.ctx);
        }
        for instance in 0..self.ctx.instances.len() {
            self.judge(instance, now);
        }
    }

    /// Whether an instance can forward, and what follows.
    fn judge(&mut self, instance: usize, now: Tick) {
        let beat = Tick::from_nanos(self.shared.control_beat.load(Relaxed));
        let Some(instance_state) = self.ctx.instance_mut(instance) else { return };
        let block = self.watch.block(&instance_state.fixed, instance_state.link, beat, now);
        if block != instance_state.block {
            instance_state.block = block;
            self.handle(instance, Event::SetForwarding(block));
        }
    }

    fn publish(&mut self) {
        for group in self.groups.iter().flatten() {
            group.show(&mut self.ctx);
        }
        // The holder copies some kilobytes; the next turn is soon enough.
        if let Ok(mut reports) = self.shared.reports.try_lock() {
            reports.clone_from(&self.ctx.reports);
        }
    }

    /// VIPs inactive first, then the goodbyes.
    fn stop(&mut self) {
        self.ctx.write_lease(STANDALONE, 0);
        for instance in 0..self.ctx.instances.len() {
            self.ctx.set_lease(instance, None);
        }
        for mut group in std::mem::take(&mut self.groups).into_iter().flatten() {
            // After a panic a group may be in disorder: the others say goodbye all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| group.shut_down(&mut self.ctx)));
        }
    }
}

impl InstanceState {
    const fn new(fixed: Instance) -> Self {
        let last_rejects = [None; Reject::ALL.len()];
        Self { fixed, priority: None, link: false, block: Some(Block::Link), last_rejects }
    }
}

impl ThreadContext {
    fn instance_mut(&mut self, instance: usize) -> Option<&mut InstanceState> {
        self.instances.get_mut(instance)?.as_mut()
    }

    pub(super) fn counters(&mut self, instance: usize) -> &mut Counters {
        &mut self.report(instance).counters
    }

    #[expect(clippy::indexing_slicing, reason = "instances are numbered by whoever made the list")]
    pub(super) fn report(&mut self, instance: usize) -> &mut Report {
        &mut self.reports[instance]
    }

    /// Priority and block, for a group that starts.
    pub(super) fn instance_state(&self, instance: usize) -> (Option<u8>, Option<Block>) {
        let known = self.instances.get(instance).and_then(Option::as_ref);
        known.map_or((None, None), |known| (known.priority, known.block))
    }

    /// `None` ends the lease.
    pub(super) fn set_lease(&mut self, instance: usize, until: Option<Instant>) {
        let until = until.map_or(0, |until| self.anchor.nanos(until));
        if let Some(Some(instance_state)) = self.instances.get(instance) {
            self.write_lease(instance_state.fixed.slot, until);
        }
    }

    pub(super) fn tell(&mut self, instance: usize, kind: EventKind) {
        // A control thread that is frozen for long misses lines of the log, and no counter.
        let _ = self.outbox.queue.try_send(InstanceEvent { instance, kind });
        let _ = rustix::io::write(&self.outbox.waker, &[1]);
    }

    pub(super) fn rejected(&mut self, instance: usize, advert: DiscardedAdvert, now: Instant) {
        let reject = advert.reject;
        if let Some(count) = self.counters(instance).rejected.get_mut(reject.index()) {
            *count += 1;
        }
        let instance_state = self.instance_mut(instance);
        let last = instance_state.and_then(|known| known.last_rejects.get_mut(reject.index()));
        let Some(last) = last else { return };
        if last.is_none_or(|last| now.duration_since(last) >= REJECTS_EVERY) {
            *last = Some(now);
            self.tell(instance, EventKind::Rejected(advert));
        }
    }

    fn write_lease(&self, slot: InstanceSlot, until: u64) {
        if let Some(lease) = self.leases.get(slot.index()) {
            lease.store(until, Relaxed);
        }
    }
}

/// Empties an eventfd or a timerfd.
fn drain(fd: &OwnedFd) {
    let _ = rustix::io::read(fd, &mut [0; 8]);
}
