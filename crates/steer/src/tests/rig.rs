//! The loaded program with a fixed set of VIPs, run frame by frame with `BPF_PROG_TEST_RUN`.
//!
//! That run reports a redirect only if the queue has a socket, so the rig has one: an AF_XDP
//! socket needs no ring and no interface to stand in an XSKMAP.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use libbpf_rs::{MapCore, MapFlags, MapHandle, ProgramInput};
use rustix::net::{AddressFamily, SocketType, socket};

use super::frames::OUR_MAC;
use crate::abi::{Octets, Vip};
use crate::attach::{read_counters, set_mac};
use crate::object::{self, skeleton::SteerSkel};
use crate::{Counters, Outcome, Steer};

/// The program on one imagined interface, with maps of its own.
pub(super) struct Rig {
    pub(super) steer: Steer,
    object: SteerSkel<'static>,
    counters: MapHandle,
    last: Cell<Counters>,
    socket: OwnedFd,
}

/// What a frame was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Drop,
    Pass,
    Redirect,
}

impl Rig {
    /// With the VIPs of [`WORLD`], and a socket on queue 0.
    pub(super) fn new() -> Self {
        let steer = Steer::load().expect("these tests need root");
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let object = object::load(storage, |open| {
            steer.share_maps([&mut open.maps.vips, &mut open.maps.leases])
        })
        .unwrap();
        let counters = MapHandle::try_from(&object.maps.counters).unwrap();
        set_mac(&MapHandle::try_from(&object.maps.port).unwrap(), OUR_MAC).unwrap();
        let rig = Self { steer, object, counters, last: Cell::default(), socket: xdp_socket() };
        for (addr, vip) in WORLD {
            rig.steer.insert_vip(*addr, *vip).unwrap();
        }
        rig.steer.leases()[ACTIVE as usize].store(u64::MAX, Ordering::Relaxed);
        rig.bind(true);
        rig
    }

    /// Gives queue 0 its socket or takes it away.
    pub(super) fn bind(&self, bound: bool) {
        let (key, fd) = (0u32.to_ne_bytes(), self.socket.as_fd().as_raw_fd().to_ne_bytes());
        let xsks = &self.object.maps.xsks;
        let result = if bound { xsks.update(&key, &fd, MapFlags::ANY) } else { xsks.delete(&key) };
        result.unwrap();
    }

    /// Runs one frame of at least 14 bytes, as received on queue 0 of interface [`LO`].
    pub(super) fn run(&self, frame: &[u8]) -> (Action, Outcome) {
        let action = self.action(frame);
        let after = read_counters(&self.counters).unwrap();
        let before = self.last.replace(after);
        (action, the_only_step(&before, &after))
    }

    fn action(&self, frame: &[u8]) -> Action {
        let input = ProgramInput { data_in: Some(frame), ..ProgramInput::default() };
        let output = self.object.progs.steer.test_run(input).unwrap();
        match output.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            4 => Action::Redirect,
            action => panic!("the program returned {action}"),
        }
    }
}

/// What an outcome is to do to the frame.
pub(super) fn action_of(outcome: Outcome) -> Action {
    match outcome {
        Outcome::Passed
        | Outcome::Malformed
        | Outcome::Group
        | Outcome::OtherInterface
        | Outcome::OtherHost
        | Outcome::Unbound => Action::Pass,
        Outcome::Redirected | Outcome::NeighbourRedirected => Action::Redirect,
        Outcome::Inactive | Outcome::NeighbourInactive => Action::Drop,
    }
}

pub(super) fn xdp_socket() -> OwnedFd {
    socket(AddressFamily::XDP, SocketType::RAW, None).expect("an AF_XDP socket needs root")
}

fn the_only_step(before: &Counters, after: &Counters) -> Outcome {
    assert_eq!(after.total(), before.total() + 1, "one frame is counted once");
    let stepped = |outcome: &&Outcome| after[**outcome] != before[**outcome];
    *Outcome::ALL.iter().find(stepped).unwrap()
}

/// The interface that `BPF_PROG_TEST_RUN` pretends to receive on.
const LO: u32 = 1;
const NOT_LO: u32 = 99;

/// An instance whose lease never ends, and one without a lease.
pub(super) const ACTIVE: u32 = 255;
pub(super) const STANDBY: u32 = 2;

pub(super) const ACTIVE4: [u8; 4] = [192, 0, 2, 10];
pub(super) const STANDBY4: [u8; 4] = [192, 0, 2, 20];
pub(super) const HERE4: [u8; 4] = [192, 0, 2, 30];
pub(super) const ELSEWHERE4: [u8; 4] = [192, 0, 2, 40];
/// No VIP.
pub(super) const NODE4: [u8; 4] = [192, 0, 2, 1];

pub(super) const ACTIVE6: [u8; 16] = v6(0x10);
pub(super) const STANDBY6: [u8; 16] = v6(0x20);
pub(super) const HERE6: [u8; 16] = v6(0x30);
pub(super) const ELSEWHERE6: [u8; 16] = v6(0x40);
/// No VIP.
pub(super) const NODE6: [u8; 16] = v6(1);

/// The VIPs of the rig.
pub(super) const WORLD: &[(Octets, Vip)] = &[
    (mapped(ACTIVE4), Vip { instance: ACTIVE, ifindex: 0 }),
    (mapped(STANDBY4), Vip { instance: STANDBY, ifindex: 0 }),
    (mapped(HERE4), Vip { instance: ACTIVE, ifindex: LO }),
    (mapped(ELSEWHERE4), Vip { instance: ACTIVE, ifindex: NOT_LO }),
    (ACTIVE6, Vip { instance: ACTIVE, ifindex: 0 }),
    (STANDBY6, Vip { instance: STANDBY, ifindex: 0 }),
    (HERE6, Vip { instance: ACTIVE, ifindex: LO }),
    (ELSEWHERE6, Vip { instance: ACTIVE, ifindex: NOT_LO }),
];

/// The key of an IPv4 address.
pub(super) const fn mapped([a, b, c, d]: [u8; 4]) -> Octets {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

const fn v6(last: u8) -> [u8; 16] {
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}
