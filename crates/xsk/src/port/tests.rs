use super::*;
use crate::memory::{MemoryConfig, MemoryKernel, MemoryRings, memory_port};

type Twin = (Port<MemoryRings>, MemoryKernel);

fn twin(frames: u32, ring: u32) -> Twin {
    memory_port(MemoryConfig { frames, ring, capture: true })
}

/// Reaps, receives `count` packets, sends them unchanged and flushes.
fn forward(port: &mut Port<MemoryRings>, kernel: &MemoryKernel, count: u8) -> Flushed {
    port.reap();
    for number in 0..count {
        assert!(kernel.inject(&[number; 60]), "packet {number} of {count}");
    }
    send_received(port);
    port.flush()
}

fn send_received(port: &mut Port<MemoryRings>) -> usize {
    let mut batch = Batch::new();
    let count = port.receive(&mut batch);
    for frame in batch.drain() {
        port.send(frame);
    }
    count
}

/// Sends `count` packets that were not received here.
fn send_copies(port: &mut Port<MemoryRings>, count: u8) -> Flushed {
    for number in 0..count {
        let frame = port.copy_in(&[number; 60]).expect("a free frame");
        port.send(frame);
    }
    port.flush()
}

fn settled(port: &mut Port<MemoryRings>) -> bool {
    let accounting = port.accounting();
    let Accounting { rx, tx, completion, queued, held, .. } = accounting;
    accounting.is_balanced() && [rx, tx, completion, queued, held] == [0; 5]
}

#[test]
fn a_burst_costs_one_kick_and_leaves_nothing_behind() {
    let (mut port, kernel) = twin(256, 64);
    assert_eq!(forward(&mut port, &kernel, 64), Flushed { sent: 64, refused: 0 });
    assert_eq!(kernel.kicks(), 1);
    for number in 0..64 {
        assert_eq!(kernel.take_transmitted(), Some(vec![number; 60]));
    }
    assert_eq!(port.outstanding_tx(), 64);
    assert_eq!(port.reap(), 64);
    assert_eq!(port.outstanding_tx(), 0);
    assert!(settled(&mut port));
}

#[test]
fn a_batch_goes_behind_what_was_queued_and_waits_where_it_does_not_fit() {
    let (mut port, kernel) = twin(64, 16);
    port.reap();
    for number in 0..8 {
        assert!(kernel.inject(&[number; 60]));
    }
    let mut batch = Batch::new();
    assert_eq!(port.receive(&mut batch), 8);
    let last = batch.pop().expect("eight were received");
    kernel.refuse_transmit(true);
    port.send_all(&mut batch);
    assert!(batch.is_empty());
    assert_eq!((port.accounting().queued, port.accounting().held), (7, 1));
    kernel.refuse_transmit(false);
    assert!(batch.push(last).is_ok());
    port.send_all(&mut batch);
    assert_eq!(port.flush(), Flushed { sent: 8, refused: 0 });
    assert_eq!(kernel.kicks(), 1);
    for number in 0..8 {
        assert_eq!(kernel.take_transmitted(), Some(vec![number; 60]));
    }
    port.reap();
    assert!(settled(&mut port));
}

#[test]
fn an_idle_flush_is_no_system_call() {
    let (mut port, kernel) = twin(64, 16);
    assert_eq!(forward(&mut port, &kernel, 4).sent, 4);
    let kicks = kernel.kicks();
    for _ in 0..10 {
        assert_eq!(port.flush(), Flushed::default());
        port.reap();
        assert_eq!(port.wake_rx(), Ok(()));
    }
    assert_eq!((kernel.kicks(), kernel.wakes()), (kicks, 0));
}

#[test]
fn a_kick_that_has_to_be_repeated_is_repeated_without_new_frames() {
    let soft = [
        (Errno::AGAIN, KickError::Again),
        (Errno::BUSY, KickError::Busy),
        (Errno::NOBUFS, KickError::NoBufs),
        (Errno::INTR, KickError::Interrupted),
    ];
    for (errno, reason) in soft {
        let (mut port, kernel) = twin(64, 16);
        kernel.fail_next_kicks([errno, errno]);
        assert_eq!(forward(&mut port, &kernel, 8), Flushed { sent: 8, refused: 0 });
        assert!(port.kick_pending(), "{errno}");
        assert_eq!(kernel.transmitted(), 0, "{errno}");
        assert_eq!(port.flush(), Flushed::default());
        assert!(port.kick_pending(), "{errno}");
        assert_eq!(port.flush(), Flushed::default());
        assert!(!port.kick_pending(), "{errno}");
        assert_eq!((kernel.kicks(), kernel.transmitted()), (3, 8), "{errno}");
        assert_eq!(port.counters().kick_errors.of(reason), 2, "{errno}");
        assert_eq!(port.counters().kick_errors.total(), 2, "{errno}");
        assert_eq!(port.link(), Link::Up, "{errno}");
        port.reap();
        assert!(settled(&mut port), "{errno}");
    }
}

#[test]
fn a_device_that_cannot_send_is_a_state_that_ends() {
    let hard = [
        (Errno::NETDOWN, KickError::NetDown),
        (Errno::NXIO, KickError::NoDevice),
        (Errno::OPNOTSUPP, KickError::Other),
        (Errno::PIPE, KickError::Other),
        (Errno::INVAL, KickError::Other),
        (Errno::BADF, KickError::Other),
    ];
    for (errno, reason) in hard {
        let (mut port, kernel) = twin(128, 16);
        kernel.fail_kicks(Some(errno));
        assert_eq!(forward(&mut port, &kernel, 8).sent, 8, "the ring still has room");
        assert_eq!(port.link(), Link::Down(errno));
        assert_eq!(forward(&mut port, &kernel, 8).sent, 8);
        assert_eq!(forward(&mut port, &kernel, 8), Flushed { sent: 0, refused: 8 });
        assert_eq!(kernel.kicks(), 3, "one per burst, also when the ring is full");
        assert_eq!(port.counters().kick_errors.of(reason), 3);
        assert_eq!(port.counters().tx_full, 8);
        assert!(port.accounting().is_balanced());
        // A signal says nothing about the link.
        kernel.fail_next_kicks([Errno::INTR]);
        assert_eq!(port.flush(), Flushed::default());
        assert_eq!(port.link(), Link::Down(errno));
        kernel.fail_kicks(None);
        assert_eq!(port.flush(), Flushed::default());
        assert_eq!((port.link(), kernel.transmitted()), (Link::Up, 16));
        port.reap();
        assert!(settled(&mut port), "{errno}");
    }
}

#[test]
fn frames_that_the_ring_refuses_are_recycled_and_counted() {
    let (mut port, kernel) = twin(64, 16);
    kernel.refuse_transmit(true);
    assert_eq!(forward(&mut port, &kernel, 10), Flushed { sent: 0, refused: 10 });
    assert_eq!(port.counters().tx_full, 10);
    assert!(settled(&mut port));
    kernel.refuse_transmit(false);
    assert_eq!(forward(&mut port, &kernel, 10), Flushed { sent: 10, refused: 0 });
}

#[test]
fn a_full_ring_is_kicked_and_tried_again() {
    let (mut port, kernel) = twin(128, 16);
    kernel.fail_next_kicks([Errno::AGAIN]);
    assert_eq!(send_copies(&mut port, 16).sent, 16);
    assert_eq!(send_copies(&mut port, 16), Flushed { sent: 16, refused: 0 });
    // The first 16 fill the completion ring, so the kernel takes no more before they are reaped.
    assert_eq!((kernel.transmitted(), port.kick_pending()), (16, true));
    port.reap();
    assert_eq!(port.flush(), Flushed::default());
    assert_eq!((kernel.transmitted(), port.kick_pending()), (32, false));
    let order: Vec<u8> = std::iter::from_fn(|| kernel.take_transmitted()).map(|p| p[0]).collect();
    assert_eq!(order, (0..16).chain(0..16).collect::<Vec<u8>>());
}

#[test]
fn a_full_ring_makes_room_by_reaping() {
    let (mut port, kernel) = twin(128, 16);
    let send = |port: &mut Port<MemoryRings>| send_copies(port, 16);
    assert_eq!(send(&mut port), Flushed { sent: 16, refused: 0 });
    // Nothing was reaped: the completion ring is full, and so these stay on the TX ring.
    assert_eq!(send(&mut port), Flushed { sent: 16, refused: 0 });
    assert_eq!(kernel.transmitted(), 16);
    assert_eq!(send(&mut port), Flushed { sent: 16, refused: 0 });
    assert_eq!(kernel.transmitted(), 32);
}

#[test]
fn late_completions_hold_frames_but_lose_none() {
    let (mut port, kernel) = twin(128, 16);
    kernel.complete_later(true);
    assert_eq!(forward(&mut port, &kernel, 16).sent, 16);
    port.reap();
    // The completion ring has to take 16 back: the kernel takes no more before.
    assert_eq!(forward(&mut port, &kernel, 16).sent, 16);
    assert!(port.kick_pending());
    port.reap();
    assert_eq!(send_copies(&mut port, 16), Flushed { sent: 0, refused: 16 });
    assert_eq!(port.outstanding_tx(), 32);
    assert_eq!(port.reap(), 0);
    assert_eq!(kernel.complete(5), 5);
    assert_eq!(port.accounting().completion, 5);
    assert_eq!(port.reap(), 5);
    assert_eq!(port.outstanding_tx(), 27);
    kernel.complete_later(false);
    for _ in 0..4 {
        assert_eq!(port.flush(), Flushed::default());
        port.reap();
        kernel.complete(u32::MAX);
    }
    assert_eq!(kernel.transmitted(), 32);
    assert!(settled(&mut port));
}

#[test]
fn a_budget_costs_kicks_and_no_frames() {
    for (budget, kicks) in [(16, 4), (32, 2), (64, 1)] {
        let (mut port, kernel) = twin(256, 64);
        kernel.budget(Some(budget));
        assert_eq!(forward(&mut port, &kernel, 64), Flushed { sent: 64, refused: 0 });
        assert_eq!((kernel.transmitted(), kernel.kicks()), (64, kicks), "budget {budget}");
        assert!(!port.kick_pending());
    }
}

#[test]
fn a_kick_that_sends_nothing_is_repeated_in_the_next_turn() {
    let (mut port, kernel) = twin(256, 64);
    kernel.budget(Some(0));
    assert_eq!(forward(&mut port, &kernel, 64).sent, 64);
    assert_eq!((kernel.kicks(), port.kick_pending()), (1, true));
    kernel.budget(Some(4));
    assert_eq!(port.flush(), Flushed::default());
    assert_eq!(kernel.kicks(), 1 + 1 + MOST_KICKS as u64, "a turn must end");
    assert!(port.kick_pending());
}

/// Three times what can be sent: each turn sends what the ring holds, and what there is no room for
/// stays with the kernel.
#[test]
fn under_overload_nothing_is_dropped_after_the_work_was_done() {
    for budget in [1, 3, 16, 32] {
        let (mut port, kernel) = twin(512, 128);
        kernel.budget(Some(budget));
        let mut received = 0;
        for turn in 0..1_000 {
            for number in 0..192 {
                kernel.inject(&[number; 60]);
            }
            port.reap();
            received += send_received(&mut port) as u64;
            let Flushed { refused, .. } = port.flush();
            assert_eq!(refused, 0, "budget {budget}, turn {turn}");
        }
        let sent = kernel.transmitted();
        assert_eq!(port.counters().tx_full, 0);
        assert!(received - sent <= 128, "budget {budget}: {received} received, {sent} sent");
        let a_turn = (u64::from(budget) * (1 + MOST_KICKS as u64)).min(BURST as u64);
        assert!(sent + 128 >= 1_000 * a_turn, "budget {budget}: {sent} sent");
    }
}

#[test]
fn what_cannot_leave_is_received_all_the_same() {
    let (mut port, kernel) = twin(128, 16);
    kernel.fail_kicks(Some(Errno::NETDOWN));
    assert_eq!(forward(&mut port, &kernel, 16).sent, 16);
    assert_eq!(port.link(), Link::Down(Errno::NETDOWN));
    assert_eq!(forward(&mut port, &kernel, 10), Flushed { sent: 0, refused: 10 });
}

#[test]
fn a_queue_that_swallows_frames_is_noticed() {
    let (mut port, kernel) = twin(128, 32);
    assert_eq!(port.way_out(), WayOut::Ring);
    kernel.no_tx_queue(true);
    assert_eq!(port.way_out(), WayOut::Ring, "nothing was sent yet");
    assert_eq!(forward(&mut port, &kernel, 8), Flushed { sent: 8, refused: 0 });
    assert_eq!((port.link(), port.kick_pending()), (Link::Up, false), "the kernel says success");
    assert_eq!(port.way_out(), WayOut::None);
    kernel.no_tx_queue(false);
    assert_eq!(port.flush(), Flushed::default());
    assert_eq!((port.way_out(), kernel.transmitted()), (WayOut::Ring, 8));
    // What waits because a kick failed, or for a driver that needs no kick, is not swallowed.
    kernel.fail_next_kicks([Errno::AGAIN]);
    assert_eq!(forward(&mut port, &kernel, 8).sent, 8);
    assert_eq!(port.way_out(), WayOut::Ring);
    assert_eq!(port.flush(), Flushed::default());
    kernel.needs_wakeup(false, false);
    assert_eq!(forward(&mut port, &kernel, 8).sent, 8);
    assert_eq!(port.way_out(), WayOut::Ring);
}

#[test]
fn more_than_a_burst_can_be_sent_between_flushes() {
    let (mut port, kernel) = twin(1024, 256);
    for number in 0..200 {
        kernel.inject(&[number]);
    }
    assert_eq!((0..4).map(|_| send_received(&mut port)).sum::<usize>(), 200);
    assert_eq!(port.flush(), Flushed { sent: 200, refused: 0 });
    assert_eq!(kernel.kicks(), 1);
    let order: Vec<u8> = std::iter::from_fn(|| kernel.take_transmitted()).map(|p| p[0]).collect();
    assert_eq!(order, (0..200).collect::<Vec<u8>>());
}

#[test]
fn a_driver_that_needs_no_wakeup_gets_none() {
    let (mut port, kernel) = twin(64, 16);
    kernel.needs_wakeup(false, false);
    assert_eq!(forward(&mut port, &kernel, 8).sent, 8);
    assert_eq!((kernel.kicks(), kernel.transmitted()), (0, 0));
    kernel.run();
    assert_eq!(kernel.transmitted(), 8);
    // It goes to sleep between our write and our look at its flag: found on the next turn.
    assert_eq!(port.reap(), 8);
    assert_eq!(forward(&mut port, &kernel, 3).sent, 3);
    kernel.needs_wakeup(true, true);
    assert_eq!(port.flush(), Flushed::default());
    assert_eq!((kernel.kicks(), kernel.transmitted()), (1, 11));
    assert_eq!(port.wake_rx(), Ok(()));
    assert_eq!((kernel.wakes(), port.counters().rx_wakeups), (1, 1));
}

#[test]
fn a_packet_of_another_port_finds_a_reserved_frame() {
    // Everything the fill ring can take, it takes, but for one frame in 64.
    let (mut port, kernel) = twin(128, 128);
    assert_eq!(port.accounting().free, 2);
    let one = port.copy_in(b"from a neighbour").expect("reserved");
    let two = port.copy_in(&[7; 1792]).expect("reserved");
    assert!(port.copy_in(b"none left").is_none());
    port.recycle(two);
    assert!(port.copy_in(&[7; 1793]).is_none(), "longer than a frame");
    assert!(port.copy_in(&[]).is_none(), "nothing to send");
    assert_eq!(port.counters().copy_in_refused, 3);
    port.send(one);
    assert_eq!(port.flush().sent, 1);
    assert_eq!(kernel.take_transmitted().as_deref(), Some(&b"from a neighbour"[..]));
    port.reap();
    assert!(settled(&mut port));
}

#[test]
fn a_packet_can_be_cut_and_stretched() {
    let (mut port, kernel) = twin(64, 16);
    kernel.inject(b"neighbour solicitation");
    let mut batch = Batch::new();
    port.receive(&mut batch);
    let mut frame = batch.pop().expect("received");
    assert!(!port.resize(&mut frame, 0));
    assert!(!port.resize(&mut frame, 1793));
    assert_eq!(frame.len(), 22);
    assert!(port.resize(&mut frame, 9));
    assert_eq!(port.bytes(&mut frame), b"neighbour");
    assert!(port.resize(&mut frame, 1792));
    assert_eq!(port.bytes(&mut frame)[..22], *b"neighbour solicitation");
    port.recycle(frame);
}

#[test]
fn all_packets_of_a_burst_can_be_seen_at_once() {
    let (mut port, kernel) = twin(256, 64);
    for number in 0..64 {
        kernel.inject(&[number; 60]);
    }
    let mut batch = Batch::new();
    port.receive(&mut batch);
    let mut packets: Vec<&mut [u8]> = batch.iter_mut().map(|frame| port.bytes(frame)).collect();
    for (number, packet) in (0_u8..).zip(&mut packets) {
        assert_eq!(**packet, [number; 60]);
        packet[0] = !number;
    }
    for frame in batch.drain() {
        port.send(frame);
    }
    assert_eq!(port.flush().sent, 64);
    assert_eq!(kernel.take_transmitted().map(|packet| packet[0]), Some(255));
}

#[test]
fn a_dropped_frame_stays_on_the_books() {
    let (mut port, kernel) = twin(64, 16);
    kernel.inject(&[1]);
    let mut batch = Batch::new();
    port.receive(&mut batch);
    drop(batch);
    port.reap();
    let accounting = port.accounting();
    assert!(accounting.is_balanced());
    assert_eq!(accounting.held, 1);
}

#[test]
fn after_overload_everything_is_as_before() {
    let (mut port, kernel) = twin(512, 128);
    let before = port.accounting();
    let moods = [None, Some(Errno::AGAIN), Some(Errno::NOBUFS), Some(Errno::NETDOWN), None];
    let mut offered = 0_u64;
    let mut accepted = 0_u64;
    let (mut sent, mut refused) = (0, 0);
    for turn in 0..2_000_usize {
        kernel.fail_kicks(moods[turn / 400]);
        kernel.budget(Some(20));
        for _ in 0..100 {
            offered += 1;
            accepted += u64::from(kernel.inject(&[3; 60]));
        }
        port.reap();
        send_received(&mut port);
        let flushed = port.flush();
        sent += flushed.sent as u64;
        refused += flushed.refused as u64;
        assert!(port.accounting().is_balanced(), "turn {turn}");
    }
    assert!(accepted < offered && refused > 0, "this was no overload");
    kernel.fail_kicks(None);
    kernel.budget(None);
    let waiting = port.accounting().rx;
    for _ in 0..=waiting / BURST as u64 + 2 {
        port.reap();
        send_received(&mut port);
        let flushed = port.flush();
        sent += flushed.sent as u64;
        refused += flushed.refused as u64;
    }
    port.reap();
    assert_eq!(port.accounting(), before);
    assert_eq!(sent + refused, accepted);
    assert_eq!(kernel.transmitted(), sent);
    assert_eq!(forward(&mut port, &kernel, 64), Flushed { sent: 64, refused: 0 });
}
