//! Where all frames of a port are at one moment.

/// Frames by place. Each number but `free` and `queued` comes from its own counter, so that a sum
/// that differs from `total` means a frame was lost or doubled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Given to the kernel to receive into, nothing received yet: on the fill ring or in the driver.
    pub fill: u64,
    /// On the RX ring.
    pub rx: u64,
    /// Given to the kernel to send, not yet sent: on the TX ring or in the driver.
    pub tx: u64,
    /// On the completion ring.
    pub completion: u64,
    /// Sent by the worker, waiting for the next flush.
    pub queued: u64,
    /// In the free list.
    pub free: u64,
    /// Held by the worker. Between turns these are the fragments that wait: anything else was dropped,
    /// and is lost.
    pub held: u64,
    /// All frames of the UMEM.
    pub total: u64,
}

impl Accounting {
    /// Whether `fill + rx + tx + completion + queued + free + held = total`.
    pub fn is_balanced(&self) -> bool {
        [self.fill, self.rx, self.tx, self.completion, self.queued, self.free, self.held]
            .into_iter()
            .try_fold(0_u64, u64::checked_add)
            == Some(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_a_doubled_and_an_impossible_frame_are_seen() {
        let right = Accounting { fill: 5, tx: 2, free: 1, total: 8, ..Accounting::default() };
        assert!(right.is_balanced());
        assert!(!Accounting { tx: 1, ..right }.is_balanced());
        assert!(!Accounting { held: 1, ..right }.is_balanced());
        let impossible = Accounting { fill: 0_u64.wrapping_sub(1), rx: 6, ..right };
        assert!(!impossible.is_balanced());
    }
}
