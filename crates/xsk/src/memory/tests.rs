use std::thread;
use std::time::{Duration, Instant};

use super::*;

fn small(ring: u32) -> MemoryConfig {
    MemoryConfig { frames: 16, ring, capture: true }
}

#[test]
fn a_packet_goes_round_and_its_bytes_with_it() {
    let (mut port, kernel) = memory_port(MemoryConfig::default());
    let mut batch = Batch::new();
    assert!(kernel.inject(b"to the left"));
    assert_eq!(port.receive(&mut batch), 1);
    let mut frame = batch.pop().expect("received");
    port.bytes(&mut frame)[7..].copy_from_slice(b"west");
    port.send(frame);
    assert_eq!(port.flush().sent, 1);
    assert_eq!(kernel.take_transmitted().as_deref(), Some(&b"to the west"[..]));
    assert_eq!(kernel.take_transmitted(), None);
}

#[test]
fn what_the_kernel_would_drop_is_dropped_and_counted() {
    let (port, kernel) = memory_port(small(4));
    assert!(!kernel.inject(&[]));
    assert!(!kernel.inject(&[0; Region::CAPACITY + 1]));
    assert!(kernel.inject(&[0; Region::CAPACITY]));
    for _ in 0..3 {
        assert!(kernel.inject(&[1]));
    }
    assert!(!kernel.inject(&[1]), "four frames are all that the ring takes");
    let statistics = port.statistics().expect("plain memory");
    assert_eq!(statistics.rx_dropped, 2);
    assert_eq!(statistics.rx_ring_full, 1);
    assert_eq!(statistics.rx_fill_ring_empty_descs, 0);
}

#[test]
fn an_empty_fill_ring_is_told_from_a_full_rx_ring() {
    let (mut port, kernel) = memory_port(small(4));
    let mut batch = Batch::new();
    for _ in 0..4 {
        kernel.inject(&[1]);
    }
    assert_eq!(port.receive(&mut batch), 4);
    assert!(!kernel.inject(&[1]), "nothing was put back yet");
    let statistics = port.statistics().expect("plain memory");
    assert_eq!((statistics.rx_ring_full, statistics.rx_fill_ring_empty_descs), (0, 1));
    port.reap();
    assert!(kernel.inject(&[1]));
    for frame in batch.drain() {
        port.recycle(frame);
    }
}

#[test]
fn looped_packets_come_back_in_order_and_in_place() {
    let config = MemoryConfig { frames: 64, ring: 16, capture: false };
    let (mut port, kernel) = memory_port(config);
    kernel.complete_later(true);
    let mut batch = Batch::new();
    for number in 0..10_u8 {
        assert!(kernel.inject(&[number; 60]));
    }
    for round in 0..1000 {
        port.reap();
        assert_eq!(port.receive(&mut batch), 10, "round {round}");
        for (number, mut frame) in batch.drain().enumerate() {
            assert_eq!(port.bytes(&mut frame), [u8::try_from(number).expect("small"); 60]);
            port.send(frame);
        }
        assert_eq!(port.flush().sent, 10);
        assert!(port.accounting().is_balanced());
        assert_eq!(kernel.turn(u32::MAX), 10);
    }
    assert_eq!(kernel.transmitted(), 10_000);
    assert_eq!(kernel.take_transmitted(), None, "nothing is kept without capture");
}

#[test]
fn the_kernel_may_run_on_another_thread() {
    const PACKETS: u32 = 5_000;
    let (mut port, kernel) = memory_port(small(8));
    let end = Instant::now() + Duration::from_secs(20);
    let injector = {
        let kernel = kernel.clone();
        thread::spawn(move || {
            let mut injected = 0_u32;
            while injected < PACKETS && Instant::now() < end {
                if kernel.inject(&injected.to_be_bytes()) {
                    injected += 1;
                } else {
                    thread::yield_now();
                }
            }
        })
    };
    let mut batch = Batch::new();
    let mut forwarded = 0;
    while forwarded < PACKETS as usize && Instant::now() < end {
        port.reap();
        if port.receive(&mut batch) == 0 {
            thread::yield_now();
        }
        for frame in batch.drain() {
            port.send(frame);
        }
        forwarded += port.flush().sent;
    }
    injector.join().expect("it only injects");
    for number in 0..PACKETS {
        assert_eq!(kernel.take_transmitted(), Some(number.to_be_bytes().to_vec()));
    }
}

#[test]
#[should_panic(expected = "another UMEM")]
fn a_frame_of_another_port_is_refused() {
    let (mut ours, kernel) = memory_port(small(4));
    let (theirs, _other) = memory_port(small(4));
    let mut batch = Batch::new();
    kernel.inject(&[1]);
    ours.receive(&mut batch);
    let mut frame = batch.pop().expect("received");
    theirs.bytes(&mut frame);
}

#[test]
fn cooling_changes_no_packet() {
    let (mut port, kernel) = memory_port(MemoryConfig::default());
    assert!(kernel.inject(&[7; 60]) && kernel.inject(&[8; 200]));
    kernel.cool();
    let mut batch = Batch::new();
    assert_eq!(port.receive(&mut batch), 2);
    let packets: Vec<Vec<u8>> = batch
        .drain()
        .map(|mut frame| {
            let bytes = port.bytes(&mut frame).to_vec();
            port.recycle(frame);
            bytes
        })
        .collect();
    assert_eq!(packets, [vec![7; 60], vec![8; 200]]);
}
