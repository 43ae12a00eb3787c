//! The rules of the election: RFC 9568 §6.4, and what a lease adds to them.

use std::time::{Duration, Instant};

use super::action::{Action, Announce, Heard, Reason};
use super::config::Handover;
use super::foreign::{Foreign, Goodbye};
use super::rollout::AddressList;
use super::router::Router;
use super::state::{Active, Backup, State};
use super::timers;

impl Router {
    /// RFC 9568 §6.4.1: Startup.
    pub(super) fn start(&mut self, now: Instant) {
        self.running = true;
        if self.state == State::Initialize {
            self.take_part(Reason::Startup, now);
        }
    }

    /// A change of what decides whether this node may be Active at all.
    pub(super) fn reconsider(&mut self, why_not: Reason, now: Instant) {
        let able = self.effective() != 0;
        let taking_part = self.state != State::Initialize;
        if taking_part && !able {
            self.leave(State::Initialize, why_not, now);
        } else if self.running && !taking_part && able {
            self.take_part(Reason::Recovered, now);
        }
    }

    /// RFC 9568 §6.4.1: the owner becomes Active at once, everybody else listens.
    fn take_part(&mut self, reason: Reason, now: Instant) {
        let why_not = self.block.map_or(Reason::Tracking, Reason::from);
        match self.effective() {
            0 => {
                self.since = Some(now);
                self.reason = why_not;
            }
            OWNER if !self.gated => {
                self.listening_since = None;
                self.take_over(Reason::Owner, now);
            }
            OWNER => {
                self.listen(reason, now);
                self.listening_since = None;
                if let State::Backup(backup) = &mut self.state {
                    *backup = Backup { down_at: None, cause: Reason::Owner, ..*backup };
                }
            }
            _ => self.listen(reason, now),
        }
    }

    /// Enters Backup with the own interval, as §6.4.1 does, knowing nothing of others.
    pub(super) fn listen(&mut self, reason: Reason, now: Instant) {
        self.listening_since = Some(now);
        self.foreign = Foreign::default();
        self.active_interval = self.longest_interval(now);
        let backup = self.backup(now);
        self.transition(State::Backup(backup), reason, now);
    }

    /// §6.4.2: `Active_Down_Timer` fires.
    pub(super) fn active_down_timer(&mut self, backup: Backup, now: Instant) {
        let Some(down_at) = backup.down_at.filter(|&at| at <= now) else { return };
        // Time in which this thread did not run is no proof of anybody's silence.
        if now.duration_since(down_at) > timers::lateness(self.active_interval) {
            self.stalls = self.stalls.saturating_add(1);
            self.listening_since = Some(now);
            let restarted = self.backup(now);
            self.state = State::Backup(Backup { preempt_at: backup.preempt_at, ..restarted });
            return;
        }
        if let Some((heard, at)) = self.succeed(now)
            && self.follow(backup, heard, (at, now))
        {
            return;
        }
        let cause = if self.foreign_is_active(now) { Reason::Preempt } else { backup.cause };
        if self.gated {
            self.state = State::Backup(Backup { down_at: None, cause, ..backup });
        } else {
            self.take_over(cause, now);
        }
    }

    /// §6.4.2: send an advert, become Active. The VIPs follow when the advert is out
    /// and no other Active can hold a lease.
    pub(super) fn take_over(&mut self, reason: Reason, now: Instant) {
        let patience = timers::lease(self.config.interval, self.config.down_adverts);
        self.resigned_until = None;
        self.active_interval = self.config.interval;
        self.actions.push(Action::SendAdvert { priority: self.effective() });
        let active = Active {
            advert_at: now + self.config.interval,
            advertised_at: now,
            lease_until: now + patience,
            heralded_at: None,
            failing: false,
            activated: false,
            activate_at: None,
            announce_at: None,
            announced_at: None,
        };
        self.transition(State::Active(active), reason, now);
    }

    /// An advert that passed the filter.
    pub(super) fn heard(&mut self, heard: Heard, now: Instant) {
        match (self.state, heard.priority) {
            // §6.4.1: Initialize waits for Startup; a packet still in the socket is no event.
            (State::Initialize, _) => {}
            (State::Backup(backup), 0) => self.goodbye_heard_in_backup(backup, heard, now),
            (State::Backup(backup), _) => self.heard_in_backup(backup, heard, now),
            (State::Active(_), 0) => {
                if self.dismiss(heard.source) == Goodbye::Vacant {
                    self.plan_activation(now);
                }
                // §6.4.3: answer, so that no other router thinks the VIPs are free.
                self.reply(now);
                // It was Active, too (a healed partition): hosts that it told of its address must
                // be told of ours.
                self.announce_again(Announce::LowerPriority, now);
            }
            (State::Active(active), _) => self.heard_in_active(active, heard, now),
        }
    }

    /// §6.4.2: the Active leaves, so wait `Skew_Time` only.
    fn goodbye_heard_in_backup(&mut self, mut backup: Backup, heard: Heard, now: Instant) {
        // An Active that yields says goodbye too; of its successor's silence the timer will tell.
        if self.dismiss(heard.source) == Goodbye::Irrelevant {
            return;
        }
        if let Some((heard, at)) = self.succeed(now)
            && self.follow(backup, heard, (at, now))
        {
            return;
        }
        if let Some(down_at) = backup.down_at {
            let version = self.config.version;
            let skew = timers::skew(version, self.effective(), self.active_interval);
            // Never later than without it: goodbyes in a row postpone nothing.
            backup.down_at = Some(down_at.min(now + skew));
            backup.cause = Reason::Goodbye;
            self.state = State::Backup(backup);
        }
    }

    fn heard_in_backup(&mut self, backup: Backup, heard: Heard, now: Instant) {
        if self.admit(heard, now) {
            self.learn_style(heard.checksum);
            self.follow(backup, heard, (now, now));
        }
    }

    /// §6.4.2: follow a better Active, or any one without preemption; a worse one is not heard and
    /// the timer runs on. `at` is when the Active was heard. Returns whether it is followed.
    fn follow(&mut self, mut backup: Backup, heard: Heard, (at, now): (Instant, Instant)) -> bool {
        let worse = heard.priority < self.effective();
        if worse && !self.may_be_deaf(&heard) && self.may_preempt(&mut backup, now) {
            self.state = State::Backup(backup);
            return false;
        }
        self.learn_interval(heard, at);
        let preempt_at = backup.preempt_at.filter(|_| worse);
        self.state = State::Backup(Backup { preempt_at, ..self.backup(at) });
        true
    }

    /// §6.4.3: a better Active wins, a worse one is answered at once.
    fn heard_in_active(&mut self, active: Active, heard: Heard, now: Instant) {
        let own = self.effective();
        let reason = if heard.priority > own {
            Reason::HigherPriority
        } else if heard.priority == own && heard.source > self.config.primary {
            // §6.4.3: as unsigned integers in network byte order.
            Reason::HigherAddress
        } else if self.may_be_deaf(&heard) {
            Reason::FormerList
        } else {
            // Before the own advert is out, each router that advertises may hold a lease.
            let silent = active.heralded_at.is_none();
            if !active.activated && (silent || self.is_predecessor(&heard)) {
                self.accept_active(heard, now);
                self.plan_activation(now);
            }
            // The answer must be one that the sender can read.
            self.learn_style(heard.checksum);
            self.reply(now);
            self.announce_again(Announce::LowerPriority, now);
            return;
        };
        self.accept_active(heard, now);
        self.learn_style(heard.checksum);
        self.learn_interval(heard, now);
        let backup = self.backup(now);
        self.leave(State::Backup(backup), reason, now);
    }

    /// §6.4.2: a Backup has the interval of the Active that it follows.
    fn learn_interval(&mut self, heard: Heard, at: Instant) {
        self.active_interval = heard.interval;
        self.rollout.lease = Some((heard.source, at + self.foreign_lease(heard.interval)));
    }

    /// Whether the sender may discard what this router sends, for its list of addresses: it would not
    /// yield.
    fn may_be_deaf(&self, heard: &Heard) -> bool {
        match heard.list {
            AddressList::Same => false,
            AddressList::Former => true,
            AddressList::Other => self.rollout.followed == Some(heard.source),
        }
    }

    /// `Event::Resign`.
    pub(super) fn resign(&mut self, time: Duration, now: Instant) {
        self.resigned_until = Some(now + time.min(LONGEST_RESIGNATION));
        if matches!(self.state, State::Active(_)) {
            self.step_back(Reason::Resigned, now);
        }
    }

    /// From Active to Backup of own accord.
    pub(super) fn step_back(&mut self, reason: Reason, now: Instant) {
        self.active_interval = self.longest_interval(now);
        let backup = self.backup(now);
        self.leave(State::Backup(backup), reason, now);
    }

    /// Out of Active or Backup. First the VIPs become inactive, then priority 0 says so (§6.4.3): the
    /// other way round two nodes could own them for a moment.
    ///
    /// Said also on yielding to a better Active, which RFC 9568 does not ask for: a successor that
    /// waits for the lease to end need wait no longer.
    pub(super) fn leave(&mut self, to: State, reason: Reason, now: Instant) {
        match self.state {
            State::Initialize => return,
            State::Backup(_) => {}
            State::Active(active) => {
                if active.activated {
                    self.actions.push(Action::Deactivate);
                }
                self.actions.push(Action::SendAdvert { priority: 0 });
            }
        }
        self.transition(to, reason, now);
    }

    /// The lease is over: this thread stalled, or nothing could be sent. Whatever else is to be
    /// done, first be a Backup; no goodbye, another node may be Active by now.
    pub(super) fn lapse(&mut self, now: Instant) {
        let State::Active(active) = self.state else { return };
        if now < active.lease_until {
            return;
        }
        if active.activated {
            self.actions.push(Action::Deactivate);
        }
        let reason = if active.failing { Reason::SendFailed } else { Reason::Stalled };
        if reason == Reason::Stalled {
            self.stalls = self.stalls.saturating_add(1);
        }
        self.listen(reason, now);
    }

    /// §6.4.3: `Adver_Timer` fires. Late wake-ups do not slow the rhythm down.
    pub(super) fn advertise_if_due(&mut self, now: Instant) {
        let interval = self.pace();
        let priority = self.effective();
        let State::Active(active) = &mut self.state else { return };
        if active.advert_at > now {
            return;
        }
        let next = active.advert_at + interval;
        active.advert_at = if next > now { next } else { now + interval };
        active.advertised_at = now;
        self.actions.push(Action::SendAdvert { priority });
    }

    /// The VIPs become active once an advert is out and no other router can hold the lease.
    pub(super) fn activate_if_due(&mut self, now: Instant) {
        let State::Active(active) = &mut self.state else { return };
        let due = active.activate_at.is_some_and(|at| at <= now) && now < active.lease_until;
        if active.activated || !due {
            return;
        }
        active.activated = true;
        self.foreign = Foreign::default();
        active.announce_at = Some((now, Announce::Taken));
        let until = active.lease_until;
        self.actions.push(Action::Activate { until });
        self.announce_if_due(now);
    }

    /// §6.4.2: gratuitous ARP or unsolicited neighbour advertisements.
    pub(super) fn announce_if_due(&mut self, now: Instant) {
        let times = self.config.announce;
        let State::Active(active) = &mut self.state else { return };
        let Some((_, why)) = active.announce_at.filter(|&(at, _)| at <= now) else { return };
        let again = match why {
            Announce::Repeated | Announce::Refresh => times.refresh.map(|d| (d, Announce::Refresh)),
            Announce::Taken | Announce::LowerPriority | Announce::Requested => {
                Some((times.delay, Announce::Repeated))
            }
        };
        active.announced_at = Some(now);
        active.announce_at = again.map(|(delay, why)| (now + delay.max(ANNOUNCE_GAP), why));
        self.actions.push(Action::AnnounceBurst { count: times.count, why });
    }

    /// Announces at once, or a second after the last time.
    pub(super) fn announce_again(&mut self, why: Announce, now: Instant) {
        let State::Active(active) = &mut self.state else { return };
        if !active.activated {
            return;
        }
        let at = active.announced_at.map_or(now, |last| now.max(last + ANNOUNCE_GAP));
        if active.announce_at.is_none_or(|(planned, _)| at < planned) {
            active.announce_at = Some((at, why));
        }
        self.announce_if_due(now);
    }

    /// An advert out of turn, unless the last one is so young that it says the same.
    fn reply(&mut self, now: Instant) {
        let gap = timers::settle(self.config.interval);
        if let State::Active(active) = &mut self.state {
            let soon = now.max(active.advertised_at + gap);
            active.advert_at = active.advert_at.min(soon);
        }
        self.advertise_if_due(now);
    }

    /// A fresh Backup that waits `Active_Down_Interval` (§6.1).
    fn backup(&self, now: Instant) -> Backup {
        let wait = timers::active_down(
            self.config.version,
            self.effective(),
            self.active_interval,
            self.config.down_adverts,
        );
        let down_at = Some(now + wait);
        Backup { down_at, preempt_at: None, cause: Reason::Silent }
    }

    fn may_preempt(&self, backup: &mut Backup, now: Instant) -> bool {
        if !self.config.preempt || self.resigned_until.is_some_and(|until| now < until) {
            return false;
        }
        let delay = self.config.preempt_delay;
        now >= *backup.preempt_at.get_or_insert(now + delay)
    }

    /// When the lease is over of an Active whose last advert came before this thread listened. An
    /// owner need not mind.
    fn unheard_until(&self) -> Option<Instant> {
        let since = self.listening_since?;
        Some(since + self.foreign_lease(self.longest_interval(since)))
    }

    /// When the VIPs may become active: when every other Active had the time to object to the first
    /// advert, and no lease of a predecessor can be running. An Active that has this advert renews its
    /// lease no more, so a lease after it none is left.
    pub(super) fn plan_activation(&mut self, now: Instant) {
        let (claimed, followed) = match self.config.handover {
            Handover::Lease => (
                self.claimed_until(now).max(self.unheard_until()).max(self.rollout.stranger_until),
                self.rollout.lease.map(|(_, until)| until),
            ),
            Handover::AtOnce => (None, None),
        };
        let settle = timers::settle(self.config.interval);
        let longest = self.longest_foreign_lease(now);
        if let State::Active(active) = &mut self.state {
            active.activate_at = active.heralded_at.map(|at| {
                let free = claimed.map_or(at, |until| until.min(at + longest));
                free.max(at + settle).max(followed.unwrap_or(at))
            });
        }
    }

    fn transition(&mut self, to: State, reason: Reason, now: Instant) {
        let from = self.state.name();
        self.easing = None;
        self.state = to;
        self.since = Some(now);
        self.reason = reason;
        self.actions.push(Action::Transition { from, to: to.name(), reason });
    }
}

/// Priority of the router that owns the addresses (RFC 9568 §5.2.4).
const OWNER: u8 = 255;
/// Bursts of announcements are at least this far apart.
const ANNOUNCE_GAP: Duration = Duration::from_secs(1);
/// Longer ones are cut: nothing waits for their end.
const LONGEST_RESIGNATION: Duration = Duration::from_secs(365 * 24 * 3600);
