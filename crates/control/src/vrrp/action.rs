//! What goes into a [`Router`](super::Router) and what comes out of it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::packet::ChecksumStyle;
use super::rollout::AddressList;
use super::state::StateName;

/// One thing that happened. Each is followed by a complete drain of the actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Take part in the election (RFC 9568 §6.4.1 Startup).
    Start,
    /// Leave for good (RFC 9568 §6.4.2, §6.4.3 Shutdown).
    Shutdown,
    /// An advert that passed the filter.
    Heard(Heard),
    /// The effective priority changed; 0 releases the VIPs until it is not 0.
    SetPriority(u8),
    /// Whether this node can forward; with a reason it releases the VIPs until `None` comes.
    SetForwarding(Option<Block>),
    /// Give the VIPs to another node, and do not preempt it for this long.
    Resign(Duration),
    /// Announce the VIPs again (somebody else was seen answering for one).
    Announce,
}

/// The parts of an advert that the election looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Sender.
    pub source: IpAddr,
    /// Its priority; 0: it leaves.
    pub priority: u8,
    /// Its interval, not 0.
    pub interval: Duration,
    /// Its checksum style.
    pub checksum: ChecksumStyle,
    /// Its list of addresses, compared with the configured one.
    pub list: AddressList,
}

/// What the driver must do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send one advert (to the group or to each peer), then call
    /// [`advert_sent`](super::Router::advert_sent) before asking for the next action.
    SendAdvert {
        /// 0 when leaving.
        priority: u8,
    },
    /// The VIPs become active: write the lease.
    Activate {
        /// The lease's end.
        until: Instant,
    },
    /// The VIPs stay active: write the lease.
    Renew {
        /// The lease's end.
        until: Instant,
    },
    /// The VIPs become inactive at once: clear the lease.
    Deactivate,
    /// Send gratuitous ARP or unsolicited neighbour advertisements for every VIP.
    AnnounceBurst {
        /// Frames per VIP.
        count: u8,
        /// What for.
        why: Announce,
    },
    /// Log and count: the state changed.
    Transition {
        /// Before.
        from: StateName,
        /// After.
        to: StateName,
        /// Why.
        reason: Reason,
    },
}

label::labels! {
    /// Why a state changed.
    pub enum Reason {
        Startup => "startup", "The instance was started.";
        Owner => "owner", "Priority 255: the owner of the addresses does not wait.";
        Silent => "silent", "No advert from an Active for Active_Down_Interval.";
        Goodbye => "goodbye", "The Active said that it leaves (priority 0).";
        Preempt => "preempt", "The Active's priority is lower.";
        HigherPriority => "higher_priority", "An Active with a higher priority was heard.";
        FormerList => "former_list", "An Active with the former list of addresses was heard, which may discard ours.";
        HigherAddress => "higher_address", "An Active with equal priority and higher address was heard.";
        Stalled => "stalled", "This thread did not run for so long that the lease was over.";
        SendFailed => "send_failed", "No advert could be sent until the lease was over.";
        Shutdown => "shutdown", "The instance was stopped.";
        Resigned => "resigned", "An operator asked for it.";
        Group => "group", "Another instance of the sync group did the same.";
        Recovered => "recovered", "This node can forward again.";
        Worker => "worker", "A worker gives no sign of life.";
        Queue => "queue", "A receive queue has no bound socket.";
        Link => "link", "The interface has no link.";
        Control => "control", "The control thread gives no sign of life.";
        Tracking => "tracking", "A tracked thing without a weight failed.";
    }
}

label::labels! {
    /// Why this node cannot forward.
    pub enum Block {
        Worker => "worker", "A worker gives no sign of life.";
        Queue => "queue", "A receive queue has no bound socket.";
        Link => "link", "The interface has no link.";
        Control => "control", "The control thread gives no sign of life.";
    }
}

impl From<Block> for Reason {
    fn from(block: Block) -> Self {
        match block {
            Block::Worker => Self::Worker,
            Block::Queue => Self::Queue,
            Block::Link => Self::Link,
            Block::Control => Self::Control,
        }
    }
}

label::labels! {
    /// What an announcement is for.
    pub enum Announce {
        Taken => "taken", "The VIPs became active here.";
        Repeated => "repeated", "The second burst, some seconds after the first one.";
        LowerPriority => "lower_priority", "Another Active was heard, or left (healed partition).";
        Refresh => "refresh", "Periodic, as configured.";
        Requested => "requested", "Another station was seen answering for a VIP.";
    }
}

/// A bounded first-in first-out queue of actions: no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    slots: [Option<Action>; QUEUE_LEN],
    first: usize,
    len: usize,
}

/// One event makes at most 8 actions (stall noticed: 2; then leave: 3; a reply and announcements).
const QUEUE_LEN: usize = 16;

impl Queue {
    pub(super) const fn new() -> Self {
        Self { slots: [None; QUEUE_LEN], first: 0, len: 0 }
    }

    /// Appends. A driver that never drains loses what does not fit; its lease then ends by itself.
    pub(super) fn push(&mut self, action: Action) {
        debug_assert!(self.len < QUEUE_LEN, "actions must be drained after each event");
        if self.len < QUEUE_LEN {
            if let Some(slot) = self.slots.get_mut((self.first + self.len) % QUEUE_LEN) {
                *slot = Some(action);
            }
            self.len += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Action> {
        let action = self.slots.get_mut(self.first).and_then(Option::take)?;
        self.first = (self.first + 1) % QUEUE_LEN;
        self.len -= 1;
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_keeps_order_across_its_end() {
        let mut queue = Queue::new();
        for round in 0..40u8 {
            queue.push(Action::SendAdvert { priority: round });
            queue.push(Action::Deactivate);
            assert_eq!(queue.pop(), Some(Action::SendAdvert { priority: round }));
            assert_eq!(queue.pop(), Some(Action::Deactivate));
            assert_eq!(queue.pop(), None);
        }
    }
}
