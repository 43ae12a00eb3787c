//! Which senders may move this router: the Active that it follows or is about to preempt, no other.
//!
//! VRRP has no authentication, so one forged or misconfigured advert must cost nothing. An Active
//! that hears a better one yields. A sender that advertises while a better Active is alive either has
//! not heard that one yet or never yields; it moves no timer, teaches no interval and holds up no
//! activation. Once the better Active is heard again, the sender is known not to yield: unless this
//! router would have to follow it, it stays ignored for as long as its own lease could last, so that
//! it cannot wait for the Active's death either. If the better Active is not heard again, the sender
//! may be its successor and takes its place.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::action::Heard;
use super::packet::Advert;
use super::rollout::overlaps;
use super::router::Router;
use super::timers;

/// What is known of other Actives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Foreign {
    /// The best one that was heard and has not said goodbye.
    active: Option<Sighting>,
    /// A worse one that was heard since the last advert of that one.
    contender: Option<Sighting>,
    /// Actives that must give way to it and have not said goodbye.
    replaced: Option<Replaced>,
}

/// When no lease can be running of Actives that another one replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Replaced {
    /// `None`: several.
    source: Option<IpAddr>,
    until: Instant,
}

/// An Active and its last advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    last: Heard,
    at: Instant,
}

/// What a goodbye (priority 0) means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// No Active is left.
    Vacant,
    /// Another one is there.
    Irrelevant,
}

impl Router {
    /// Notes an advert whose priority is not 0. Returns whether its sender is the Active that this
    /// router follows or is to preempt; all others are ignored.
    pub(super) fn admit(&mut self, heard: Heard, now: Instant) -> bool {
        let active = self.foreign.active;
        let known = active.is_some_and(|active| active.last.source == heard.source);
        let worse = heard.priority < self.effective();
        if worse && !known && self.peers.is_ignored(heard.source, now) {
            return false;
        }
        let outranked =
            |other: &Sighting| self.is_alive(other, now) && rank(&heard) < rank(&other.last);
        if !known && active.is_some_and(|active| outranked(&active)) {
            let contender = self.foreign.contender;
            if contender.is_none_or(|contender| !outranked(&contender)) {
                self.foreign.contender = Some(Sighting { last: heard, at: now });
            }
            return false;
        }
        self.accept_active(heard, now);
        true
    }

    /// `heard` is the Active from now on.
    pub(super) fn accept_active(&mut self, heard: Heard, now: Instant) {
        if let Some(contender) = self.foreign.contender.take()
            && contender.last.source != heard.source
        {
            let interval = contender.last.interval.max(self.longest_interval(now));
            self.peers.ignore(contender.last.source, now + self.foreign_lease(interval));
        }
        let other = self.foreign.active.filter(|active| active.last.source != heard.source);
        if let Some(other) = other.filter(|active| self.lease_of(active, now) > now) {
            let earlier = self.foreign.replaced.filter(|replaced| now < replaced.until);
            let source = Some(other.last.source).filter(|_| earlier.is_none());
            // It yields when it hears of this one, and renews no lease after that.
            let longest = self.longest_interval(now).max(self.believed(&other.last, now));
            let until = now + self.foreign_lease(longest);
            self.foreign.replaced = Some(Replaced { source, until });
        }
        self.foreign.active = Some(Sighting { last: heard, at: now });
    }

    /// Whether a new Active must wait for the lease of this sender: it is the one that is preempted, or
    /// has outbid that one. A Backup that became Active at the same time has no lease yet.
    pub(super) fn is_predecessor(&self, heard: &Heard) -> bool {
        self.foreign.active.is_some_and(|active| {
            active.last.source == heard.source || rank(heard) > rank(&active.last)
        })
    }

    /// Notes an advert of priority 0.
    pub(super) fn dismiss(&mut self, source: IpAddr) -> Goodbye {
        self.rollout.lease = self.rollout.lease.filter(|(of, _)| *of != source);
        if self.foreign.replaced.is_some_and(|replaced| replaced.source == Some(source)) {
            self.foreign.replaced = None;
        }
        self.foreign.contender =
            self.foreign.contender.filter(|contender| contender.last.source != source);
        match self.foreign.active {
            Some(active) if active.last.source != source => Goodbye::Irrelevant,
            Some(_) | None => {
                self.foreign.active = None;
                // A worse one than this router had to yield to the one that leaves: no lease is left.
                let own = self.effective();
                self.foreign.contender =
                    self.foreign.contender.filter(|contender| contender.last.priority >= own);
                Goodbye::Vacant
            }
        }
    }

    /// The Active left or is late. If it fell silent, returns the last advert of the one that may
    /// have succeeded it, which is the Active now, and when it was heard.
    pub(super) fn succeed(&mut self, now: Instant) -> Option<(Heard, Instant)> {
        let contender = self.foreign.contender.take()?;
        // Before the Active fell silent, no other router can have succeeded it.
        let interval = contender.last.interval.min(self.active_interval);
        let lease_until = contender.at + self.foreign_lease(interval);
        if self.foreign_is_active(now) || lease_until <= now {
            return None;
        }
        self.foreign.active = Some(contender);
        Some((contender.last, contender.at))
    }

    /// Whether an Active was heard whose lease may be running.
    pub(super) fn foreign_is_active(&self, now: Instant) -> bool {
        self.foreign.active.is_some_and(|active| self.lease_of(&active, now) > now)
    }

    /// When the leases of all Actives that were heard are over.
    pub(super) fn claimed_until(&self, now: Instant) -> Option<Instant> {
        let active = self.foreign.active.map(|active| self.lease_of(&active, now));
        active.max(self.foreign.replaced.map(|replaced| replaced.until))
    }

    /// At most how long another router holds a lease after an advert with this interval.
    pub(super) fn foreign_lease(&self, interval: Duration) -> Duration {
        timers::foreign_lease(interval, self.config.down_adverts)
    }

    fn lease_of(&self, active: &Sighting, now: Instant) -> Instant {
        active.at + self.foreign_lease(self.believed(&active.last, now))
    }

    /// Nodes of one virtual router have one interval, or lately had: a longer one buys no longer lease,
    /// except for a listed peer, which may have been reloaded before this node.
    fn believed(&self, heard: &Heard, now: Instant) -> Duration {
        self.believed_interval(heard.source, heard.interval, now)
    }

    fn believed_interval(&self, source: IpAddr, interval: Duration, now: Instant) -> Duration {
        let listed = self.config.peers.contains(&source);
        if listed { interval } else { interval.min(self.longest_interval(now)) }
    }

    /// An advert with another list of addresses was discarded. If a VIP of ours is in it, its sender may
    /// have a lease of it.
    pub(super) fn note_stranger(&mut self, advert: &Advert<'_>, source: IpAddr, now: Instant) {
        if overlaps(&advert.addresses, &self.config.vips) {
            let interval = self.believed_interval(source, advert.interval, now);
            let until = now + self.foreign_lease(interval);
            let goodbye = advert.priority == 0;
            self.rollout.stranger_until = Some(until).filter(|_| !goodbye);
        }
    }

    /// The longest lease that an Active may have which has just heard of this router.
    pub(super) fn longest_foreign_lease(&self, now: Instant) -> Duration {
        let active = self.foreign.active.map(|active| self.believed(&active.last, now));
        self.foreign_lease(self.longest_interval(now).max(active.unwrap_or_default()))
    }

    /// The longest interval that a peer may be configured with.
    pub(super) fn longest_interval(&self, now: Instant) -> Duration {
        self.rollout.longest_interval(self.config.interval, now)
    }

    /// Whether this sender is the Active that is followed or to be preempted.
    pub(super) fn follows(&self, source: IpAddr) -> bool {
        self.foreign.active.is_some_and(|active| active.last.source == source)
    }

    /// That Active.
    pub(super) fn followed(&self) -> Option<IpAddr> {
        self.foreign.active.map(|active| active.last.source)
    }

    /// Whether an Active's lease runs for certain, so that no other Backup can have replaced it.
    fn is_alive(&self, active: &Sighting, now: Instant) -> bool {
        now < active.at + timers::lease(active.last.interval, self.config.down_adverts)
    }
}

/// The order in which Actives give way to each other (RFC 9568 §6.4.3).
const fn rank(heard: &Heard) -> (u8, IpAddr) {
    (heard.priority, heard.source)
}
