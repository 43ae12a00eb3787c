//! The hit path does not allocate: neither the worker, nor the packet path, nor the rings.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bench::rig::{Rig, Shape};
use bench::traffic::{Flags, Order};
use xsk::BURST;

const FLOWS: u32 = 10_000;
const TURNS: u64 = 2_000;

#[test]
fn turns_over_established_flows_allocate_nothing() {
    let mut rig = Rig::new(Shape { flows: FLOWS, vips: 3, backends: 10 });
    let mut order = Order::new();
    let forwarded = rig.counters.totals.forwarded.value();
    let before = requests();
    for _ in 0..TURNS {
        for _ in 0..BURST {
            rig.inject(order.below(FLOWS), Flags::Ack);
        }
        rig.turn();
    }
    let after = requests();
    assert_eq!(after - before, 0, "allocator calls in {TURNS} turns");
    let expected = forwarded + TURNS * BURST as u64;
    assert_eq!(rig.counters.totals.forwarded.value(), expected);
    rig.audit();
}

#[test]
fn an_allocation_would_be_seen() {
    let before = requests();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(requests() - before, 1);
}

/// Counts what this thread asks for, and passes it on.
struct Counting;

// SAFETY: every call is passed on to `System` with the arguments it came with, so what `System`
// promises holds here. Counting neither allocates nor unwinds: the counter is a constant-initialised
// thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller vouches for `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller vouches for `layout`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `block` came from `System`, as all blocks do; the caller vouches for the rest.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `System`, as all blocks do; the caller vouches for the rest.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static REQUESTS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    REQUESTS.set(REQUESTS.get() + 1);
}

/// How often this thread has asked for memory.
fn requests() -> u64 {
    REQUESTS.get()
}
