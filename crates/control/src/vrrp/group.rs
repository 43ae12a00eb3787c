//! Sync groups: several instances that are Active together or not at all.
//!
//! A member whose `Active_Down_Timer` ends does not take over by itself: it waits until the timer
//! of every other member has ended too (an advert that is heard starts a member's wait again). A
//! group that is heard on one of its links therefore stays Backup on all of them, instead of
//! thrashing. When one member leaves Active, the others release their VIPs at once.

use std::time::Instant;

use super::action::{Action, Event, Heard, Reason};
use super::packet::Envelope;
use super::reject::Reject;
use super::router::Router;
use super::state::{State, StateName};

/// Instances that share their fate. The contract is that of [`Router`]; actions carry the index of
/// their member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    members: Vec<Router>,
    active: bool,
}

impl Group {
    /// A group of routers that have not been started.
    pub fn new(mut members: Vec<Router>) -> Self {
        for member in &mut members {
            member.gated = true;
        }
        Self { members, active: false }
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
        self.members.iter().filter_map(Router::next_deadline).min()
    }

    /// All or none.
    fn agree(&mut self, now: Instant) {
        // A stall is every member's: nobody may say goodbye for a lease that is over.
        for router in &mut self.members {
            router.lapse(now);
        }
        let all_active = self.members.iter().all(|m| m.state() == StateName::Active);
        if self.active && !all_active {
            self.active = false;
            for router in &mut self.members {
                if router.state() == StateName::Active {
                    router.step_back(Reason::Group, now);
                }
            }
        } else if !self.active && self.members.iter().all(willing) {
            self.active = true;
            for router in &mut self.members {
                if let State::Backup(backup) = router.state {
                    router.take_over(backup.cause, now);
                }
            }
        }
    }
}

/// Whether a member's wait has ended.
fn willing(router: &Router) -> bool {
    matches!(router.state, State::Backup(backup) if backup.down_at.is_none())
}
