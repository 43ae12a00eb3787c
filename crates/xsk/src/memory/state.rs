//! What the twin's kernel knows: its rings, who owns each frame, and how it was told to behave.
//!
//! The four rings are stretches of two tracks. A frame enters the inbound track when it is given to
//! the fill ring, is on the RX ring once the `delivered` position has passed it, and leaves it when
//! it is received; on the outbound track likewise TX ring, wire and completion ring. So a kick moves
//! one position and not each frame: what a bench sees is the port, not its twin.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::region::Region;
use super::ring::{Desc, Track, between};
use crate::batch::{BURST, Batch, FreeList};
use crate::frame::{Frame, UmemId};
use crate::rings::{Statistics, Waiting};

/// Everything behind the twin's lock.
#[derive(Debug)]
pub(super) struct State {
    id: UmemId,
    /// Entries of each ring.
    entries: u32,
    inbound: Track,
    received: u32,
    delivered: u32,
    filled: u32,
    outbound: Track,
    reaped: u32,
    completed: u32,
    taken: u32,
    produced: u32,
    owners: Box<[Owner]>,
    pub(super) policy: Policy,
    pub(super) statistics: Statistics,
    capture: bool,
    pub(super) captured: VecDeque<Vec<u8>>,
    pub(super) transmitted: u64,
    pub(super) kicks: u64,
    pub(super) wakes: u64,
}

impl State {
    pub(super) fn new(id: UmemId, frames: u32, ring: u32, capture: bool) -> Self {
        Self {
            id,
            entries: ring.max(1).next_power_of_two(),
            inbound: Track::new(frames),
            received: 0,
            delivered: 0,
            filled: 0,
            outbound: Track::new(frames),
            reaped: 0,
            completed: 0,
            taken: 0,
            produced: 0,
            owners: vec![Owner::User; frames as usize].into_boxed_slice(),
            policy: Policy::default(),
            statistics: Statistics::default(),
            capture,
            captured: VecDeque::new(),
            transmitted: 0,
            kicks: 0,
            wakes: 0,
        }
    }

    /// RX ring → `into`.
    #[inline]
    pub(super) fn receive(&mut self, into: &mut Batch) -> usize {
        let count = between(self.received, self.delivered).min(short(into.remaining()));
        let descs = self.inbound.from(self.received, count);
        pass(&mut self.owners, descs.clone(), Owner::Inbound, Owner::User);
        into.extend(descs.map(|desc| Frame::new(self.id, desc.index, desc.len)));
        self.received = self.received.wrapping_add(count);
        count as usize
    }

    /// Up to `limit` of `from` → fill ring.
    #[inline]
    pub(super) fn fill(&mut self, from: &mut FreeList, limit: usize) -> usize {
        let room = self.entries - between(self.delivered, self.filled);
        let count = (room as usize).min(from.len()).min(limit).min(BURST);
        let id = self.id;
        let descs =
            from.top(count).iter().rev().map(|frame| Desc { index: frame.chunk(id), len: 0 });
        pass(&mut self.owners, descs.clone(), Owner::User, Owner::Inbound);
        self.inbound.put(self.filled, descs);
        self.filled = self.filled.wrapping_add(short(count));
        from.surrender(count);
        count
    }

    /// `from` → TX ring.
    #[inline]
    pub(super) fn transmit(&mut self, from: &mut Batch) -> usize {
        let room = match self.policy.refuse_transmit {
            true => 0,
            false => self.entries - between(self.taken, self.produced),
        };
        let count = (room as usize).min(from.len());
        let id = self.id;
        let descs =
            from[..count].iter().map(|frame| Desc { index: frame.chunk(id), len: frame.len32() });
        pass(&mut self.owners, descs.clone(), Owner::User, Owner::Outbound);
        self.outbound.put(self.produced, descs);
        self.produced = self.produced.wrapping_add(short(count));
        from.surrender(count);
        count
    }

    /// Completion ring → `into`.
    #[inline]
    pub(super) fn reap(&mut self, into: &mut FreeList) -> usize {
        let count = between(self.reaped, self.completed).min(short(BURST));
        let descs = self.outbound.from(self.reaped, count);
        pass(&mut self.owners, descs.clone(), Owner::Outbound, Owner::User);
        into.extend(descs.map(|desc| Frame::new(self.id, desc.index, 0)));
        self.reaped = self.reaped.wrapping_add(count);
        count as usize
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            rx: u64::from(between(self.received, self.delivered)),
            tx: u64::from(between(self.taken, self.produced)),
            completion: u64::from(between(self.reaped, self.completed)),
        }
    }

    /// The chunk for a packet of `len` bytes: the oldest on the fill ring, which it stays on until
    /// [`deliver`](Self::deliver).
    pub(super) fn frame_for_packet(&mut self, len: usize) -> Option<u32> {
        if len == 0 || len > Region::CAPACITY {
            self.statistics.rx_dropped += 1;
            return None;
        }
        if between(self.received, self.delivered) == self.entries {
            self.statistics.rx_ring_full += 1;
            return None;
        }
        if self.delivered == self.filled {
            self.statistics.rx_fill_ring_empty_descs += 1;
            return None;
        }
        Some(self.inbound.at(self.delivered).index)
    }

    /// Moves the oldest frame of the fill ring, with a packet of `len` bytes, to the RX ring.
    #[expect(clippy::cast_possible_truncation, reason = "at most `Region::CAPACITY`")]
    pub(super) fn deliver(&mut self, len: usize) {
        self.inbound.at(self.delivered).len = len as u32;
        self.delivered = self.delivered.wrapping_add(1);
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
        let room = self.entries.saturating_sub(between(self.reaped, self.taken));
        let count = between(self.taken, self.produced)
            .min(room)
            .min(self.policy.budget.unwrap_or(u32::MAX));
        if self.capture {
            for step in 0..count {
                let Desc { index, len } = *self.outbound.at(self.taken.wrapping_add(step));
                let packet = region.packet_of_kernel(self, index, len as usize).to_vec();
                self.captured.push_back(packet);
            }
        }
        self.taken = self.taken.wrapping_add(count);
        self.transmitted += u64::from(count);
        if !self.policy.complete_later {
            self.completed = self.taken;
        }
        if self.taken == self.produced { Ok(()) } else { Err(Errno::AGAIN) }
    }

    pub(super) fn complete(&mut self, count: u32) -> u32 {
        let count = count.min(between(self.completed, self.taken));
        self.completed = self.completed.wrapping_add(count);
        count
    }

    pub(super) fn turn(&mut self, count: u32) -> u32 {
        let room = self.entries - between(self.received, self.delivered);
        let count = count
            .min(room)
            .min(between(self.completed, self.taken))
            .min(between(self.delivered, self.filled));
        for _ in 0..count {
            let sent = self.outbound.at(self.completed);
            let spare = self.inbound.at(self.delivered);
            std::mem::swap(sent, spare);
            let (spare, sent) = (sent.index, spare.index);
            self.owners[sent as usize] = Owner::Inbound;
            self.owners[spare as usize] = Owner::Outbound;
            self.completed = self.completed.wrapping_add(1);
            self.delivered = self.delivered.wrapping_add(1);
        }
        count
    }

    /// Walks all rings and counts.
    ///
    /// # Panics
    /// If a frame is in two places, or nowhere.
    pub(super) fn census(&mut self) -> Census {
        let mut seen = vec![false; self.owners.len()];
        let mut look = |index: u32, owner: Owner, owners: &[Owner]| {
            let at = index as usize;
            assert!(!seen[at], "frame {index} is in two rings");
            seen[at] = true;
            assert!(owners[at] == owner, "frame {index} is {owner:?} and {:?}", owners[at]);
        };
        for step in 0..between(self.received, self.filled) {
            let desc = *self.inbound.at(self.received.wrapping_add(step));
            look(desc.index, Owner::Inbound, &self.owners);
        }
        for step in 0..between(self.reaped, self.produced) {
            let desc = *self.outbound.at(self.reaped.wrapping_add(step));
            look(desc.index, Owner::Outbound, &self.owners);
        }
        let user = self.owners.iter().filter(|owner| **owner == Owner::User).count() as u64;
        let in_rings = seen.iter().filter(|seen| **seen).count() as u64;
        assert_eq!(user + in_rings, self.owners.len() as u64, "a frame is nowhere");
        let Waiting { rx, tx, completion } = self.waiting();
        Census {
            user,
            fill: u64::from(between(self.delivered, self.filled)),
            rx,
            tx,
            wire: u64::from(between(self.completed, self.taken)),
            completion,
        }
    }

    #[inline]
    pub(super) fn owner(&self, index: u32) -> Owner {
        self.owners[index as usize]
    }
}

/// Records that frames change their owner.
///
/// # Panics
/// If one was not whose it should be: then it is in two places.
#[inline]
fn pass(owners: &mut [Owner], descs: impl Iterator<Item = Desc>, from: Owner, to: Owner) {
    for Desc { index, .. } in descs {
        let owner = &mut owners[index as usize];
        assert!(*owner == from, "frame {index} comes from {from:?} but is {owner:?}");
        *owner = to;
    }
}

/// A number of frames, at most a burst, as positions count.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most a burst")]
const fn short(count: usize) -> u32 {
    count as u32
}

/// Frames by place, found by looking at each.
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

/// Who may touch a frame: the holder of its token, or the kernel's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    User,
    Inbound,
    Outbound,
}

/// How the kernel was told to behave.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) complete_later: bool,
    pub(super) refuse_transmit: bool,
    pub(super) budget: Option<u32>,
    pub(super) fail: Option<Errno>,
    pub(super) script: VecDeque<Errno>,
}
