//! VRRP instances.

use std::net::IpAddr;

use control::vrrp::{Block, Reason, Reject, StateName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Count, Histogram};

/// A VRRP instance.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Vrrp {
    /// Name.
    pub name: String,
    /// Interface that has the VIPs.
    pub interface: String,
    /// Virtual router ID.
    pub vrid: u8,
    /// Protocol version.
    pub version: u8,
    /// State of the election.
    pub state: StateName,
    /// Seconds in this state; absent before the first one.
    pub since_seconds: Option<f64>,
    /// Why, one word; absent before it takes part.
    pub reason: Option<Reason>,
    /// Why, one sentence.
    pub why: String,
    /// Virtual addresses.
    pub vips: Vec<IpAddr>,
    /// Whether they are active on this node: the lease holds.
    pub vips_active: bool,
    /// Seconds until the lease ends unless an advert is sent.
    pub lease_seconds: Option<f64>,
    /// Priority in the configuration.
    pub configured_priority: u8,
    /// Priority that decides; 0: cannot be Active now.
    pub effective_priority: u8,
    /// How the one becomes the other.
    pub priority_why: String,
    /// Why this node cannot forward, if so.
    pub blocked: Option<Block>,
    /// Seconds until it may preempt again after a resignation.
    pub resigned_seconds: Option<f64>,
    /// Interval in force, in seconds.
    pub advert_interval_seconds: f64,
    /// Checksum style in use.
    pub checksum: Checksum,
    /// Routers heard, at most eight.
    pub peers: Vec<VrrpPeer>,
    /// How often this thread was found to have stalled.
    pub stalls: u64,
    /// Adverts sent.
    pub sent: u64,
    /// Adverts that the kernel did not take.
    pub send_failed: u64,
    /// Adverts accepted.
    pub received: u64,
    /// Messages that the socket had no room for.
    pub overflowed: u64,
    /// Gratuitous ARP and neighbour advertisements sent.
    pub announced: u64,
    /// Claims of other stations to a VIP that was active here.
    pub foreign_claims: u64,
    /// The last one of them.
    pub last_foreign_claim: Option<ForeignClaim>,
    /// A peer that is heard at present, and whose adverts are discarded: while this node is Active, two
    /// owners are possible.
    #[serde(default)]
    pub discarded_peer: Option<VrrpDiscardedPeer>,
    /// Messages discarded, by reason; every reason is listed.
    pub rejected: Vec<Count<Reject>>,
    /// Transitions so far.
    pub transitions: Vec<VrrpTransitions>,
    /// Timers of the Active state by how late they were.
    pub late: Histogram,
}

impl Vrrp {
    /// What makes two owners possible, if something does.
    pub fn two_owners(&self) -> Option<String> {
        let peer = self.discarded_peer.as_ref().filter(|_| self.state == StateName::Active)?;
        let VrrpDiscardedPeer { address, reason, why, .. } = peer;
        Some(format!(
            "({}) peer {address} is heard, but its adverts are discarded ({}): two owners are \
             possible. {why}",
            self.name,
            reason.name(),
        ))
    }
}

/// A peer whose adverts are discarded.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VrrpDiscardedPeer {
    /// Its address.
    pub address: IpAddr,
    /// Why, one word.
    pub reason: Reject,
    /// Why, one sentence.
    pub why: String,
    /// Seconds since the first one in a row.
    pub since_seconds: f64,
}

/// Another station that answered for a VIP, or announced it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForeignClaim {
    /// The VIP.
    pub vip: IpAddr,
    /// Where it was said to be.
    pub mac: String,
    /// The backend with that MAC address, if it is one.
    pub backend: Option<String>,
    /// Seconds since.
    pub age_seconds: f64,
}

/// A router that was heard.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VrrpPeer {
    /// Its address.
    pub address: IpAddr,
    /// Its last priority; 0: it left.
    pub priority: u8,
    /// Its interval in seconds.
    pub interval_seconds: f64,
    /// Seconds since it was last heard.
    pub age_seconds: f64,
    /// Adverts accepted.
    pub adverts: u64,
}

/// Transitions to a state, for a reason.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VrrpTransitions {
    /// State entered.
    pub to: StateName,
    /// Why.
    pub reason: Reason,
    /// How often.
    pub value: u64,
}

label::labels! {
    /// What the checksum of adverts over IPv4 covers.
    pub enum Checksum {
        Rfc9568 => "rfc9568", "The message (RFC 9568 §5.2.8).";
        PseudoHeader => "pseudo-header", "Message and pseudo-header, as keepalived has it.";
    }
}
