//! Two million frames are forwarded in order, without a leak and without one allocation.
#![expect(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use xsk::{Batch, MemoryConfig};

#[test]
fn two_million_frames_pass_without_a_leak_or_an_allocation() {
    const FRAMES: u64 = 2_000_000;
    let config = MemoryConfig { capture: false, ..MemoryConfig::default() };
    let (mut port, kernel) = xsk::memory_port(config);
    let before = port.accounting();
    let mut batch = Batch::new();
    let (mut injected, mut expected, mut sent) = (0_u64, 0_u64, 0_u64);

    let allocations = allocations();
    while sent < FRAMES {
        for _ in 0..64 {
            let number = injected.to_be_bytes();
            assert!(kernel.inject_with(60, |packet| packet[..8].copy_from_slice(&number)));
            injected += 1;
        }
        port.reap();
        assert_eq!(port.receive(&mut batch), 64);
        for mut frame in batch.drain() {
            let packet = port.bytes(&mut frame);
            assert_eq!(packet.first_chunk(), Some(&expected.to_be_bytes()));
            packet[8] = 1;
            expected += 1;
            port.send(frame);
        }
        let flushed = port.flush();
        assert_eq!(flushed.refused, 0);
        sent += flushed.sent as u64;
    }
    assert_eq!(self::allocations(), allocations);

    port.reap();
    assert_eq!(port.accounting(), before);
    assert_eq!(kernel.transmitted(), FRAMES);
    assert_eq!(port.counters().kicks, FRAMES / 64, "one kick per burst");
}

/// Allocations of the calling thread so far.
fn allocations() -> u64 {
    ALLOCATIONS.get()
}

struct Counting;

// SAFETY: everything is left to the system allocator; counting allocates nothing, since the
// thread-local is initialised at compile time and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}
