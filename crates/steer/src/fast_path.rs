//! What the program needs to forward the packets of known flows itself: the flow tables of the workers,
//! a picture of the next hops, the states of the VIPs. And what it sent to each backend.
//!
//! Decides nothing: whether flows are forwarded in the program at all, and what is in a picture, its
//! user says.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Mutex, PoisonError};

use libbpf_rs::libbpf_sys::{self, bpf_map_create_opts};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use crate::abi::{
    BACKENDS, HOP_BYTES, LINE_WORDS, Mac, NextHop, OWN_BITS, Octets, PICTURE_BYTES, TRAFFIC_WORDS,
    VIPS, Vip,
};
use crate::error::SteerError;
use crate::mapping::Mapped;

/// The half that all interfaces share.
#[derive(Debug)]
pub struct FastPath {
    /// Words of a worker's flow table.
    flow_words: usize,
    pictures: MapHandle,
    states: Mapped,
    slots: Mutex<BTreeMap<Octets, u16>>,
}

/// What one snapshot says, for the program.
#[derive(Clone)]
pub struct Picture(Vec<u8>);

/// The memory of one worker's flow table.
#[derive(Debug)]
pub struct FlowMap {
    map: MapHandle,
    /// The same, mapped into this process; all zero at first.
    pub memory: Mapped,
}

/// What the program of one interface sent, by backend and by RX queue.
#[derive(Clone, Debug)]
pub struct Traffic {
    by_backend: Mapped,
    by_queue: Mapped,
    /// Queues that there is room for, for each CPU.
    queues: usize,
}

impl FastPath {
    /// For flow tables of so many words.
    pub(crate) fn new(
        flow_words: usize,
        [pictures, vip_states]: [MapHandle; 2],
    ) -> Result<Self, SteerError> {
        let states = Mapped::new(vip_states.as_fd(), VIPS as usize)
            .map_err(SteerError::system("map the VIP states"))?;
        Ok(Self { flow_words, pictures, states, slots: Mutex::default() })
    }

    /// A flow table of this size, which holds nothing, to show a program what all others are like. It
    /// takes as much memory as they do: to be dropped when the program is loaded.
    pub(crate) fn like(&self) -> Result<MapHandle, SteerError> {
        flow_map(self.flow_words)
    }

    /// Has no program go by a picture: all packets are user space's again.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn withdraw(&self) -> Result<(), SteerError> {
        match self.pictures.delete(&FIRST) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            result => result.map_err(SteerError::map("withdraw the picture of the next hops")),
        }
    }

    /// Memory for the flow table of one more worker.
    ///
    /// # Errors
    /// [`SteerError::Map`] and [`SteerError::System`] if the kernel has no memory.
    pub fn flow_map(&self) -> Result<FlowMap, SteerError> {
        let map = flow_map(self.flow_words)?;
        let memory = Mapped::new(map.as_fd(), self.flow_words)
            .map_err(SteerError::system("map a flow table"))?;
        Ok(FlowMap { map, memory })
    }

    /// Words of the flow table of each worker.
    pub const fn flow_words(&self) -> usize {
        self.flow_words
    }

    /// The number by which next hops name a VIP, whether it is one yet or not; `None` when all numbers
    /// are taken by others.
    pub fn vip_slot(&self, address: Octets) -> Option<u16> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u16::try_from(slots.len()).ok().filter(|slot| u32::from(*slot) < VIPS);
        match slots.get(&address) {
            Some(slot) => Some(*slot),
            None => next.inspect(|slot| {
                slots.insert(address, *slot);
            }),
        }
    }

    /// Follows the VIP map; `None`: no VIP.
    pub(crate) fn set_vip(&self, address: Octets, vip: Option<Vip>) {
        let Some(slot) = self.vip_slot(address) else { return };
        let state = vip.map_or(0, |vip| u64::from(vip.ifindex) << 32 | 1);
        if let Some(word) = self.states.get(usize::from(slot)) {
            word.store(state, Release);
        }
    }

    /// Has all programs go by this picture. When it returns, none goes by the former one any more:
    /// the kernel waits until the last of them has ended, some 10 ms.
    ///
    /// # Errors
    /// [`SteerError::Map`]: the former one is still in use.
    pub fn publish(&self, picture: &Picture) -> Result<(), SteerError> {
        let map = array("picture", PICTURE_BYTES, 1, 0)?;
        map.update(&FIRST, &picture.0, MapFlags::ANY)
            .map_err(SteerError::map("write a picture of the next hops"))?;
        self.pictures
            .update(&FIRST, &map.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(SteerError::map("publish a picture of the next hops"))
    }
}

impl FlowMap {
    /// Puts it into the map of an interface's flow tables.
    pub(crate) fn show(&self, tables: &MapHandle, queue: u32) -> Result<(), SteerError> {
        let fd = self.map.as_fd().as_raw_fd();
        tables
            .update(&queue.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
            .map_err(SteerError::map("show flows to the program"))
    }
}

impl Picture {
    /// Of the MACs of our own ports and of the next hops of backends, by slot (below [`BACKENDS`]); a slot
    /// that is not named is not usable.
    pub fn new(
        own: impl IntoIterator<Item = Mac>,
        hops: impl IntoIterator<Item = (u16, NextHop)>,
    ) -> Self {
        let mut bytes = vec![0; PICTURE_BYTES];
        let mut filter = [0_u64; OWN_BITS / 64];
        for mac in own {
            let bit = own_bit(mac);
            filter[bit / 64] |= 1 << (bit % 64);
        }
        let (own, by_slot) = bytes.split_at_mut(OWN_BITS / 8);
        for (bytes, word) in own.chunks_exact_mut(8).zip(filter) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        for (slot, hop) in hops {
            if let Some(bytes) = by_slot.chunks_exact_mut(HOP_BYTES).nth(usize::from(slot)) {
                bytes.copy_from_slice(&hop.to_bytes());
            }
        }
        Self(bytes)
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picture").finish_non_exhaustive()
    }
}

impl Traffic {
    pub(crate) fn of([traffic, queue_packets]: [&MapHandle; 2]) -> Result<Self, SteerError> {
        let view = |map: &MapHandle, words| {
            Mapped::new(map.as_fd(), map.max_entries() as usize * words)
                .map_err(SteerError::system("map the traffic arrays"))
        };
        let by_backend = view(traffic, TRAFFIC_WORDS)?;
        let by_queue = view(queue_packets, 1)?;
        let cpus = (traffic.max_entries() / BACKENDS).max(1) as usize;
        Ok(Self { queues: by_queue.len() / cpus, by_backend, by_queue })
    }

    /// Packets of this RX queue that it sent, over all CPUs; 0 for a queue that there is no room for.
    pub fn from(&self, queue: u32) -> u64 {
        let cpus = self.by_queue.chunks_exact(self.queues.max(1));
        cpus.filter_map(|cpu| cpu.get(queue as usize)).map(|word| word.load(Relaxed)).sum()
    }

    /// Packets and bytes (Ethernet header included) that went to the backend in this slot, and bytes that
    /// their senders acknowledged, over all CPUs. They wrap, and may be a packet apart.
    pub fn to(&self, slot: u16) -> [u64; 3] {
        let cpu_words = BACKENDS as usize * TRAFFIC_WORDS;
        let mut sum = [0_u64; TRAFFIC_WORDS];
        for cpu in self.by_backend.chunks_exact(cpu_words) {
            let words = cpu.iter().skip(usize::from(slot) * TRAFFIC_WORDS);
            for (sum, word) in sum.iter_mut().zip(words) {
                *sum = sum.wrapping_add(word.load(Relaxed));
            }
        }
        sum
    }
}

/// The inner map that all flow tables of so many words are like.
pub(crate) fn flow_map(words: usize) -> Result<MapHandle, SteerError> {
    let lines = u32::try_from(words.div_ceil(LINE_WORDS)).unwrap_or(u32::MAX);
    array("flow_table", LINE_WORDS * 8, lines, libbpf_sys::BPF_F_MMAPABLE)
}

/// CPUs that count for themselves.
pub(crate) fn cpus() -> libbpf_rs::Result<u32> {
    Ok(u32::try_from(libbpf_rs::num_possible_cpus()?).unwrap_or(u32::MAX))
}

fn array(name: &str, value: usize, entries: u32, flags: u32) -> Result<MapHandle, SteerError> {
    let options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as libbpf_sys::size_t,
        map_flags: flags,
        ..Default::default()
    };
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    MapHandle::create(MapType::Array, Some(name), 4, value, entries, &options)
        .map_err(SteerError::map("make a map"))
}

/// As `may_be_own` in `bpf/forward.h`.
fn own_bit(mac: Mac) -> usize {
    let [_, _, c, d, e, f] = mac;
    (u32::from_ne_bytes([c, d, e, f]).wrapping_mul(0x9e37_79b1) >> 22) as usize
}

const FIRST: [u8; 4] = [0; 4];
