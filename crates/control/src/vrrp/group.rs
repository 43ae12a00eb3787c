//! Sync groups: several instances that are Active together or not at all.
//!
//! A member whose `Active_Down_Timer` ends does not take over by itself: it waits until the timer
//! of every other member has ended too (an advert that is heard starts a member's wait again). A
//! group that is heard on one of its links therefore stays Backup on all of them, instead of
//! thrashing. When one member leaves Active, the others release their VIPs at once.
//!
//! Two nodes of which each is preferred on another link must not decide within one packet delay for
//! ever: each would be outbid on one link and give up all. A group that was outbid therefore waits
//! for a random time after its members' timers have ended, from a range that doubles with each such
//! defeat ([`Backoff`]); the node that decides first is then heard by the other one on every link.

use std::time::{Duration, Instant};

use super::action::{Action, Event, Heard, Reason};
use super::config::{Config, ConfigError};
use super::packet::Envelope;
use super::reject::Reject;
use super::router::Router;
use super::state::{State, StateName};
use super::timers;

/// Instances that share their fate. The contract is that of [`Router`]; actions carry the index of
/// their member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    members: Vec<Router>,
    active: bool,
    backoff: Backoff,
}

/// How long a group waits once all its members are willing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backoff {
    /// State of a splitmix64 generator.
    random: u64,
    /// The group owned all its VIPs since it became Active.
    owned: bool,
    /// Times in a row that a member was outbid before that.
    defeats: u32,
    wait: Duration,
    /// A defeat that was longer ago says nothing of what the other node will do next.
    expires: Option<Instant>,
    /// Since when all members have been willing.
    willing_since: Option<Instant>,
}

impl Group {
    /// A group of routers that have not been started. Groups of two nodes need different seeds.
    pub fn new(mut members: Vec<Router>, seed: u64) -> Self {
        for member in &mut members {
            member.gated = true;
        }
        Self { members, active: false, backoff: Backoff::new(seed) }
    }

    /// The members, in the order of their indices.
    pub fn members(&self) -> &[Router] {
        &self.members
    }

    /// One thing that happened to one member; nothing if there is no such member.
    pub fn handle(&mut self, member: usize, event: Event, now: Instant) {
        if let Some(router) = self.members.get_mut(member) {
            router.handle(event, now);
        }
        self.agree(now);
    }

    /// A message from the socket for one member; see [`Router::receive`].
    pub fn receive(
        &mut self,
        member: usize,
        message: &[u8],
        from: &Envelope,
        now: Instant,
    ) -> Result<Heard, Reject> {
        let router = self.members.get_mut(member).ok_or(Reject::Vrid)?;
        let heard = router.receive(message, from, now)?;
        self.agree(now);
        Ok(heard)
    }

    /// Another configuration for one member; see [`Router::reconfigure`].
    ///
    /// # Errors
    /// As there; nothing changes then.
    pub fn reconfigure(
        &mut self,
        member: usize,
        config: Config,
        now: Instant,
    ) -> Result<(), ConfigError> {
        if let Some(router) = self.members.get_mut(member) {
            router.reconfigure(config, now)?;
        }
        self.agree(now);
        Ok(())
    }

    /// One thing that concerns all: start, shutdown, resignation, a worker that stalls.
    pub fn handle_all(&mut self, event: Event, now: Instant) {
        for router in &mut self.members {
            router.handle(event, now);
        }
        self.agree(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        for router in &mut self.members {
            router.handle_timeout(now);
        }
        self.agree(now);
    }

    /// The result of a member's [`SendAdvert`](Action::SendAdvert).
    pub fn advert_sent(&mut self, member: usize, t: Instant, now: Instant, ok: bool) {
        if let Some(router) = self.members.get_mut(member) {
            router.advert_sent(t, now, ok);
        }
        self.agree(now);
    }

    /// What is to be done next, and for which member. `None`: nothing until the next event.
    pub fn poll_action(&mut self) -> Option<(usize, Action)> {
        let members = self.members.iter_mut().enumerate();
        members.into_iter().find_map(|(at, router)| Some((at, router.poll_action()?)))
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let members = self.members.iter().filter_map(Router::next_deadline).min();
        // Without a wait the group has decided already.
        let wait = self.backoff.willing_since.map(|since| since + self.backoff.wait);
        members.into_iter().chain(wait).min()
    }

    /// All or none.
    fn agree(&mut self, now: Instant) {
        // A stall is every member's: none may say goodbye for a lease that is over.
        for router in &mut self.members {
            router.lapse(now);
        }
        let all_active = self.members.iter().all(|m| m.state() == StateName::Active);
        if self.active && !all_active {
            self.active = false;
            self.yield_together(now);
        } else if self.active {
            self.backoff.owned |= self.members.iter().all(|m| m.lease_until().is_some());
        } else if self.is_time(now) {
            self.active = true;
            self.backoff.owned = false;
            for router in &mut self.members {
                if let State::Backup(backup) = router.state {
                    router.take_over(backup.cause, now);
                }
            }
        }
    }

    /// A member left Active: so do all.
    fn yield_together(&mut self, now: Instant) {
        let outbid = |m: &Router| {
            m.state() == StateName::Backup
                && matches!(m.reason, Reason::HigherPriority | Reason::HigherAddress)
        };
        if !self.backoff.owned && self.members.iter().any(outbid) {
            let interval = self.members.iter().map(|m| m.config().interval).max();
            let down = self.members.iter().map(longest_down_interval).max();
            self.backoff.lost(interval.unwrap_or_default(), now + 2 * down.unwrap_or_default());
        }
        for router in &mut self.members {
            if router.state() == StateName::Active {
                router.step_back(Reason::Group, now);
            }
        }
    }

    /// Whether all members are willing, and have been for as long as the group must wait.
    fn is_time(&mut self, now: Instant) -> bool {
        if !self.members.iter().all(willing) {
            self.backoff.willing_since = None;
            return false;
        }
        self.backoff.forget_after_expiry(now);
        let since = *self.backoff.willing_since.get_or_insert(now);
        let due = now.saturating_duration_since(since) >= self.backoff.wait;
        if due {
            self.backoff.willing_since = None;
        }
        due
    }
}

impl Backoff {
    const fn new(seed: u64) -> Self {
        Self {
            random: seed,
            owned: false,
            defeats: 0,
            wait: Duration::ZERO,
            expires: None,
            willing_since: None,
        }
    }

    /// A member was outbid. The wait is below one interval at first, then below two, four and eight.
    fn lost(&mut self, interval: Duration, expires: Instant) {
        let range = interval * 2_u32.pow(self.defeats.min(MOST_DOUBLINGS));
        self.defeats = self.defeats.saturating_add(1);
        let nanos = u64::try_from(range.as_nanos()).unwrap_or(u64::MAX);
        self.wait = Duration::from_nanos(self.next() % nanos.max(1));
        self.expires = Some(expires);
    }

    fn forget_after_expiry(&mut self, now: Instant) {
        if self.willing_since.is_none() && self.expires.is_some_and(|at| at <= now) {
            (self.defeats, self.wait, self.expires) = (0, Duration::ZERO, None);
        }
    }

    /// splitmix64.
    const fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const MOST_DOUBLINGS: u32 = 3;

/// `Active_Down_Interval` of the lowest priority.
fn longest_down_interval(router: &Router) -> Duration {
    let config = router.config();
    timers::active_down(config.version, 1, config.interval, config.down_adverts)
}

/// Whether a member's wait has ended.
fn willing(router: &Router) -> bool {
    matches!(router.state, State::Backup(backup) if backup.down_at.is_none())
}
