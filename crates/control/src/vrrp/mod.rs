//! VRRP, versions 2 (RFC 3768) and 3 (RFC 9568), IPv4 and IPv6: who owns the VIPs.
//!
//! Sans-IO: bytes, events and the time go in, actions come out. Nothing here reads a clock, opens a
//! socket, allocates after construction, or panics on what the network sends.
//!
//! | module | owns |
//! |---|---|
//! | `packet`, `checksum` | the wire format |
//! | `filter`, `reject` | which messages are believed, and why others are not |
//! | `config` | one instance, checked |
//! | `router`, `state`, `action` | the machine and its contract |
//! | `election`, `timers` | its rules: RFC 9568 §6.4 and the lease |
//! | `reconfigure`, `rollout` | another configuration while it runs, and peers that have not got it yet |
//! | `foreign`, `peers` | which senders may move it; who was heard |
//! | `group` | instances that are Active together or not at all |
//! | `track`, `script` | effective priority and its reasons |
//! | `announce` | gratuitous ARP and unsolicited neighbour advertisements |
//! | `auth`, `discarded` | the password of version 2; peers whose adverts are discarded |
//! | `guard` | who else claims a VIP |
//!
//! # Being Active is a lease
//!
//! The VIPs are active until [`Router::lease_until`], which each successful advert extends to half
//! an interval before the earliest moment at which a Backup may take over. Rules that follow, beyond
//! the RFC's:
//!
//! * A router whose lease ran out becomes a Backup before it does anything else, whatever woke it.
//! * A new Active listens for 1/16 interval after its first advert before it activates the VIPs: of
//!   two Backups whose timers end together only one ever does.
//! * One that preempts activates them when the old Active says goodbye (priority 0, sent on
//!   yielding too), at the latest when that one's lease must be over. [`Handover::AtOnce`] does not
//!   wait.
//! * One that has not listened for as long as a lease (just started, or stalled) activates them only
//!   then, even if it became Active early because somebody said goodbye. Owners (255) do not wait.
//! * An advert whose sending ended after the lease extends nothing: no router heard it in time.
//! * One Active moves a router: the one that it follows or is to preempt. An advert or a goodbye of
//!   any other sender changes no timer, no interval and no activation; an Active answers it, as the
//!   RFC says.
//! * A predecessor's lease is waited for while that one may still be renewing it: not longer than a
//!   lease after the advert that made it yield.
//! * A Backup whose timer is late by more than an interval was not listening, and waits again.
//!
//! Together: crashes and frozen processes alone never give two owners; a network that loses packets
//! in one direction only can.
//!
//! # How a driver uses it
//!
//! One thread, one epoll, one timerfd. In each turn:
//!
//! 1. Read `now`. **Drain the socket first** (bounded, say 64 messages), each through
//!    [`Router::receive`]; count `Err` by [`Reject::index`]. What waited there was sent before the
//!    timers ended.
//! 2. Take commands from the queue, each through [`Router::handle`].
//! 3. Read `now` again; call [`Router::handle_timeout`] if [`Router::next_deadline`] has passed.
//! 4. Arm the timerfd with `next_deadline`.
//!
//! After each single call of `receive`, `handle` and `handle_timeout`, drain
//! [`Router::poll_action`] to `None`, doing each action before the next one is asked for:
//!
//! | action | what to do |
//! |---|---|
//! | `SendAdvert` | read `t`; [`Router::encode`] per destination; send; read `now`; [`Router::advert_sent`]`(t, now, ok)` |
//! | `Activate`, `Renew` | write `until` into the lease array |
//! | `Deactivate` | clear it in the lease array |
//! | `AnnounceBurst` | `count` times [`announce::announcement`] per VIP, by a non-blocking packet socket |
//! | `Transition` | one log line, one counter, notify hooks by a queue |
//!
//! `IP_MULTICAST_LOOP` is to be off; own adverts are rejected as [`Reject::Own`] anyway.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

mod action;
pub mod announce;
mod auth;
mod checksum;
mod config;
mod discarded;
mod election;
mod filter;
mod foreign;
mod group;
pub mod guard;
mod packet;
mod peers;
mod reconfigure;
mod reject;
mod rollout;
mod router;
mod script;
mod state;
#[cfg(test)]
mod tests;
pub mod timers;
mod track;

pub use action::{Action, Announce, Block, Event, Heard, Reason};
pub use auth::AuthPass;
pub use checksum::PROTOCOL;
pub use config::{AnnounceTimes, ChecksumMode, Config, ConfigError, Handover};
pub use discarded::{DiscardWatch, DiscardedAdvert, DiscardedPeer};
pub use filter::accept;
pub use group::Group;
pub use guard::{Claim, Guard};
pub use packet::{
    Addresses, Advert, ChecksumStyle, EncodeError, Envelope, GROUP_V4, GROUP_V6, MAX_CENTISECONDS,
    MAX_MESSAGE_LEN, MAX_TTL, MAX_VIPS_V4, MAX_VIPS_V6, Outgoing, Version, Vrid, decode, encode,
};
pub use peers::Peer;
pub use reject::Reject;
pub use rollout::AddressList;
pub use router::{Router, Status};
pub use script::{Script, ScriptAction, ScriptTimes};
pub use state::StateName;
pub use track::{Effect, Reading, TrackKind, Tracked, Tracker};
