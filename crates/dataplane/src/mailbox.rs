//! How workers hand each other frames and requests: a bounded mailbox each, never blocking.
//!
//! Every worker has its own UMEM, so a frame crosses by copy, into a buffer of the receiver's pool.
//! That is for few frames: ICMP errors whose flow lives elsewhere, and frames that leave by another
//! interface which has no queue of the number that they came in by.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crossbeam::queue::ArrayQueue;

use crate::key::FlowKey;

/// A worker's mailbox.
pub struct Mailbox {
    messages: ArrayQueue<Message>,
    buffers: ArrayQueue<Parcel>,
    /// The owner sleeps, or is about to.
    asleep: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// What one worker may ask of another.
#[derive(Debug)]
pub enum Message {
    /// Forward it if its flow is yours, else drop it.
    Adopt(Parcel),
    /// Forward it to its flow's backend if that is yours, else to where a flow without an entry is.
    Place(Parcel),
    /// Already rewritten: transmit it on your port.
    Transmit(Parcel),
    /// The flow moved to another queue: let it go.
    Forget(FlowKey),
}

/// A copied frame.
pub struct Parcel {
    bytes: Box<[u8]>,
    len: usize,
}

impl Parcel {
    /// The frame.
    pub fn frame(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Mailbox {
    /// A mailbox for `capacity` messages with that many buffers of `frame_bytes` each. `wake` is
    /// called when something is posted to a sleeping owner.
    pub fn new(
        capacity: usize,
        frame_bytes: usize,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let buffers = ArrayQueue::new(capacity.max(1));
        while buffers
            .push(Parcel { bytes: vec![0; frame_bytes].into_boxed_slice(), len: 0 })
            .is_ok()
        {}
        // Forgetting a flow needs no buffer: leave room for as many of those.
        Self {
            messages: ArrayQueue::new(2 * capacity.max(1)),
            buffers,
            asleep: AtomicBool::new(false),
            wake: Box::new(wake),
        }
    }

    /// Copies a frame in and posts it; false when the mailbox is full or the frame too long.
    pub fn post_frame(&self, frame: &[u8], kind: fn(Parcel) -> Message) -> bool {
        let Some(mut parcel) = self.buffers.pop() else { return false };
        let Some(room) = parcel.bytes.get_mut(..frame.len()) else {
            self.recycle(parcel);
            return false;
        };
        room.copy_from_slice(frame);
        parcel.len = frame.len();
        match self.messages.push(kind(parcel)) {
            Ok(()) => {
                self.rouse();
                true
            }
            Err(Message::Adopt(parcel) | Message::Place(parcel) | Message::Transmit(parcel)) => {
                self.recycle(parcel);
                false
            }
            Err(Message::Forget(_)) => false,
        }
    }

    /// Asks the worker to let a flow go; lost when the mailbox is full (the entry then times out).
    pub fn post_forget(&self, key: FlowKey) -> bool {
        self.messages.push(Message::Forget(key)).is_ok()
    }

    /// The next message; only the owner takes.
    pub fn take(&self) -> Option<Message> {
        self.messages.pop()
    }

    /// Announces that the owner is about to sleep; `false` when it must not, for something waits.
    pub fn try_sleep(&self) -> bool {
        self.asleep.store(true, SeqCst);
        let empty = self.messages.is_empty();
        if !empty {
            self.awake();
        }
        empty
    }

    /// The owner is awake again.
    pub fn awake(&self) {
        self.asleep.store(false, SeqCst);
    }

    /// Wakes a sleeping owner.
    pub fn rouse(&self) {
        if self.asleep.swap(false, SeqCst) {
            (self.wake)();
        }
    }

    /// Gives a parcel's buffer back.
    pub fn recycle(&self, parcel: Parcel) {
        // The pool was built with exactly these buffers: there is room.
        let _ = self.buffers.push(parcel);
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("waiting", &self.messages.len()).finish()
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parcel({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_in_order_and_buffers_come_back() {
        let mailbox = Mailbox::new(4, 64, || ());
        for round in 0..10u8 {
            for i in 0..4 {
                assert!(mailbox.post_frame(&[round, i], Message::Adopt));
            }
            assert!(!mailbox.post_frame(&[9], Message::Adopt), "full");
            for i in 0..4 {
                let Some(Message::Adopt(parcel)) = mailbox.take() else { panic!("lost") };
                assert_eq!(parcel.frame(), [round, i]);
                mailbox.recycle(parcel);
            }
            assert!(mailbox.take().is_none());
        }
    }

    #[test]
    fn too_long_a_frame_is_refused_and_costs_no_buffer() {
        let mailbox = Mailbox::new(1, 4, || ());
        assert!(!mailbox.post_frame(&[0; 5], Message::Transmit));
        assert!(mailbox.post_frame(&[0; 4], Message::Transmit));
    }

    #[test]
    fn a_sleeping_owner_is_woken_once() {
        use std::sync::Arc;
        use std::sync::atomic::AtomicUsize;
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let mailbox = Mailbox::new(4, 64, move || {
            count.fetch_add(1, SeqCst);
        });
        assert!(mailbox.post_frame(&[1], Message::Adopt));
        assert!(!mailbox.try_sleep(), "a message waits");
        if let Some(Message::Adopt(parcel)) = mailbox.take() {
            mailbox.recycle(parcel);
        }
        assert!(mailbox.try_sleep());
        assert!(mailbox.post_frame(&[1], Message::Adopt));
        assert!(mailbox.post_frame(&[2], Message::Adopt));
        assert_eq!(woken.load(SeqCst), 1);
    }
}
