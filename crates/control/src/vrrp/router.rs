//! One virtual router: events in, actions out.
//!
//! Owns the state, its deadlines and the lease. Owns no clock, socket or thread, and never blocks,
//! allocates (after `new`) or panics. The rules of the election are in `election`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::action::{Action, Announce, Block, Event, Heard, Queue, Reason};
use super::config::{ChecksumMode, Config, ConfigError};
use super::filter;
use super::foreign::Foreign;
use super::packet::{
    Addresses, ChecksumStyle, EncodeError, Envelope, MAX_MESSAGE_LEN, Outgoing, encode,
};
use super::peers::{Peer, Peers};
use super::reconfigure::Easing;
use super::reject::Reject;
use super::rollout::{AddressList, Rollout, overlaps};
use super::state::{Active, State, StateName};
use super::timers;

/// The state machine of one VRRP instance.
///
/// **The single-mutation contract**: each call of [`handle`](Self::handle),
/// [`receive`](Self::receive) or [`handle_timeout`](Self::handle_timeout) is followed by
/// [`poll_action`](Self::poll_action) until it returns `None`, and each
/// [`SendAdvert`](Action::SendAdvert) among the actions by [`advert_sent`](Self::advert_sent). Then
/// [`next_deadline`](Self::next_deadline) says when to call again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    pub(super) config: Config,
    pub(super) state: State,
    pub(super) since: Option<Instant>,
    pub(super) reason: Reason,
    /// Started and not shut down.
    pub(super) running: bool,
    /// Configured priority plus weights; 0: a tracked thing forbids to be Active.
    pub(super) priority: u8,
    pub(super) block: Option<Block>,
    /// No preemption before.
    pub(super) resigned_until: Option<Instant>,
    /// `Active_Adver_Interval`.
    pub(super) active_interval: Duration,
    /// When the last gap in what this thread heard ended.
    pub(super) listening_since: Option<Instant>,
    /// Transitions to Active wait for the sync group.
    pub(super) gated: bool,
    pub(super) stalls: u64,
    pub(super) actions: Queue,
    pub(super) foreign: Foreign,
    pub(super) peers: Peers,
    pub(super) rollout: Rollout,
    /// While a longer interval is introduced.
    pub(super) easing: Option<Easing>,
    pub(super) style: ChecksumStyle,
}

/// What `pointsman vrrp` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: StateName,
    /// Since when. `None`: never started.
    pub since: Option<Instant>,
    /// Why.
    pub reason: Reason,
    /// Priority in the configuration.
    pub configured_priority: u8,
    /// Priority that is advertised; 0: cannot be Active now.
    pub effective_priority: u8,
    /// Why this node cannot forward, if so.
    pub block: Option<Block>,
    /// The interval in force: ours, or that of the Active that is followed.
    pub active_interval: Duration,
    /// The VIPs are active until then unless another advert is sent.
    pub lease_until: Option<Instant>,
    /// No preemption before.
    pub resigned_until: Option<Instant>,
    /// How often this thread was found to have stalled.
    pub stalls: u64,
    /// Checksum style in use (version 3 over IPv4).
    pub checksum: ChecksumStyle,
}

impl Router {
    /// A router in Initialize. Nothing happens before [`Event::Start`].
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            state: State::Initialize,
            since: None,
            reason: Reason::Startup,
            running: false,
            priority: config.priority,
            block: None,
            resigned_until: None,
            active_interval: config.interval,
            listening_since: None,
            gated: false,
            stalls: 0,
            actions: Queue::new(),
            style: match config.checksum {
                ChecksumMode::Auto => ChecksumStyle::Plain,
                ChecksumMode::Fixed(style) => style,
            },
            foreign: Foreign::default(),
            peers: Peers::default(),
            rollout: Rollout::default(),
            easing: None,
            config,
        })
    }

    /// The configuration it runs with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The state.
    pub const fn state(&self) -> StateName {
        self.state.name()
    }

    /// Everything an operator asks for.
    pub fn status(&self) -> Status {
        Status {
            state: self.state(),
            since: self.since,
            reason: self.reason,
            configured_priority: self.config.priority,
            effective_priority: self.effective(),
            block: self.block,
            active_interval: self.active_interval,
            lease_until: self.lease_until(),
            resigned_until: self.resigned_until,
            stalls: self.stalls,
            checksum: self.style,
        }
    }

    /// Routers heard so far, at most eight.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }

    /// End of the lease; `None` while the VIPs are not active here.
    pub const fn lease_until(&self) -> Option<Instant> {
        match self.state {
            State::Active(Active { activated: true, lease_until, .. }) => Some(lease_until),
            State::Active(_) | State::Backup(_) | State::Initialize => None,
        }
    }

    /// A message from the socket. A rejected one moves nothing.
    ///
    /// Drain the socket before looking at timers: what waited there was sent before they ended.
    pub fn receive(
        &mut self,
        message: &[u8],
        from: &Envelope,
        now: Instant,
    ) -> Result<Heard, Reject> {
        let advert = filter::accept_any_list(&self.config, message, from)?;
        let Some(list) = self.classify(&advert.addresses, from.source, now) else {
            self.note_stranger(&advert, from.source, now);
            return Err(Reject::Addresses);
        };
        let heard = Heard {
            list,
            source: from.source,
            priority: advert.priority,
            interval: advert.interval,
            checksum: advert.checksum,
        };
        self.handle(Event::Heard(heard), now);
        Ok(heard)
    }

    /// What a list of addresses says of its sender; `None`: it is another virtual router's.
    fn classify(&self, list: &Addresses<'_>, source: IpAddr, now: Instant) -> Option<AddressList> {
        if list.same_as(&self.config.vips) {
            return Some(AddressList::Same);
        }
        // With no address in common, neither can take a VIP from the other.
        if !overlaps(list, &self.config.vips) {
            return None;
        }
        if self.rollout.had(list, now) {
            return Some(AddressList::Former);
        }
        let known = self.follows(source) || self.peers.knows(source);
        known.then_some(AddressList::Other)
    }

    /// One thing that happened.
    pub fn handle(&mut self, event: Event, now: Instant) {
        self.lapse(now);
        match event {
            Event::Start => self.start(now),
            Event::Shutdown => {
                self.running = false;
                self.reason = Reason::Shutdown;
                self.leave(State::Initialize, Reason::Shutdown, now);
            }
            Event::Heard(heard) => {
                self.peers.note(heard, now);
                self.heard(heard, now);
            }
            Event::SetPriority(priority) => {
                let before = std::mem::replace(&mut self.priority, priority);
                self.reconsider(Reason::Tracking, now);
                if let State::Active(active) = &mut self.state
                    && before != priority
                {
                    active.advert_at = now;
                    self.advertise_if_due(now);
                }
            }
            Event::SetForwarding(block) => {
                self.block = block;
                self.reconsider(block.map_or(Reason::Recovered, Reason::from), now);
            }
            Event::Resign(time) => self.resign(time, now),
            Event::Announce => self.announce_again(Announce::Requested, now),
        }
    }

    /// What is to be done next. `None`: nothing until the next event or deadline.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Initialize => None,
            State::Backup(backup) => backup.down_at,
            State::Active(active) => Some(active.next_deadline()),
        }
    }

    /// Does what is due at `now`; harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.lapse(now);
        match self.state {
            State::Initialize => {}
            State::Backup(backup) => self.active_down_timer(backup, now),
            State::Active(_) => {
                self.advertise_if_due(now);
                self.activate_if_due(now);
                self.announce_if_due(now);
            }
        }
    }

    /// The result of a [`SendAdvert`](Action::SendAdvert): `t` was read before the send, `now` after
    /// it; `ok` is whether the kernel took the packet (in unicast mode, for at least one peer).
    ///
    /// A successful advert extends the lease to `t + (down_adverts - 0.5) * interval` (while a longer
    /// interval is introduced, the former one), unless the
    /// lease ran out while it was being sent: a thread that stalls between clock and socket sends
    /// an advert that no router heard in time.
    pub fn advert_sent(&mut self, t: Instant, now: Instant, ok: bool) {
        let State::Active(active) = &mut self.state else { return };
        active.failing = !ok;
        if now >= active.lease_until {
            self.lapse(now);
            // Peers believe the advert that has just gone out late.
            self.actions.push(Action::SendAdvert { priority: 0 });
            return;
        }
        if !ok {
            return;
        }
        self.ease();
        let span = timers::lease(self.pace(), self.config.down_adverts);
        let State::Active(active) = &mut self.state else { return };
        active.lease_until = active.lease_until.max(t + span);
        if active.activated {
            let until = active.lease_until;
            self.actions.push(Action::Renew { until });
        } else if active.heralded_at.is_none() {
            active.heralded_at = Some(now);
            // A Backup that did not hear of this router in time may be Active by now.
            if now.saturating_duration_since(active.advertised_at)
                > timers::settle(self.config.interval)
            {
                self.listening_since = Some(now);
            }
            self.plan_activation(now);
        }
    }

    /// Writes the advert that [`SendAdvert`](Action::SendAdvert) asked for, as sent to `to`.
    /// [`MAX_MESSAGE_LEN`] bytes are always enough.
    pub fn encode(&self, priority: u8, to: IpAddr, out: &mut [u8]) -> Result<usize, EncodeError> {
        const { assert!(MAX_MESSAGE_LEN <= 1460) };
        let outgoing = Outgoing {
            version: self.config.version,
            vrid: self.config.vrid,
            priority,
            interval: self.config.interval,
            vips: &self.config.vips,
            checksum: self.style,
            source: self.config.primary,
            destination: to,
            auth: self.config.auth_pass,
        };
        encode(&outgoing, out)
    }

    /// The priority that decides: 0 while this node cannot forward.
    pub(super) const fn effective(&self) -> u8 {
        if self.block.is_some() { 0 } else { self.priority }
    }

    /// So that the sender believes the next advert.
    pub(super) fn learn_style(&mut self, heard: ChecksumStyle) {
        if self.config.checksum == ChecksumMode::Auto {
            self.style = heard;
        }
    }
}
