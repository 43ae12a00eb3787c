//! What the twin's kernel knows: its rings, who owns each frame, and how it was told to behave.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::region::Region;
use super::ring::{Desc, Ring};
use crate::rings::Statistics;

/// Everything behind the twin's lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) fill: Ring,
    pub(super) rx: Ring,
    pub(super) tx: Ring,
    pub(super) completion: Ring,
    /// Taken from the TX ring, not yet completed.
    wire: Ring,
    places: Box<[Place]>,
    pub(super) policy: Policy,
    pub(super) statistics: Statistics,
    capture: bool,
    pub(super) captured: VecDeque<Vec<u8>>,
    pub(super) transmitted: u64,
    pub(super) kicks: u64,
    pub(super) wakes: u64,
}

impl State {
    pub(super) fn new(frames: u32, ring: u32, capture: bool) -> Self {
        Self {
            fill: Ring::new(ring),
            rx: Ring::new(ring),
            tx: Ring::new(ring),
            completion: Ring::new(ring),
            wire: Ring::new(frames),
            places: vec![Place::User; frames as usize].into_boxed_slice(),
            policy: Policy { tx_needs_wakeup: true, ..Policy::default() },
            statistics: Statistics::default(),
            capture,
            captured: VecDeque::new(),
            transmitted: 0,
            kicks: 0,
            wakes: 0,
        }
    }

    #[inline]
    pub(super) fn place(&self, index: u32) -> Place {
        self.places[index as usize]
    }

    /// Records that a frame changes its place.
    ///
    /// # Panics
    /// If it was not where it comes from: then it is in two places.
    #[inline]
    pub(super) fn passes(&mut self, index: u32, from: Place, to: Place) {
        let place = &mut self.places[index as usize];
        assert!(*place == from, "frame {index} comes from {from:?} but is in {place:?}");
        *place = to;
    }

    /// A fill frame for a packet of `len` bytes; it stays recorded as a fill frame.
    pub(super) fn frame_for_packet(&mut self, len: usize) -> Option<u32> {
        if len == 0 || len > Region::CAPACITY {
            self.statistics.rx_dropped += 1;
            return None;
        }
        if self.rx.room() == 0 {
            self.statistics.rx_ring_full += 1;
            return None;
        }
        let desc = self.fill.pop();
        if desc.is_none() {
            self.statistics.rx_fill_ring_empty_descs += 1;
        }
        desc.map(|desc| desc.index)
    }

    /// Puts what [`frame_for_packet`](Self::frame_for_packet) gave, filled, on the RX ring.
    #[expect(clippy::cast_possible_truncation, reason = "at most `Region::CAPACITY`")]
    pub(super) fn deliver(&mut self, index: u32, len: usize) {
        self.passes(index, Place::Fill, Place::Rx);
        self.rx.push(Desc { index, len: len as u32 });
    }

    pub(super) fn kick(&mut self, region: &Region) -> Result<(), Errno> {
        self.kicks += 1;
        if let Some(errno) = self.policy.script.pop_front().or(self.policy.fail) {
            return Err(errno);
        }
        self.send(region)
    }

    /// Takes from the TX ring as the kernel does in copy mode: up to the budget, and never more
    /// than the completion ring can take back.
    pub(super) fn send(&mut self, region: &Region) -> Result<(), Errno> {
        let budget = self.policy.budget.unwrap_or(usize::MAX);
        let room = self.completion.room().saturating_sub(self.wire.len());
        let count = self.tx.len().min(budget).min(room);
        for _ in 0..count {
            let Some(desc) = self.tx.pop() else { break };
            self.passes(desc.index, Place::Tx, Place::Wire);
            self.wire.push(desc);
            if self.capture {
                let packet = region.packet_of_kernel(self, desc.index, desc.len as usize).to_vec();
                self.captured.push_back(packet);
            }
        }
        self.transmitted += count as u64;
        if !self.policy.complete_later {
            self.complete(usize::MAX);
        }
        if self.tx.is_empty() { Ok(()) } else { Err(Errno::AGAIN) }
    }

    pub(super) fn complete(&mut self, count: usize) -> usize {
        let count = count.min(self.wire.len()).min(self.completion.room());
        for _ in 0..count {
            let Some(desc) = self.wire.pop() else { break };
            self.passes(desc.index, Place::Wire, Place::Completion);
            self.completion.push(desc);
        }
        count
    }

    pub(super) fn turn(&mut self, count: usize) -> usize {
        let count = count
            .min(self.wire.len())
            .min(self.fill.len())
            .min(self.rx.room())
            .min(self.completion.room());
        for _ in 0..count {
            let (Some(sent), Some(spare)) = (self.wire.pop(), self.fill.pop()) else { break };
            self.passes(sent.index, Place::Wire, Place::Rx);
            self.rx.push(sent);
            self.passes(spare.index, Place::Fill, Place::Completion);
            self.completion.push(spare);
        }
        count
    }

    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        for place in &self.places {
            let count = match place {
                Place::User => &mut census.user,
                Place::Fill => &mut census.fill,
                Place::Rx => &mut census.rx,
                Place::Tx => &mut census.tx,
                Place::Wire => &mut census.wire,
                Place::Completion => &mut census.completion,
            };
            *count += 1;
        }
        census
    }
}

/// Frames by place, counted one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// With user space: held, queued or free.
    pub user: u64,
    /// On the fill ring.
    pub fill: u64,
    /// On the RX ring.
    pub rx: u64,
    /// On the TX ring.
    pub tx: u64,
    /// Sent, not completed.
    pub wire: u64,
    /// On the completion ring.
    pub completion: u64,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    User,
    Fill,
    Rx,
    Tx,
    Wire,
    Completion,
}

/// How the kernel was told to behave.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) tx_needs_wakeup: bool,
    pub(super) rx_needs_wakeup: bool,
    pub(super) complete_later: bool,
    pub(super) refuse_transmit: bool,
    pub(super) budget: Option<usize>,
    pub(super) fail: Option<Errno>,
    pub(super) script: VecDeque<Errno>,
}
