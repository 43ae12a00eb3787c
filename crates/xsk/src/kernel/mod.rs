//! The kernel's rings: `xsk-rs` behind the [`Rings`] trait.
//!
//! `xsk-rs` trusts its callers with who owns a frame; here the token does. A descriptor of `xsk-rs`
//! cannot be made outside of it, so the table it hands out at the start is kept, one entry per
//! chunk, and a token's index finds its entry. Address and length in an entry are those of the
//! chunk's last packet.
#![expect(unsafe_code, reason = "xsk-rs leaves the ownership of frames to its callers")]

mod allocated;
mod descriptors;
mod features;
mod interface;
mod memlock;
mod open;
mod options;
mod packet;
mod quirks;

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use xsk_rs::config::{Interface, SocketConfig, UmemConfig};
use xsk_rs::socket::XdpStatistics;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

pub use self::descriptors::inheriting_nothing;
pub use self::features::{Feature, Features, driver};
pub use self::interface::rx_queues;
pub use self::open::{Bound, OpenConfig, ZeroCopy, open};
use self::packet::PacketSender;
use crate::batch::{BURST, Batch, FreeList};
use crate::frame::{Frame, UmemId};
use crate::rings::{Rings, Statistics, TxPath, Waiting};

/// The rings of one bound AF_XDP socket and its UMEM. Made by [`open()`]; dropping it closes the
/// socket, which leaves the XSKMAP by itself, then frees the UMEM.
#[derive(Debug)]
pub struct KernelRings {
    // Dropped in this order: the queues hold the socket, and the socket the UMEM.
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    umem: Umem,
    id: UmemId,
    /// log2 of the frame size.
    shift: u32,
    /// The last packet's address and length, per chunk.
    descs: Box<[FrameDesc]>,
    /// Where a packet starts that user space makes, per chunk.
    homes: Box<[FrameDesc]>,
    tokens: FreeList,
    scratch: Box<[FrameDesc; BURST]>,
    /// Sends in the place of the TX ring where the device has no TX queue of this number.
    sender: Option<Box<PacketSender>>,
    /// Whether packets are not copied.
    zero_copy: bool,
    busy_poll: bool,
    tx_entries: u32,
    /// Invalid descriptors that the kernel read from the TX ring to show that it reads it.
    tests: u64,
    /// Another one waits there: the kernel did not read the ring.
    test_waits: bool,
    /// Invalid descriptors that the kernel had read before it was put there.
    read_before: u64,
}

impl KernelRings {
    /// Makes a UMEM of `frames` frames and a socket over it, bound to the queue.
    fn bind(
        umem_config: UmemConfig,
        socket_config: SocketConfig,
        frames: NonZeroU32,
        interface: &Interface,
        queue: u32,
    ) -> Result<Self, Failure> {
        // The socket is made here already; libxdp does not mark it close-on-exec.
        let (umem, homes) = descriptors::marked(|| Umem::new(umem_config, frames, false))
            .map_err(|error| Failure::new(Step::Umem, &error))?;
        // SAFETY: this is the UMEM's only socket and no program is loaded
        // (XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD), which is all that the contract asks.
        let made = unsafe { Socket::new(socket_config, &umem, interface, queue) };
        let (tx, rx, own) = made.map_err(|error| Failure::new(Step::Bind, &error))?;
        // A UMEM's first socket always gets its fill and completion ring.
        let (fill, completion) = own.ok_or(Failure { step: Step::Bind, errno: Errno::INVAL })?;
        let id = UmemId::fresh();
        Ok(Self {
            rx,
            tx,
            fill,
            completion,
            umem,
            id,
            shift: umem_config.frame_size().get().trailing_zeros(),
            descs: homes.clone().into_boxed_slice(),
            homes: homes.into_boxed_slice(),
            tokens: FreeList::of_umem(id, frames.get()),
            scratch: Box::new([FrameDesc::default(); BURST]),
            sender: None,
            zero_copy: false,
            busy_poll: false,
            tx_entries: socket_config.tx_queue_size().get(),
            tests: 0,
            test_waits: false,
            read_before: 0,
        })
    }

    /// Whether the kernel sends from the TX ring. In copy mode it leaves the ring alone, and reports
    /// success, where the device has fewer TX queues than this socket's number: then the packets
    /// have to go through a [`PacketSender`]. No file and no message tells how many there are in
    /// every driver and network namespace, so it is tried, with a descriptor that the kernel counts
    /// as invalid and does not send. Drivers refuse zero-copy on such queues. To be called only while
    /// no frame is on the TX or completion ring.
    fn tx_is_read(&mut self) -> Result<bool, Errno> {
        if self.zero_copy {
            return Ok(true);
        }
        if !self.test_waits {
            self.read_before = self.kernel_statistics()?.tx_invalid_descs();
            let mut desc = self.homes[0];
            desc.set_options(INVALID_OPTIONS);
            // SAFETY: the kernel does not touch the chunk of a descriptor with unknown options, so it
            // does not matter to whom it belongs.
            self.test_waits = unsafe { self.tx.produce(&[desc]) } > 0;
        }
        // The statistics tell whether the kernel read the ring, now or in a poll(2) since; the result
        // does not.
        let _ = rustix::net::send(self.socket(), &[], SendFlags::DONTWAIT);
        let read = self.kernel_statistics()?.tx_invalid_descs() > self.read_before;
        if read {
            self.test_waits = false;
            self.tests += 1;
            // Before this, some kernels do not say that they took it.
            let _ = rustix::net::send(self.socket(), &[], SendFlags::DONTWAIT);
            // Some kernels complete it. It is the only one that was on the ring.
            // SAFETY: the descriptors are only written to; what they are afterwards is of this UMEM.
            unsafe { self.completion.consume(&mut self.scratch[..]) };
        }
        Ok(read)
    }

    fn kernel_statistics(&self) -> Result<XdpStatistics, Errno> {
        let statistics = self.rx.fd().xdp_statistics();
        statistics.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn socket(&self) -> BorrowedFd<'_> {
        let fd = self.rx.fd().as_raw_fd();
        // SAFETY: `rx` keeps the socket open, and the result borrows `self`.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// The number of the chunk that `desc` lies in.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a UMEM has fewer than 2^32 chunks")]
    fn chunk_of(desc: &FrameDesc, shift: u32) -> u32 {
        (desc.addr() >> shift) as u32
    }
}

impl Rings for KernelRings {
    fn frames(&mut self) -> FreeList {
        std::mem::take(&mut self.tokens)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a packet is shorter than its frame")]
    fn receive(&mut self, into: &mut Batch, limit: usize) -> usize {
        let room = &mut self.scratch[..into.remaining().min(limit)];
        // SAFETY: the descriptors are only written to; what they are afterwards is of this UMEM.
        let count = unsafe { self.rx.consume(room) };
        for desc in &mut self.scratch[..count] {
            // Flags mean nothing without multi-buffer frames, and the TX side would reject them.
            desc.set_options(0);
            let index = Self::chunk_of(desc, self.shift);
            self.descs[index as usize] = *desc;
            let frame = Frame::new(self.id, index, desc.lengths().data() as u32);
            // There is room: no more were consumed than remained.
            if into.push(frame).is_err() {
                break;
            }
        }
        count
    }

    #[inline]
    fn fill(&mut self, from: &mut FreeList, limit: usize) -> usize {
        let free = self.fill.nb_free(BURST_ENTRIES) as usize;
        let count = free.min(from.len()).min(limit).min(BURST);
        for (desc, frame) in self.scratch.iter_mut().zip(from.top(count)) {
            *desc = self.homes[frame.slot(self.id)];
        }
        // SAFETY: each descriptor is that of a token of this UMEM (`slot` checked it), so nothing
        // else uses the chunk, and the tokens are given up below.
        let filled = unsafe { self.fill.produce(&self.scratch[..count]) };
        from.surrender(filled);
        filled
    }

    #[inline]
    fn tx_room(&mut self) -> usize {
        match &self.sender {
            None => self.tx.nb_free(BURST_ENTRIES) as usize,
            Some(sender) => sender.room(),
        }
    }

    #[inline]
    fn transmit(&mut self, from: &mut Batch) -> usize {
        if let Some(sender) = &mut self.sender {
            return sender.take(from);
        }
        let free = self.tx.nb_free(BURST_ENTRIES) as usize;
        let count = free.min(from.len());
        for (desc, frame) in self.scratch.iter_mut().zip(from.iter().take(count)) {
            *desc = self.descs[frame.slot(self.id)];
        }
        // SAFETY: each descriptor is that of a token of this UMEM (`slot` checked it), so nothing
        // else uses the chunk, and the tokens are given up below.
        let sent = unsafe { self.tx.produce(&self.scratch[..count]) };
        from.surrender(sent);
        sent
    }

    #[inline]
    fn complete(&mut self, into: &mut FreeList) -> usize {
        if let Some(sender) = &mut self.sender {
            return sender.give_back(into);
        }
        // SAFETY: the descriptors are only written to; what they are afterwards is of this UMEM.
        let count = unsafe { self.completion.consume(&mut self.scratch[..]) };
        for desc in &self.scratch[..count] {
            into.push(Frame::new(self.id, Self::chunk_of(desc, self.shift), 0));
        }
        count
    }

    #[inline]
    fn data<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let mut desc = self.descs[frame.slot(self.id)];
        // SAFETY: the descriptor is of this UMEM. The token proves that neither the kernel nor
        // anyone else here uses the chunk.
        let mut data = unsafe { self.umem.data_mut(&mut desc) };
        let packet = data.contents_mut();
        // SAFETY: pointer and length are those of `packet`, which borrows the local copy of the
        // descriptor but lies in the UMEM, which `self` keeps mapped. The exclusive borrow of the
        // chunk's only token makes the result the only reference to it.
        unsafe { std::slice::from_raw_parts_mut(packet.as_mut_ptr(), packet.len()) }
    }

    fn write(&mut self, frame: &mut Frame, bytes: &[u8]) -> bool {
        let slot = frame.slot(self.id);
        let before = std::mem::replace(&mut self.descs[slot], self.homes[slot]);
        let done = self.resize(frame, bytes.len());
        if done {
            self.data(frame).copy_from_slice(bytes);
        } else {
            self.descs[slot] = before;
        }
        done
    }

    fn resize(&mut self, frame: &mut Frame, len: usize) -> bool {
        let desc = &mut self.descs[frame.slot(self.id)];
        // SAFETY: the descriptor is of this UMEM. The token proves that neither the kernel nor
        // anyone else here uses the chunk, and `&mut self` that no packet is borrowed.
        let mut data = unsafe { self.umem.data_mut(desc) };
        let mut cursor = data.cursor();
        let fits = len > 0 && len <= cursor.buf_len();
        if fits {
            cursor.set_pos(len);
            frame.set_len(self.id, len);
        }
        fits
    }

    #[inline]
    fn tx_needs_wakeup(&self) -> bool {
        self.busy_poll || self.sender.is_some() || self.tx.needs_wakeup()
    }

    #[inline]
    fn rx_needs_wakeup(&self) -> bool {
        self.busy_poll || self.fill.needs_wakeup()
    }

    #[inline]
    fn kick(&mut self) -> Result<(), Errno> {
        if let Some(sender) = &mut self.sender {
            let Self { umem, descs, id, .. } = self;
            return sender.send(|frame| {
                let desc = &descs[frame.slot(*id)];
                // SAFETY: the descriptor is of this UMEM, and the sender holds the chunk's only
                // token, so nothing writes to it.
                unsafe { umem.data(desc) }.contents()
            });
        }
        rustix::net::send(self.socket(), &[], SendFlags::DONTWAIT).map(drop)
    }

    #[inline]
    fn wake_rx(&mut self) -> Result<(), Errno> {
        let nothing: &mut [u8] = &mut [];
        rustix::net::recv(self.socket(), nothing, RecvFlags::DONTWAIT).map(drop)
    }

    fn waiting(&mut self) -> Waiting {
        let rx = u64::from(self.rx.nb_avail_exact());
        if let Some(sender) = &self.sender {
            return Waiting { rx, ..sender.waiting() };
        }
        Waiting {
            rx,
            tx: u64::from(self.tx_entries.saturating_sub(self.tx.nb_free_exact())),
            completion: u64::from(self.completion.nb_avail_exact()),
        }
    }

    fn tx_path(&mut self) -> TxPath {
        if self.sender.as_ref().is_some_and(|sender| sender.is_replaceable())
            && self.tx_is_read() == Ok(true)
        {
            self.sender = None;
        }
        if self.sender.is_some() {
            return TxPath::PacketSocket;
        }
        // A zero-copy driver takes its time.
        TxPath::Ring { emptied_by_kicks: !self.zero_copy }
    }

    fn statistics(&self) -> io::Result<Statistics> {
        let kernel = self.rx.fd().xdp_statistics()?;
        // A poll(2) may have read the test that waits, which is not known as read yet.
        let waiting = self.test_waits && kernel.tx_invalid_descs() > self.read_before;
        let tests = self.tests + u64::from(waiting);
        Ok(Statistics {
            rx_dropped: kernel.rx_dropped(),
            rx_invalid_descs: kernel.rx_invalid_descs(),
            tx_invalid_descs: kernel.tx_invalid_descs().saturating_sub(tests),
            tx_dropped: self.sender.as_ref().map_or(0, |sender| sender.dropped()),
            rx_ring_full: kernel.rx_ring_full(),
            rx_fill_ring_empty_descs: kernel.rx_fill_ring_empty_descs(),
            tx_ring_empty_descs: kernel.tx_ring_empty_descs(),
        })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket())
    }
}

/// What opening was at when it failed, and the error number.
#[derive(Clone, Copy, Debug)]
struct Failure {
    step: Step,
    errno: Errno,
}

impl Failure {
    /// `xsk-rs` hides the number in the source of its error.
    fn new(step: Step, error: &dyn std::error::Error) -> Self {
        let errno = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>())
            .and_then(Errno::from_io_error)
            .unwrap_or(Errno::IO);
        Self { step, errno }
    }
}

/// The two halves of opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Socket, registration of the memory, fill and completion ring.
    Umem,
    /// RX and TX ring, bind(2).
    Bind,
}

const BURST_ENTRIES: u32 = 64;

/// Not one of the flags of `linux/if_xdp.h`: the kernel takes no descriptor with it.
const INVALID_OPTIONS: u32 = 1 << 31;

const _: () = assert!(BURST_ENTRIES as usize == BURST);
