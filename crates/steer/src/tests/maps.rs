//! VIPs, leases and clocks: what user space writes is what the program acts by.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags};
use rustix::time::{ClockId, clock_gettime};

use super::frames::*;
use super::rig::*;
use crate::abi::{INSTANCES, VIPS, Vip};
use crate::{Leases, Outcome, Steer, SteerError};

#[test]
fn a_lease_ends_by_itself() {
    let rig = Rig::new();
    let leases = rig.steer.leases();
    assert_eq!(leases.len(), INSTANCES as usize);
    let frame = frame(&tcp4(STANDBY4));
    let lease = &leases[STANDBY as usize];

    assert_eq!(rig.run(&frame).0, Action::Drop);
    lease.store(now_ns() + 3_600_000_000_000, Ordering::Relaxed);
    assert_eq!(rig.run(&frame).0, Action::Redirect);
    lease.store(now_ns(), Ordering::Relaxed);
    assert_eq!(rig.run(&frame).0, Action::Drop);
}

#[test]
fn clones_view_the_same_leases_and_outlive_the_owner() {
    let steer = Steer::load().expect("these tests need root");
    let (one, other) = (steer.leases(), steer.leases());
    drop(steer);
    one[7].store(42, Ordering::Relaxed);
    drop(one);
    assert_eq!(other[7].load(Ordering::Relaxed), 42);
    assert!(other.iter().enumerate().all(|(slot, v)| slot == 7 || v.load(Ordering::Relaxed) == 0));
}

#[test]
fn vips_come_change_and_go() {
    let rig = Rig::new();
    let (addr, tcp) = (mapped(NODE4), frame(&tcp4(NODE4)));
    assert_eq!(rig.run(&tcp).1, Outcome::Passed);
    rig.steer.insert_vip(addr, Vip { instance: STANDBY, ifindex: 0 }).unwrap();
    assert_eq!(rig.run(&tcp).1, Outcome::Inactive);
    rig.steer.insert_vip(addr, Vip { instance: ACTIVE, ifindex: 0 }).unwrap();
    assert_eq!(rig.run(&tcp).1, Outcome::Redirected);
    rig.steer.remove_vip(addr).unwrap();
    assert_eq!(rig.run(&tcp).1, Outcome::Passed);
    rig.steer.remove_vip(addr).unwrap();

    let mut expected = WORLD.to_vec();
    expected.sort_by_key(|(addr, _)| *addr);
    assert_eq!(rig.steer.vips().unwrap(), expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    let steer = Steer::load().expect("these tests need root");
    let beyond = Vip { instance: INSTANCES, ifindex: 0 };
    let error = steer.insert_vip(mapped(NODE4), beyond).unwrap_err();
    assert!(matches!(error, SteerError::OutOfRange { index: INSTANCES, .. }), "{error}");

    let vip = Vip { instance: 0, ifindex: 0 };
    let key = |number: u32| mapped(number.to_be_bytes());
    (0..VIPS).for_each(|number| steer.insert_vip(key(number), vip).unwrap());
    let error = steer.insert_vip(key(VIPS), vip).unwrap_err();
    assert!(matches!(error, SteerError::TooManyVips { room: VIPS }), "{error}");
    steer.insert_vip(key(0), vip).expect("a known VIP may change");
    steer.remove_vip(key(0)).unwrap();
    steer.insert_vip(key(VIPS), vip).unwrap();
}

#[test]
fn a_slot_beyond_the_leases_is_inactive() {
    let rig = Rig::new();
    let vip = Vip { instance: u32::MAX, ifindex: 0 };
    rig.steer.vip_map().update(&mapped(NODE4), &vip.to_bytes(), MapFlags::ANY).unwrap();
    assert_eq!(rig.run(&frame(&tcp4(NODE4))).1, Outcome::Inactive);
}

#[test]
fn the_clock_is_ours() {
    // `Steer::load` has compared them; a lease of 50 ms is good now and not after 50 ms.
    let rig = Rig::new();
    let until = now_ns() + 50_000_000;
    rig.steer.leases()[STANDBY as usize].store(until, Ordering::Relaxed);
    let mut last_redirect = 0;
    loop {
        let before = now_ns();
        assert!(before < until + 1_000_000_000, "the lease does not end");
        if rig.run(&frame(&tcp4(STANDBY4))).0 == Action::Drop {
            assert!(now_ns() >= until, "dropped {} ns early", until - now_ns());
            assert!(last_redirect < until && last_redirect > 0);
            return;
        }
        last_redirect = before;
    }
}

#[test]
fn an_ordinary_map_cannot_be_taken_for_the_leases() {
    let rig = Rig::new();
    assert!(Leases::map(rig.steer.vip_map().as_fd()).is_err());
}

fn now_ns() -> u64 {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}
