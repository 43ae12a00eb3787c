//! Instances that change state together (a sync group, or one instance alone) and their sockets.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use control::vrrp::{
    Action, Config, ConfigError, DiscardWatch, DiscardedAdvert, Event, Group, Guard, Router,
    StateName,
};

use dataplane::Mac;

use super::advert_socket::{AdvertSocket, Received};
use super::thread::ThreadContext;
use super::{Command, EventKind, Reconfigured};
use crate::worker::pool;

/// A group of routers and the socket of each. Built by the control thread.
#[derive(Debug)]
pub struct SyncGroup {
    group: Group,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    /// Its position among all instances.
    instance: usize,
    socket: AdvertSocket,
    guard: Guard,
    discards: DiscardWatch,
    since: Instant,
    failing: bool,
}

/// Messages taken from a socket in one turn.
const BURST: usize = 64;
/// The same of messages that are only counted: about as many as a socket holds.
const BURST_OF_OTHERS: usize = 256;

impl SyncGroup {
    /// A group that has not been started.
    ///
    /// # Errors
    /// A configuration that cannot run.
    pub fn new(members: Vec<(usize, Config, AdvertSocket)>) -> Result<Self, ConfigError> {
        let mut routers = Vec::with_capacity(members.len());
        let mut list = Vec::with_capacity(members.len());
        for (instance, config, socket) in members {
            let guard = Guard::new(socket.link().mac(), config.vips.clone());
            let discards = DiscardWatch::new(&config);
            routers.push(Router::new(config)?);
            let since = Instant::now();
            list.push(Member { instance, socket, guard, discards, since, failing: false });
        }
        Ok(Self { group: Group::new(routers, pool::seed()), members: list })
    }

    /// The command that runs it in the place of group `index`.
    pub fn command(self, index: usize) -> Command {
        Command::SyncGroup(index, Some(Box::new(self)))
    }

    /// The positions of its instances, and their sockets.
    pub(super) fn members(&self) -> impl Iterator<Item = (usize, &AdvertSocket)> {
        self.members.iter().map(|member| (member.instance, &member.socket))
    }

    pub(super) fn has(&self, instance: usize) -> bool {
        self.members.iter().any(|member| member.instance == instance)
    }

    /// The descriptors of an instance that are waited for.
    pub(super) fn sockets(&self, instance: usize) -> impl Iterator<Item = BorrowedFd<'_>> {
        let members = self.members.iter().filter(move |member| member.instance == instance);
        members.flat_map(|member| [member.socket.as_fd(), member.socket.link().as_fd()])
    }

    /// An instance goes on with another configuration. What came to the new socket already came to the
    /// former one, too, and has been taken from there.
    pub(super) fn reconfigure(
        &mut self,
        instance: usize,
        with: Reconfigured,
        ctx: &mut ThreadContext,
    ) {
        let Some(at) = self.members.iter().position(|member| member.instance == instance) else {
            return;
        };
        let Some(member) = self.members.get_mut(at) else { return };
        let Reconfigured { config, mut socket } = with;
        let mut buffer = [0; 2048];
        for _ in 0..BURST {
            if socket.next(&mut buffer).is_err() {
                break;
            }
        }
        let (guard, discards) = (config.vips.clone(), DiscardWatch::new(&config));
        // The control thread has checked it.
        if let Err(error) = self.group.reconfigure(at, config, Instant::now()) {
            debug_assert!(false, "{error}");
            return;
        }
        member.socket = socket;
        member.guard.follow_vips(guard);
        member.discards = discards;
        self.carry_out(ctx);
    }

    pub(super) fn start(&mut self, ctx: &mut ThreadContext) {
        for at in 0..self.members.len() {
            let Some(member) = self.members.get(at) else { continue };
            let (priority, block) = ctx.instance_state(member.instance);
            if let Some(priority) = priority {
                self.group.handle(at, Event::SetPriority(priority), Instant::now());
                self.carry_out(ctx);
            }
            self.group.handle(at, Event::SetForwarding(block), Instant::now());
            self.carry_out(ctx);
        }
        self.group.handle_all(Event::Start, Instant::now());
        self.carry_out(ctx);
    }

    pub(super) fn shut_down(&mut self, ctx: &mut ThreadContext) {
        self.group.handle_all(Event::Shutdown, Instant::now());
        self.carry_out(ctx);
    }

    /// An event for one instance; a resignation is its whole group's.
    pub(super) fn handle(&mut self, instance: usize, event: Event, ctx: &mut ThreadContext) {
        let Some(at) = self.members.iter().position(|member| member.instance == instance) else {
            return;
        };
        let now = Instant::now();
        match event {
            Event::Resign(_) => self.group.handle_all(event, now),
            Event::Start
            | Event::Shutdown
            | Event::Heard(_)
            | Event::SetPriority(_)
            | Event::SetForwarding(_)
            | Event::Announce => self.group.handle(at, event, now),
        }
        self.carry_out(ctx);
    }

    /// The interface of an instance has another MAC: its VIPs are there now.
    pub(super) fn follow_mac(&mut self, instance: usize, mac: Mac, ctx: &mut ThreadContext) {
        let Some(member) = self.members.iter_mut().find(|member| member.instance == instance)
        else {
            return;
        };
        member.socket.follow_mac(mac);
        member.guard.follow_mac(mac);
        self.handle(instance, Event::Announce, ctx);
    }

    /// Takes what waits in the sockets.
    pub(super) fn receive(&mut self, ctx: &mut ThreadContext) {
        let mut buffer = [0; 2048];
        for at in 0..self.members.len() {
            for _ in 0..BURST {
                let Some(member) = self.members.get_mut(at) else { break };
                match member.socket.next(&mut buffer) {
                    Ok(Some(received)) => self.take(at, &received, ctx),
                    Ok(None) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Nothing more, or the device is gone, of which the control thread will tell.
                    Err(_) => break,
                }
            }
        }
        self.watch_claims(&mut buffer, ctx);
    }

    /// Counts what is discarded for its hop limit or source, which wakes this thread for nothing.
    pub(super) fn receive_others(&mut self, ctx: &mut ThreadContext) {
        let mut buffer = [0; 2048];
        for at in 0..self.members.len() {
            for _ in 0..BURST_OF_OTHERS {
                let Some(member) = self.members.get_mut(at) else { break };
                match member.socket.next_other(&mut buffer) {
                    Ok(Some(received)) => self.take(at, &received, ctx),
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
            if let Some(member) = self.members.get_mut(at) {
                let lost = member.socket.others_lost();
                ctx.counters(member.instance).overflowed += u64::from(lost);
            }
        }
    }

    /// One message for one member.
    fn take(&mut self, at: usize, &(message, from, lost): &Received<'_>, ctx: &mut ThreadContext) {
        let now = Instant::now();
        let result = self.group.receive(at, message, &from, now);
        let (Some(member), Some(router)) = (self.members.get_mut(at), self.group.members().get(at))
        else {
            return;
        };
        let instance = member.instance;
        let counters = ctx.counters(instance);
        counters.overflowed += u64::from(lost);
        match result {
            Ok(heard) => {
                counters.received += 1;
                member.discards.accepted(heard.source);
                self.carry_out(ctx);
            }
            Err(reject) => {
                let active = router.state() == StateName::Active;
                ctx.rejected(instance, DiscardedAdvert::new(message, &from, reject), now);
                if let Some(peer) = member.discards.note(from.source, reject, active, now) {
                    ctx.tell(instance, EventKind::TwoOwnersPossible(peer));
                }
            }
        }
    }

    /// Takes what other stations say about the VIPs. Without the lease it does not matter,
    /// and is taken all the same: it must not be there any more when we have it.
    fn watch_claims(&mut self, buffer: &mut [u8], ctx: &mut ThreadContext) {
        for at in 0..self.members.len() {
            for _ in 0..BURST {
                let (Some(member), Some(router)) =
                    (self.members.get_mut(at), self.group.members().get(at))
                else {
                    break;
                };
                let Ok(frame) = member.socket.link().next(buffer) else { break };
                let now = Instant::now();
                let Some(seen) = member.guard.see(frame, router.lease_until(), now) else {
                    continue;
                };
                let instance = member.instance;
                ctx.report(instance).claim = member.guard.last();
                ctx.counters(instance).claimed += 1;
                if seen.tell {
                    ctx.tell(instance, EventKind::Claimed(seen.claim));
                }
                self.group.handle(at, Event::Announce, now);
                self.carry_out(ctx);
            }
        }
    }

    /// Does what is due; returns when to call again.
    pub(super) fn on_time(&mut self, ctx: &mut ThreadContext) -> Option<Instant> {
        if self.group.next_deadline().is_some_and(|due| due <= Instant::now()) {
            // What waits there was sent before the timer ended.
            self.receive(ctx);
            let now = Instant::now();
            for (member, router) in self.members.iter().zip(self.group.members()) {
                if router.state() == StateName::Active
                    && let Some(due) = router.next_deadline().filter(|due| *due <= now)
                {
                    ctx.counters(member.instance).note_lateness(due, now);
                }
            }
            self.group.handle_timeout(now);
            self.carry_out(ctx);
        }
        let now = Instant::now();
        for member in &mut self.members {
            if member.guard.handle_timeout(now) {
                member.socket.link().ask();
            }
        }
        let guards = self.members.iter().filter_map(|member| member.guard.next_deadline());
        guards.chain(self.group.next_deadline()).min()
    }

    pub(super) fn show(&self, ctx: &mut ThreadContext) {
        for (member, router) in self.members.iter().zip(self.group.members()) {
            let report = ctx.report(member.instance);
            report.show(router);
            report.discarded = member.discards.current(Instant::now());
        }
    }

    /// Does all actions, in order.
    fn carry_out(&mut self, ctx: &mut ThreadContext) {
        while let Some((at, action)) = self.group.poll_action() {
            let Some(member) = self.members.get_mut(at) else { continue };
            let instance = member.instance;
            match action {
                Action::SendAdvert { priority } => self.advertise(at, priority, ctx),
                Action::Activate { until } => {
                    ctx.set_lease(instance, Some(until));
                    member.guard.activated(Instant::now());
                    ctx.tell(instance, EventKind::Taken);
                }
                Action::Renew { until } => ctx.set_lease(instance, Some(until)),
                Action::Deactivate => {
                    ctx.set_lease(instance, None);
                    member.guard.released();
                    ctx.tell(instance, EventKind::Released);
                }
                Action::AnnounceBurst { count, why } => {
                    ctx.counters(instance).announced += member.socket.link().announce(count);
                    ctx.tell(instance, EventKind::Announced(count, why));
                }
                Action::Transition { from, to, reason } => {
                    let now = Instant::now();
                    let after: Duration = now - std::mem::replace(&mut member.since, now);
                    ctx.counters(instance).note_transition(to, reason);
                    let after = Some(after);
                    ctx.tell(instance, EventKind::Transition { from, to, reason, after });
                }
            }
        }
    }

    /// One advert to each target; taken by one is enough.
    fn advertise(&mut self, at: usize, priority: u8, ctx: &mut ThreadContext) {
        let (Some(member), Some(router)) = (self.members.get_mut(at), self.group.members().get(at))
        else {
            return;
        };
        let mut message = [0; control::vrrp::MAX_MESSAGE_LEN];
        let mut error = 0;
        let mut sent = 0;
        let t = Instant::now();
        let mut target = 0;
        while let Some(to) = member.socket.target(target) {
            let result = match router.encode(priority, to, &mut message) {
                Ok(len) => member.socket.send(target, message.get(..len).unwrap_or_default()),
                Err(_) => Err(ErrorKind::InvalidInput.into()),
            };
            match result {
                Ok(()) => sent += 1,
                Err(failed) => error = failed.raw_os_error().unwrap_or(libc::EINVAL),
            }
            target += 1;
        }
        let ok = sent > 0;
        if !ok && !member.failing {
            ctx.tell(member.instance, EventKind::SendFailed(error));
        }
        member.failing = !ok;
        let counters = ctx.counters(member.instance);
        counters.sent += sent;
        counters.send_failed += u64::from(!ok);
        self.group.advert_sent(at, t, Instant::now(), ok);
    }
}
