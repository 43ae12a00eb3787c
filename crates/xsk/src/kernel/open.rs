//! Opening: frame and ring sizes, bind with fallback and patience, and what was got.

use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig,
};

use super::interface::InterfaceView;
use super::packet::PacketSender;
use super::{Failure, KernelRings, Step, memlock, options, quirks};
use crate::error::OpenError;
use crate::frame::MAX_FRAMES;
use crate::port::Port;

/// Opens an AF_XDP socket on one queue of an interface of the calling thread's network namespace.
///
/// Blocks while another socket holds the queue, up to [`OpenConfig::busy_wait`]: after a socket is
/// closed the kernel frees its queue a little later.
///
/// # Errors
/// Says what, where, why and how to fix it; nothing stays open.
pub fn open(config: &OpenConfig<'_>) -> Result<(Port<KernelRings>, Bound), OpenError> {
    let plan = Plan::new(config)?;
    memlock::raise(plan.umem_bytes(plan.modes().0));
    let (mut rings, fallback) = plan.bind_in_mode()?;
    let socket = rings.socket();
    let zero_copy = options::zero_copy(socket).map_err(|errno| plan.os("XDP_OPTIONS", errno))?;
    let mut bound = Bound {
        zero_copy,
        fallback,
        busy_poll: config.busy_poll && options::prefer_busy_poll(socket),
        tx_budget: options::set_tx_budget(socket, plan.tx_budget()),
        send_buffer: options::raise_send_buffer(socket, plan.send_buffer()),
        frame_size: 1 << rings.shift,
        mtu: plan.mtu,
        packet_socket: config.packet_socket,
    };
    rings.busy_poll = bound.busy_poll;
    rings.zero_copy = zero_copy;
    bound.packet_socket |= !rings.tx_is_read().map_err(|errno| plan.os("XDP_STATISTICS", errno))?;
    if bound.packet_socket {
        rings.sender = Some(plan.packet_sender(bound.send_buffer)?.into());
    }
    tracing::debug!(interface = config.interface, queue = config.queue, ?bound, "socket bound");
    Ok((Port::new(rings), bound))
}

/// What to open and how.
#[derive(Clone, Debug)]
pub struct OpenConfig<'a> {
    /// The interface's name.
    pub interface: &'a str,
    /// The queue, from 0.
    pub queue: u32,
    /// Frames of the UMEM: a power of two from 4,096 to 1,048,576. Each of the four rings gets a
    /// quarter, so that no ring can starve another.
    pub frames: u32,
    /// Whether the driver is to use the UMEM directly.
    pub zero_copy: ZeroCopy,
    /// Whether the XDP program runs in generic mode, which has no zero-copy.
    pub generic: bool,
    /// Whether the socket is to poll the device instead of waiting for its interrupts.
    pub busy_poll: bool,
    /// Whether packets leave by a packet socket for good, even if the device has a TX queue of this
    /// number.
    pub packet_socket: bool,
    /// How long to try a queue that another socket holds.
    pub busy_wait: Duration,
}

impl<'a> OpenConfig<'a> {
    /// 4,096 frames, zero-copy where the driver has it, native mode, no busy polling, 5 s patience.
    pub const fn new(interface: &'a str, queue: u32) -> Self {
        Self {
            interface,
            queue,
            frames: MIN_FRAMES,
            zero_copy: ZeroCopy::Auto,
            generic: false,
            busy_poll: false,
            packet_socket: false,
            busy_wait: Duration::from_secs(5),
        }
    }
}

/// Whether the driver is to read and write the UMEM directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where the driver can; [`Bound::zero_copy`] says.
    #[default]
    Auto,
    /// Or fail.
    On,
    /// Never: the kernel copies each packet.
    Off,
}

/// What the kernel gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Whether packets are not copied, as read back from the socket.
    pub zero_copy: bool,
    /// Why zero-copy was tried and not got.
    pub fallback: Option<Errno>,
    /// Whether the socket polls the device.
    pub busy_poll: bool,
    /// Packets that one kick may send in copy mode; none: the kernel's own limit of 32.
    pub tx_budget: Option<u32>,
    /// Size of the send buffer, bytes; in copy mode it bounds the packets on their way.
    pub send_buffer: usize,
    /// Size of a frame, bytes.
    pub frame_size: u32,
    /// The interface's MTU, bytes.
    pub mtu: u32,
    /// Whether packets leave by a packet socket and not by the TX ring: the device has no TX queue of
    /// this number, or it was asked for.
    pub packet_socket: bool,
}

impl Bound {
    /// The longest frame that a link of this MTU carries, with two VLAN tags, bytes.
    pub const fn longest_frame(&self) -> usize {
        (self.mtu + LINK_HEADERS) as usize
    }
}

/// A configuration that was checked, and what follows from it.
#[derive(Debug)]
struct Plan<'a> {
    config: &'a OpenConfig<'a>,
    view: InterfaceView,
    interface: Interface,
    frames: NonZeroU32,
    /// What copy mode needs.
    frame_size: u32,
    mtu: u32,
    ring: u32,
    /// Whether the driver binds in zero-copy mode and then receives nothing.
    spoiled: bool,
}

impl<'a> Plan<'a> {
    fn new(config: &'a OpenConfig<'a>) -> Result<Self, OpenError> {
        let interface = || config.interface.to_owned();
        let frames = NonZeroU32::new(config.frames)
            .filter(|count| count.is_power_of_two())
            .filter(|count| (MIN_FRAMES..=MAX_FRAMES).contains(&count.get()))
            .ok_or_else(|| OpenError::Frames {
                interface: interface(),
                queue: config.queue,
                frames: config.frames,
                min: MIN_FRAMES,
                max: MAX_FRAMES,
            })?;
        if config.generic && config.zero_copy == ZeroCopy::On {
            return Err(OpenError::GenericZeroCopy { interface: interface() });
        }
        let no_interface = |_| OpenError::NoInterface { interface: interface() };
        let view = InterfaceView::new(config.interface).map_err(no_interface)?;
        let mtu = view.mtu().map_err(no_interface)?;
        Ok(Self {
            config,
            view,
            interface: config
                .interface
                .parse()
                .map_err(|_| OpenError::NoInterface { interface: interface() })?,
            frames,
            frame_size: frame_size(config.interface, mtu)?,
            mtu,
            ring: config.frames / 4,
            spoiled: quirks::spoil_zero_copy(config.interface),
        })
    }

    /// Binds in the mode asked for; with `Auto` in copy mode where zero-copy is refused, and says
    /// why it was.
    fn bind_in_mode(&self) -> Result<(KernelRings, Option<Errno>), OpenError> {
        let start = Instant::now();
        let (mode, second) = self.modes();
        let failure = match self.bind_patiently(mode, start) {
            Ok(rings) => return Ok((rings, None)),
            Err(failure) => failure,
        };
        let Some(second) = second.filter(|_| failure.is_about_zero_copy()) else {
            return Err(self.explain(failure, mode, start));
        };
        tracing::debug!(errno = %failure.errno, "no zero-copy, trying copy mode");
        self.bind_patiently(second, start)
            .map(|rings| (rings, Some(failure.errno)))
            .map_err(|failure| self.explain(failure, second, start))
    }

    /// The mode to try, and the one to try if the driver refuses it.
    const fn modes(&self) -> (Mode, Option<Mode>) {
        match self.config.zero_copy {
            ZeroCopy::Off => (Mode::Copy, None),
            ZeroCopy::Auto if self.config.generic || self.spoiled => (Mode::Copy, None),
            ZeroCopy::Auto => (Mode::ZeroCopy, Some(Mode::Copy)),
            ZeroCopy::On => (Mode::ZeroCopy, None),
        }
    }

    /// Tries until the queue is not busy any more or the time since `start` is up. Each attempt has
    /// a UMEM of its own: libxdp cannot reuse one after a failed bind.
    fn bind_patiently(&self, mode: Mode, start: Instant) -> Result<KernelRings, Failure> {
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.attempt(mode) {
                Ok(rings) => return Ok(rings),
                Err(failure) => failure,
            };
            let left = self.config.busy_wait.saturating_sub(start.elapsed());
            if failure.errno != Errno::BUSY || left.is_zero() {
                return Err(failure);
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn attempt(&self, mode: Mode) -> Result<KernelRings, Failure> {
        let invalid = || Failure { step: Step::Umem, errno: Errno::INVAL };
        let ring = QueueSize::new(self.ring).map_err(|_| invalid())?;
        let umem = UmemConfig::builder()
            .frame_size(FrameSize::new(self.frame_size(mode)).map_err(|_| invalid())?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .map_err(|_| invalid())?;
        let socket = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(mode.flag() | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        KernelRings::bind(umem, socket, self.frames, &self.interface, self.config.queue)
    }

    fn explain(&self, failure: Failure, mode: Mode, start: Instant) -> OpenError {
        let interface = self.config.interface.to_owned();
        let queue = self.config.queue;
        let Failure { step, errno } = failure;
        match (step, errno) {
            (_, Errno::PERM | Errno::ACCESS) => OpenError::Permission { interface, queue, errno },
            (_, Errno::AFNOSUPPORT) => OpenError::Unsupported,
            (Step::Umem, Errno::NOBUFS) => OpenError::Memlock {
                interface,
                queue,
                needed_kib: self.umem_bytes(mode) / 1024,
                limit_kib: memlock::soft_limit().unwrap_or(u64::MAX) / 1024,
            },
            (Step::Bind, Errno::BUSY) => {
                OpenError::Busy { interface, queue, waited: start.elapsed() }
            }
            (Step::Bind, Errno::NODEV | Errno::NXIO) => OpenError::NoInterface { interface },
            (Step::Bind, Errno::INVAL) if self.lacks_queue().is_some() => {
                OpenError::NoQueue { interface, queue, queues: self.lacks_queue().unwrap_or(0) }
            }
            (Step::Bind, errno) if mode == Mode::ZeroCopy => {
                OpenError::NoZeroCopy { interface, queue, errno }
            }
            (Step::Bind, errno) => self.os("binding the AF_XDP socket", errno),
            (Step::Umem, errno) => self.os("registering the packet memory (UMEM)", errno),
        }
    }

    /// How many queues the interface has, if the one asked for is not among them.
    fn lacks_queue(&self) -> Option<u32> {
        self.view.queues().filter(|queues| self.config.queue >= *queues)
    }

    fn os(&self, step: &'static str, errno: Errno) -> OpenError {
        let interface = self.config.interface.to_owned();
        OpenError::Os { interface, queue: self.config.queue, step, errno }
    }

    /// Some drivers program the length of their buffers in units of 1 KiB, rounded down: of a frame
    /// of 2,048 bytes, less headroom, they use 1,024 (igb), and every longer packet is lost.
    const fn frame_size(&self, mode: Mode) -> u32 {
        match mode {
            Mode::ZeroCopy => FRAME_SIZES[1],
            Mode::Copy => self.frame_size,
        }
    }

    fn umem_bytes(&self, mode: Mode) -> u64 {
        u64::from(self.frames.get()) * u64::from(self.frame_size(mode))
    }

    fn packet_sender(&self, send_buffer: usize) -> Result<PacketSender, OpenError> {
        let ifindex = self
            .view
            .index()
            .map_err(|_| OpenError::NoInterface { interface: self.config.interface.to_owned() })?;
        PacketSender::new(ifindex, send_buffer, self.config.packet_socket)
            .map_err(|errno| self.os("opening a packet socket to send by", errno))
    }

    /// Enough for several bursts that an earlier kick left behind, little enough that a kick stays
    /// short.
    fn tx_budget(&self) -> u32 {
        self.ring.min(MAX_TX_BUDGET)
    }

    /// Room for a whole TX ring of full frames with what the kernel adds to each.
    fn send_buffer(&self) -> usize {
        (self.ring as usize * self.frame_size as usize * 2).min(MAX_SEND_BUFFER)
    }
}

impl Failure {
    /// Whether copy mode might do where zero-copy did not: it needs less memory, too. A queue that is
    /// held stays so, but a driver may say `EBUSY` for zero-copy alone.
    fn is_about_zero_copy(self) -> bool {
        match self.step {
            Step::Umem => self.errno == Errno::NOBUFS,
            Step::Bind => {
                !matches!(self.errno, Errno::PERM | Errno::ACCESS | Errno::NODEV | Errno::NXIO)
            }
        }
    }
}

/// How a bind is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    ZeroCopy,
    Copy,
}

impl Mode {
    const fn flag(self) -> BindFlags {
        match self {
            Self::ZeroCopy => BindFlags::XDP_ZEROCOPY,
            Self::Copy => BindFlags::XDP_COPY,
        }
    }
}

/// The smaller frame size that holds the longest packet of an interface with this MTU.
fn frame_size(interface: &str, mtu: u32) -> Result<u32, OpenError> {
    let packet = mtu.saturating_add(LINK_HEADERS);
    FRAME_SIZES.into_iter().find(|size| packet <= size - HEADROOM).ok_or_else(|| {
        let capacity = FRAME_SIZES[1] - HEADROOM;
        OpenError::Mtu {
            interface: interface.to_owned(),
            mtu,
            packet,
            capacity,
            max_mtu: capacity - LINK_HEADERS,
        }
    })
}

/// What the kernel accepts for a UMEM with aligned frames on 4 KiB pages.
const FRAME_SIZES: [u32; 2] = [2048, 4096];

/// `XDP_PACKET_HEADROOM`.
const HEADROOM: u32 = 256;

/// Ethernet and two VLAN tags.
const LINK_HEADERS: u32 = 14 + 8;

const MIN_FRAMES: u32 = 4096;

const MAX_TX_BUDGET: u32 = 512;

/// The kernel doubles what it is asked for, and counts in an `int`.
const MAX_SEND_BUFFER: usize = 1 << 29;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_size_follows_the_mtu() {
        let limits = [(576, 2048), (1500, 2048), (1770, 2048), (1771, 4096), (3818, 4096)];
        for (mtu, size) in limits {
            assert_eq!(frame_size("eth0", mtu), Ok(size), "MTU {mtu}");
        }
        let text = frame_size("eth0", 9000).expect_err("a jumbo frame does not fit").to_string();
        assert_eq!(
            text,
            "eth0 has MTU 9000: packets of up to 9022 bytes (with Ethernet and two VLAN tags) do \
             not fit in a frame, which holds 3840; set it to at most 3818 (`ip link set eth0 mtu \
             3818`)"
        );
        assert!(frame_size("eth0", u32::MAX).is_err());
    }

    #[test]
    fn bad_requests_are_refused_before_anything_is_opened() {
        for frames in [0, 1, 2048, 4097, 1 << 21] {
            let config = OpenConfig { frames, ..OpenConfig::new("lo", 0) };
            let error = open(&config).expect_err("a wrong number of frames");
            assert!(matches!(error, OpenError::Frames { .. }), "{error}");
        }
        let config =
            OpenConfig { generic: true, zero_copy: ZeroCopy::On, ..OpenConfig::new("lo", 0) };
        let error = open(&config).expect_err("generic mode has no zero-copy");
        assert!(matches!(error, OpenError::GenericZeroCopy { .. }), "{error}");
        let error = open(&OpenConfig::new("no-such-if", 0)).expect_err("no such interface");
        assert_eq!(
            error.to_string(),
            "no interface \"no-such-if\" in this network namespace: check the name with `ip link \
             show`"
        );
    }
}
