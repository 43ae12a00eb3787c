//! Interfaces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use steer::Outcome;

use super::Count;

/// An interface.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Whether the device exists and has a link.
    pub up: bool,
    /// MAC address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Attach mode of the XDP program; absent while it is not attached.
    #[serde(default)]
    pub xdp: Option<XdpMode>,
    /// Why frames are not seen as they were on the wire (VLAN tags, length).
    #[serde(default)]
    pub trouble: Option<String>,
    /// Offloads that are off while the interface is served, as `device offload`.
    #[serde(default)]
    pub offloads_off: Vec<String>,
    /// Frames whose VLAN tag was put back, which the kernel had taken out on a device below.
    #[serde(default)]
    pub tags_restored: u64,
    /// Frames that were dropped instead, since there was no memory to do so.
    #[serde(default)]
    pub tags_dropped: u64,
    /// Whether the card receives frames, the XDP program sees none, and no other mode is left.
    #[serde(default)]
    pub blind: bool,
    /// How often a faster mode was given up, since the program saw nothing in it.
    #[serde(default)]
    pub fallbacks: u64,
    /// Whether the XDP program forwards the packets of known flows itself.
    #[serde(default)]
    pub fast_path: bool,
    /// Why, or why not.
    #[serde(default)]
    pub fast_path_reason: String,
    /// Frames that the program forwarded and the driver dropped.
    #[serde(default)]
    pub fast_path_lost: u64,
    /// RX queues that the device uses.
    pub queues: u32,
    /// RX queues that should be served.
    pub queues_wanted: u32,
    /// RX queues with a bound socket.
    pub queues_bound: u32,
    /// What the XDP program did, by outcome.
    pub outcomes: Vec<Count<Outcome>>,
    /// Frames that the XDP program left to the kernel's network stack.
    #[serde(default)]
    pub passed: u64,
}

impl Interface {
    /// Frames that the XDP program forwarded itself.
    pub fn forwarded(&self) -> u64 {
        Count::of(&self.outcomes, Outcome::Forwarded)
    }
}

label::labels! {
    /// Where the XDP program runs.
    pub enum XdpMode {
        Native => "native", "In the driver, before a packet buffer of the kernel is made.";
        Generic => "generic", "In the network stack: works with every driver, slowly.";
    }
}
