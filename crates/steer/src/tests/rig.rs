//! The loaded program with a fixed set of VIPs, run frame by frame.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::net::{AddressFamily, SocketType, socket};

use super::frames::OUR_MAC;
use crate::abi::{Octets, Vip};
pub(super) use crate::trial::Action;
use crate::{Outcome, Steer, Trial};

/// The program on one imagined interface, with maps of its own.
pub(super) struct Rig {
    pub(super) steer: Steer,
    trial: Trial,
}

impl Rig {
    /// With the VIPs of [`WORLD`], and a socket on queue 0.
    pub(super) fn new() -> Self {
        let steer = Steer::load().expect("these tests need root");
        let trial = Trial::new(&steer, OUR_MAC).unwrap();
        for (addr, vip) in WORLD {
            steer.insert_vip(*addr, *vip).unwrap();
        }
        steer.leases()[ACTIVE as usize].store(u64::MAX, Ordering::Relaxed);
        Self { steer, trial }
    }

    /// Gives queue 0 its socket or takes it away.
    pub(super) fn bind(&self, bound: bool) {
        self.trial.bind(bound).unwrap();
    }

    /// Runs one frame of at least 14 bytes, as received on queue 0 of interface [`LO`].
    pub(super) fn run(&self, frame: &[u8]) -> (Action, Outcome) {
        self.trial.run(frame, &mut Vec::new()).unwrap()
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
        Outcome::Forwarded => Action::Transmit,
        Outcome::Redirected | Outcome::NeighbourRedirected => Action::Redirect,
        Outcome::Inactive | Outcome::NeighbourInactive => Action::Drop,
    }
}

pub(super) fn xdp_socket() -> OwnedFd {
    socket(AddressFamily::XDP, SocketType::RAW, None).expect("an AF_XDP socket needs root")
}

/// The interface that `BPF_PROG_TEST_RUN` pretends to receive on.
const LO: u32 = Trial::IFINDEX;
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
