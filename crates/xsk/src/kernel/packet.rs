//! Sending without a TX queue: a packet socket in the place of the TX ring.
//!
//! Some devices have more RX than TX queues: virtio-net adds RX queues for XDP without their TX
//! queues, and `ethtool -L` allows it with many drivers. An AF_XDP socket on such a queue receives,
//! and sends nothing. Frames keep their order, since one thread sends them all in order and the
//! kernel picks the TX queue by its CPU.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use arrayvec::ArrayVec;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sendmmsg,
    socket_with,
};

use super::interface::last_errno;
use super::options;
use crate::batch::{BURST, Batch, FreeList};
use crate::frame::Frame;
use crate::rings::Waiting;

/// A packet socket that only sends, past the queueing discipline as AF_XDP does, and the frames that
/// wait on both sides of it.
#[derive(Debug)]
pub(super) struct PacketSender {
    socket: OwnedFd,
    waiting: VecDeque<Frame>,
    sent: Vec<Frame>,
    /// How often the first one that waits was refused.
    refusals: u32,
    dropped: u64,
    /// Whether the TX ring is not to be tried again.
    for_good: bool,
}

impl PacketSender {
    /// # Errors
    /// What socket(2), setsockopt(2) and bind(2) report.
    pub(super) fn new(ifindex: u32, send_buffer: usize, for_good: bool) -> Result<Self, Errno> {
        // Protocol 0: it receives nothing.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        options::bypass_queueing(&socket)?;
        options::raise_send_buffer(&socket, send_buffer);
        bind(&socket, ifindex)?;
        Ok(Self {
            socket,
            waiting: VecDeque::with_capacity(CAPACITY),
            sent: Vec::with_capacity(CAPACITY),
            refusals: 0,
            dropped: 0,
            for_good,
        })
    }

    /// How many frames it takes: sent ones count until they are taken back.
    pub(super) fn room(&self) -> usize {
        CAPACITY - self.waiting.len() - self.sent.len()
    }

    /// Whether the TX ring may take its place again.
    pub(super) fn is_replaceable(&self) -> bool {
        !self.for_good && self.room() == CAPACITY
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting { rx: 0, tx: self.waiting.len() as u64, completion: self.sent.len() as u64 }
    }

    /// Packets that the device did not take.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// As [`Rings::transmit`](crate::Rings::transmit).
    pub(super) fn take(&mut self, from: &mut Batch) -> usize {
        let count = self.room().min(from.len());
        self.waiting.extend(from.take_first(count));
        count
    }

    /// As [`Rings::complete`](crate::Rings::complete).
    pub(super) fn give_back(&mut self, into: &mut FreeList) -> usize {
        let count = self.sent.len().min(BURST);
        into.extend(self.sent.drain(..count));
        count
    }

    /// As [`Rings::kick`](crate::Rings::kick). A packet that can never be sent (it is too long for
    /// the device), or that was refused often enough to suspect so, is dropped and counted.
    pub(super) fn send<'p>(&mut self, bytes: impl Fn(&Frame) -> &'p [u8]) -> Result<(), Errno> {
        while !self.waiting.is_empty() {
            match self.send_burst(&bytes) {
                Ok(count) => {
                    self.refusals = 0;
                    self.sent.extend(self.waiting.drain(..count.min(self.waiting.len())));
                }
                Err(Errno::MSGSIZE | Errno::INVAL | Errno::FAULT) => self.drop_first(),
                Err(errno) => {
                    self.refusals += 1;
                    if errno == Errno::NOBUFS && self.refusals >= MOST_REFUSALS {
                        self.drop_first();
                    }
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    fn send_burst<'p>(&self, bytes: &impl Fn(&Frame) -> &'p [u8]) -> Result<usize, Errno> {
        let parts: ArrayVec<[IoSlice<'_>; 1], BURST> =
            self.waiting.iter().take(BURST).map(|frame| [IoSlice::new(bytes(frame))]).collect();
        let mut controls: ArrayVec<SendAncillaryBuffer<'_, '_, '_>, BURST> =
            parts.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: ArrayVec<MMsgHdr<'_>, BURST> = parts
            .iter()
            .zip(&mut controls)
            .map(|(part, control)| MMsgHdr::new(part, control))
            .collect();
        sendmmsg(&self.socket, &mut messages, SendFlags::DONTWAIT)
    }

    fn drop_first(&mut self) {
        self.refusals = 0;
        self.dropped += 1;
        self.sent.extend(self.waiting.pop_front());
    }
}

/// Binds the socket to the device for sending alone.
fn bind(socket: impl AsFd, ifindex: u32) -> Result<(), Errno> {
    // SAFETY: all zeroes is a valid `sockaddr_ll`: it has only integers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_ifindex = ifindex.cast_signed();
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| Errno::RANGE)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and pointer and length describe `address`.
    let result = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// As much as a driver's TX ring holds, or more.
const CAPACITY: usize = 512;

/// The device is busy, or it will never take the packet: both are `ENOBUFS`.
const MOST_REFUSALS: u32 = 16;
