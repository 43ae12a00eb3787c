//! Real sockets over veth pairs. Needs root: without it these tests fail.
//!
//! Each test has a network namespace of its own, which ends with the test's thread, so nothing stays
//! behind even if the process is killed. An end-to-end receive needs an XDP program, which is another
//! crate's; here the receiving side is a packet socket on the peer.
#![expect(unsafe_code, reason = "unshare(2), and packet sockets, which rustix does not bind")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities};
use xsk::{
    Batch, Bound, Errno, KernelRings, Link, OpenConfig, OpenError, Port, Statistics, WayOut,
    ZeroCopy, open,
};

#[test]
fn four_queues_open_at_once_and_say_how_they_are_bound() {
    let _net = Net::new(4);
    let mut ports: Vec<(Port<KernelRings>, Bound)> =
        (0..4).map(|queue| open_queue(queue).expect("each queue opens")).collect();
    for (port, bound) in &mut ports {
        assert!(!bound.zero_copy, "veth copies");
        assert_eq!(bound.fallback, Some(Errno::OPNOTSUPP), "zero-copy was tried first");
        assert!(!bound.busy_poll);
        assert_eq!((bound.frame_size, bound.mtu), (2048, 1500));
        assert!(!bound.packet_socket, "each has a TX queue");
        // None before Linux 6.17.
        assert!(bound.tx_budget.is_none_or(|budget| budget >= 64), "{bound:?}");
        assert!(bound.send_buffer > 1 << 20, "{bound:?}");
        let accounting = port.accounting();
        assert!(accounting.is_balanced());
        assert_eq!((accounting.fill, accounting.free, accounting.total), (1024, 3072, 4096));
        assert!(port.fd().is_some());
        let statistics = port.statistics().expect("the socket is open");
        let tx_ring_empty_descs = statistics.tx_ring_empty_descs;
        assert_eq!(statistics, Statistics { tx_ring_empty_descs, ..Statistics::default() });
    }
}

#[test]
fn copy_mode_and_generic_mode_do_not_try_zero_copy() {
    let _net = Net::new(1);
    let copy = OpenConfig { zero_copy: ZeroCopy::Off, ..OpenConfig::new(NEAR, 0) };
    let generic = OpenConfig { generic: true, ..OpenConfig::new(NEAR, 0) };
    for config in [copy, generic] {
        let (_port, bound) = open(&config).expect("copy mode always works");
        assert_eq!((bound.zero_copy, bound.fallback), (false, None));
    }
}

#[test]
fn demanding_zero_copy_of_a_veth_fails_clearly() {
    let _net = Net::new(1);
    let config = OpenConfig { zero_copy: ZeroCopy::On, ..OpenConfig::new(NEAR, 0) };
    let error = open(&config).expect_err("veth has no zero-copy");
    assert_eq!(
        error.to_string(),
        "near queue 0: the driver does not give zero-copy (Operation not supported (os error \
         95)); set zero_copy to \"auto\" or \"off\", or use a driver that has it (virtio_net: Linux \
         6.16 or later, and `iommu_platform=on` for the device)"
    );
}

#[test]
fn busy_polling_is_set_where_the_kernel_has_it() {
    let _net = Net::new(1);
    let config = OpenConfig { busy_poll: true, ..OpenConfig::new(NEAR, 0) };
    let (mut port, bound) = open(&config).expect("opens with or without busy polling");
    assert!(bound.busy_poll);
    let wakeups = port.counters().rx_wakeups;
    assert_eq!(port.wake_rx(), Ok(()));
    assert_eq!(port.counters().rx_wakeups, wakeups + 1, "it polls by system call");
}

#[test]
fn what_does_not_exist_is_named() {
    let _net = Net::new(2);
    let error = open(&OpenConfig::new(NEAR, 7)).expect_err("queue 7 of 2");
    assert_eq!(
        error.to_string(),
        "near has no queue 7: it has queues 0 to 1; see `ethtool -l near`"
    );
    let error = open(&OpenConfig::new("nearby", 0)).expect_err("no such interface");
    assert!(matches!(error, OpenError::NoInterface { .. }), "{error}");
}

#[test]
fn the_queues_of_a_driver_that_does_not_tell_are_counted() {
    let _net = Net::new(1);
    let made = |name: &str, queues: &str, kind: &[&str]| {
        let add = ["link", "add", "name", name, "link", NEAR, "numrxqueues", queues, "type"];
        ip(&[&add[..], kind].concat());
        xsk::rx_queues(name)
    };
    assert_eq!(xsk::rx_queues(NEAR), Ok(1));
    assert_eq!(made("four", "4", &["macvlan"]), Ok(4));
    assert_eq!(made("one", "1", &["macvlan"]), Ok(1));
    // Sockets can be bound to all of them.
    ip(&["link", "set", "four", "up"]);
    let open = |queue| open(&OpenConfig { generic: true, ..OpenConfig::new("four", queue) });
    let ports: Vec<_> = (0..4).map(|queue| open(queue).expect("it has four")).collect();
    assert!(ports.iter().skip(1).all(|(_, bound)| bound.packet_socket), "and one TX queue");
}

#[test]
fn frames_grow_with_the_mtu_until_they_cannot() {
    let _net = Net::new(1);
    ip(&["link", "set", NEAR, "mtu", "3000"]);
    let (port, bound) = open_queue(0).expect("a larger frame");
    assert_eq!((bound.frame_size, bound.mtu), (4096, 3000));
    drop(port);
    ip(&["link", "set", NEAR, "mtu", "9000"]);
    let error = open_queue(0).expect_err("a jumbo frame does not fit");
    assert!(error.to_string().contains("`ip link set near mtu 3818`"), "{error}");
}

#[test]
fn a_queue_that_is_let_go_in_time_is_got() {
    let _net = Net::new(1);
    let (first, _) = open_queue(0).expect("the queue is free");
    let start = Instant::now();
    let holder = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(first);
    });
    let (_second, bound) = open_queue(0).expect("the first socket is closed meanwhile");
    let waited = start.elapsed();
    holder.join().expect("the holder only sleeps");
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(bound.fallback, Some(Errno::OPNOTSUPP));
}

#[test]
fn a_queue_that_is_held_is_an_error_that_says_how_to_find_the_holder() {
    let _net = Net::new(1);
    let (_first, _) = open_queue(0).expect("the queue is free");
    let config = OpenConfig { busy_wait: Duration::from_millis(200), ..OpenConfig::new(NEAR, 0) };
    let error = open(&config).expect_err("the queue is held");
    let text = error.to_string();
    assert!(text.starts_with("near queue 0 is busy and stayed so for "), "{text}");
    assert!(text.contains("`ss --xdp --processes`"), "{text}");
    let OpenError::Busy { waited, .. } = error else { panic!("{text}") };
    assert!(waited >= config.busy_wait, "{waited:?}");
}

#[test]
fn without_a_tx_queue_packets_leave_in_order_by_a_packet_socket() {
    let net = Net::with(4, 1);
    let (first, bound) = open_queue(0).expect("opens");
    assert!(!bound.packet_socket);
    drop(first);
    for queue in 1..4 {
        let (mut port, bound) = open_queue(queue).expect("it has an RX queue");
        assert!(bound.packet_socket, "queue {queue}");
        let before = port.accounting();
        let mut sent = 0;
        while sent < 1_000 {
            sent += send(&mut port, 50);
            assert_eq!(port.way_out(), WayOut::PacketSocket);
            port.reap();
            assert!(port.accounting().is_balanced());
        }
        drain(&mut port);
        assert_eq!(net.receive(1_000), 1_000, "queue {queue}");
        assert_eq!(port.accounting(), before);
        assert_eq!((port.link(), port.counters().tx_full), (Link::Up, 0));
        assert_eq!(port.statistics().expect("open"), Statistics::default());
    }
}

/// Fewer of them the kernel does not allow while sockets are bound.
#[test]
fn a_tx_queue_that_is_added_is_used() {
    let net = Net::new(4);
    ethtool(&["-L", NEAR, "tx", "1"]);
    let (mut port, bound) = open_queue(3).expect("opens");
    assert!(bound.packet_socket);
    assert_eq!((send(&mut port, 10), port.way_out()), (10, WayOut::PacketSocket));
    assert_eq!(net.receive(10), 10);
    ethtool(&["-L", NEAR, "tx", "4"]);
    assert_eq!(port.way_out(), WayOut::PacketSocket, "frames are on their way back");
    port.reap();
    assert_eq!(port.way_out(), WayOut::Ring);
    assert_eq!(send(&mut port, 10), 10);
    drain(&mut port);
    assert_eq!(net.receive(10), 10);
    assert_eq!(port.way_out(), WayOut::Ring);
    assert!(port.accounting().is_balanced());
    assert_eq!(port.statistics().expect("open").tx_invalid_descs, 0);
}

#[test]
fn a_packet_socket_that_was_asked_for_stays_and_drops_what_the_device_never_takes() {
    let net = Net::new(1);
    let config = OpenConfig { packet_socket: true, ..OpenConfig::new(NEAR, 0) };
    let (mut port, bound) = open(&config).expect("opens");
    assert!(bound.packet_socket);
    assert_eq!((send(&mut port, 3), port.way_out()), (3, WayOut::PacketSocket));
    // Longer than the MTU allows.
    let long = port.copy_in(&[0xff; 1700]).expect("a free frame");
    port.send(long);
    assert_eq!(port.flush().sent, 1);
    assert_eq!(port.statistics().expect("open").tx_dropped, 1);
    ip(&["link", "set", NEAR, "down"]);
    assert_eq!((send(&mut port, 3), port.link()), (3, Link::Down(Errno::NETDOWN)));
    ip(&["link", "set", NEAR, "up"]);
    drain(&mut port);
    assert_eq!((port.link(), port.way_out()), (Link::Up, WayOut::PacketSocket));
    assert!(port.accounting().is_balanced());
    // The long one had number 3.
    assert_eq!(net.receive_all(), [0, 1, 2, 4, 5, 6]);
}

#[test]
fn twenty_times_dropped_and_bound_again() {
    let net = Net::new(1);
    for round in 0..20 {
        let (mut port, _) = open_queue(0).unwrap_or_else(|error| panic!("{round}: {error}"));
        send(&mut port, 10);
        drain(&mut port);
        assert_eq!(net.receive(10), 10, "round {round}");
    }
}

#[test]
fn a_thousand_frames_arrive_in_order_and_all_frames_come_back() {
    let net = Net::new(1);
    let (mut port, _) = open_queue(0).expect("opens");
    let before = port.accounting();
    let mut sent = 0;
    while sent < 1_000 {
        sent += send(&mut port, 50);
        port.reap();
        assert!(port.accounting().is_balanced());
    }
    drain(&mut port);
    assert_eq!(net.receive(1_000), 1_000);
    assert_eq!(port.accounting(), before);
    assert_eq!(port.link(), Link::Up);
    assert_eq!(port.statistics().expect("the socket is open").tx_invalid_descs, 0);
}

#[test]
fn a_link_that_is_down_is_a_state_and_what_waits_leaves_when_it_is_up() {
    let net = Net::new(1);
    let (mut port, _) = open_queue(0).expect("opens");
    ip(&["link", "set", NEAR, "down"]);
    assert_eq!(send(&mut port, 20), 20, "the ring has room");
    assert_eq!(port.link(), Link::Down(Errno::NETDOWN));
    assert!(port.kick_pending());
    assert!(port.accounting().is_balanced());
    ip(&["link", "set", NEAR, "up"]);
    drain(&mut port);
    assert_eq!(port.link(), Link::Up);
    assert_eq!(net.receive(20), 20);
}

#[test]
fn a_device_that_is_deleted_is_a_state_too() {
    let _net = Net::new(1);
    let (mut port, _) = open_queue(0).expect("opens");
    ip(&["link", "delete", NEAR]);
    assert_eq!(send(&mut port, 20), 20);
    assert_eq!(port.link(), Link::Down(Errno::NXIO));
    let mut batch = Batch::new();
    assert_eq!(port.receive(&mut batch), 0);
    assert_eq!(port.wake_rx(), Ok(()), "copy mode needs no wakeup");
    assert!(port.accounting().is_balanced());
    assert!(port.statistics().is_ok());
}

#[test]
fn a_full_ring_refuses_and_recovers() {
    let net = Net::new(1);
    let (mut port, _) = open_queue(0).expect("opens");
    let before = port.accounting();
    ip(&["link", "set", NEAR, "down"]);
    let mut sent = 0;
    for _ in 0..30 {
        sent += send(&mut port, 50);
        assert!(port.accounting().is_balanced());
    }
    assert_eq!(sent, 1024, "as many as the ring holds");
    assert_eq!(port.counters().tx_full, 1500 - 1024);
    ip(&["link", "set", NEAR, "up"]);
    drain(&mut port);
    assert_eq!(port.accounting(), before);
    assert_eq!(net.receive(1024), 1024);
    assert_eq!(send(&mut port, 50), 50);
}

#[test]
fn without_the_capability_the_error_names_it() {
    let _net = Net::new(1);
    drop_capability(CapabilitySet::NET_RAW);
    let error = open_queue(0).expect_err("no CAP_NET_RAW");
    assert!(matches!(error, OpenError::Permission { errno: Errno::PERM, .. }), "{error}");
    assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
}

/// And a zero-copy bind is tried with frames of 4 KiB, whatever the MTU.
#[test]
fn too_little_locked_memory_is_named_with_both_numbers() {
    let _net = Net::new(1);
    let limit = getrlimit(Resource::Memlock).maximum.map_or(12 << 20, |hard| hard.min(12 << 20));
    // Of the whole process; the other tests have CAP_IPC_LOCK.
    let lower = Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::Memlock, lower).expect("one may always have less");
    drop_capability(CapabilitySet::IPC_LOCK);
    drop_capability(CapabilitySet::SYS_RESOURCE);
    let opened = |frames, zero_copy| {
        let opened = open(&OpenConfig { frames, zero_copy, ..OpenConfig::new(NEAR, 0) });
        opened.map(|(_port, bound)| (bound.frame_size, bound.fallback))
    };
    assert_eq!(opened(4096, ZeroCopy::Off), Ok((2048, None)));
    // The kernel gives the memory of a closed socket back a moment later.
    let again = |_| {
        thread::sleep(Duration::from_millis(10));
        opened(4096, ZeroCopy::Auto).ok()
    };
    let bound = (0..200).find_map(again);
    assert_eq!(bound, Some((2048, Some(Errno::NOBUFS))), "16 MiB are not had");
    for (frames, zero_copy) in [(4096, ZeroCopy::On), (8192, ZeroCopy::Auto)] {
        let error = opened(frames, zero_copy).expect_err("more than the limit");
        let OpenError::Memlock { needed_kib, limit_kib, .. } = error else { panic!("{error}") };
        assert_eq!((needed_kib, limit_kib), (16_384, limit / 1024));
        let text = error.to_string();
        assert!(text.contains("LimitMEMLOCK=infinity") && text.contains("ulimit -l"), "{text}");
    }
}

/// A network namespace of the calling thread with a veth pair, and a packet socket on the far end.
struct Net {
    far: OwnedFd,
}

impl Net {
    fn new(queues: u32) -> Self {
        Self::with(queues, queues)
    }

    /// With so many RX and so many TX queues.
    fn with(rx: u32, tx: u32) -> Self {
        // SAFETY: a new network namespace leaves file descriptors and memory alone.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .expect("these tests need root (CAP_SYS_ADMIN)");
        let (rx, tx) = (rx.to_string(), tx.to_string());
        let queues = ["numtxqueues", &tx, "numrxqueues", &rx];
        let near = ["link", "add", "name", NEAR];
        let far = ["type", "veth", "peer", "name", FAR];
        ip(&[&near[..], &queues, &far, &queues].concat());
        // No neighbour discovery: only our own frames count.
        for end in [NEAR, FAR] {
            ip(&["link", "set", end, "addrgenmode", "none"]);
            ip(&["link", "set", end, "up"]);
        }
        Self { far: packet_socket(FAR) }
    }

    /// Receives test frames until there are `most` or none comes for a second, checks that they are
    /// in order and complete, and says how many there were.
    fn receive(&self, most: u32) -> u32 {
        let mut count = 0;
        let mut last = None;
        while count < most {
            let Some(number) = self.receive_one() else { break };
            assert!(last.is_none_or(|last| number == last + 1), "{number} after {last:?}");
            last = Some(number);
            count += 1;
        }
        count
    }

    /// The numbers of the test frames that come until none comes for a second.
    fn receive_all(&self) -> Vec<u32> {
        std::iter::from_fn(|| self.receive_one()).collect()
    }

    fn receive_one(&self) -> Option<u32> {
        let mut buffer = [0_u8; 2048];
        let flags = rustix::net::RecvFlags::empty();
        let (length, _) = rustix::net::recv(&self.far, &mut buffer, flags).ok()?;
        assert_eq!(length, FRAME_LEN);
        assert_eq!(buffer[..14], HEADER);
        buffer[14..].first_chunk().copied().map(u32::from_be_bytes)
    }
}

/// Sends up to 64 numbered frames, flushes, and returns how many went to the ring. Numbers go on
/// from what the port sent before.
fn send(port: &mut Port<KernelRings>, count: u32) -> u32 {
    let first = u32::try_from(port.counters().transmitted).expect("a short test");
    let mut packet = [0; FRAME_LEN];
    packet[..14].copy_from_slice(&HEADER);
    for number in first..first + count {
        packet[14..18].copy_from_slice(&number.to_be_bytes());
        let mut frame = port.copy_in(&packet).expect("a free frame");
        assert_eq!(*port.bytes(&mut frame), packet);
        port.send(frame);
    }
    let flushed = port.flush();
    assert_eq!(flushed.sent + flushed.refused, count as usize);
    u32::try_from(flushed.sent).expect("at most a burst")
}

/// Flushes and reaps until nothing is on its way out, for at most five seconds.
fn drain(port: &mut Port<KernelRings>) {
    let end = Instant::now() + Duration::from_secs(5);
    while port.outstanding_tx() > 0 {
        assert!(Instant::now() < end, "{:?}", port.accounting());
        assert_eq!(port.flush().refused, 0);
        port.reap();
    }
}

fn open_queue(queue: u32) -> Result<(Port<KernelRings>, Bound), OpenError> {
    open(&OpenConfig::new(NEAR, queue))
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

fn ethtool(arguments: &[&str]) {
    run("ethtool", arguments);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("it is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {error}", arguments.join(" "));
}

/// A socket that receives all test frames on an interface.
fn packet_socket(interface: &str) -> OwnedFd {
    let protocol = ETHERTYPE.to_be();
    let socket = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Protocol::from_raw(u32::from(protocol).try_into().expect("not zero")).into(),
    )
    .expect("packet sockets need CAP_NET_RAW");
    sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20).expect("CAP_NET_ADMIN");
    let timeout = Some(Duration::from_secs(1));
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, timeout).expect("a timeout");
    let index = rustix::net::netdevice::name_to_index(&socket, interface).expect("it exists");
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("small");
    // SAFETY: all zeroes is a valid `sockaddr_ll`: it has only integers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("small");
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(index).expect("small");
    // SAFETY: the descriptor is open, and pointer and length describe `address`.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    socket
}

/// Takes a capability from the calling thread alone.
fn drop_capability(capability: CapabilitySet) {
    let mut sets = capabilities(None).expect("reads its own");
    sets.effective.remove(capability);
    set_capabilities(None, sets).expect("one may always have less");
}

const NEAR: &str = "near";
const FAR: &str = "far";

const FRAME_LEN: usize = 60;

/// Local experimental (IEEE 802).
const ETHERTYPE: u16 = 0x88b5;

/// A broadcast, so that the peer's address does not matter.
const HEADER: [u8; 14] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 1, 0x88, 0xb5];
