//! What a port counts. Plain numbers with one writer; they are copied for export.

use rustix::io::Errno;

/// Frames and system calls since the port was opened.
///
/// `filled - received` frames are with the kernel to receive into, `transmitted - completed` to be
/// sent. Every frame that was received or copied in was sent or recycled, or is still held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames put on the fill ring.
    pub filled: u64,
    /// Frames taken from the RX ring.
    pub received: u64,
    /// Frames put on the TX ring.
    pub transmitted: u64,
    /// Frames taken from the completion ring.
    pub completed: u64,
    /// Frames that the worker gave back unsent.
    pub recycled: u64,
    /// Frames filled with a packet of another port.
    pub copied_in: u64,
    /// Packets of another port for which there was no frame.
    pub copy_in_refused: u64,
    /// Packets dropped because the TX ring stayed full.
    pub tx_full: u64,
    /// Kicks, successful or not.
    pub kicks: u64,
    /// Kicks that failed, by reason.
    pub kick_errors: KickErrors,
    /// System calls that woke the receiving side.
    pub rx_wakeups: u64,
}

impl Counters {
    #[inline]
    pub(super) const fn in_flight_rx(&self) -> u64 {
        self.filled.wrapping_sub(self.received)
    }

    #[inline]
    pub(super) const fn in_flight_tx(&self) -> u64 {
        self.transmitted.wrapping_sub(self.completed)
    }
}

label::labels! {
    /// Why a kick failed.
    pub enum KickError {
        Again => "eagain", "`EAGAIN`: budget used up, device queue, send buffer or completion ring full.";
        Busy => "ebusy", "`EBUSY`: the device refused a frame.";
        NoBufs => "enobufs", "`ENOBUFS`: no memory for a packet.";
        Interrupted => "eintr", "`EINTR`: a signal came.";
        NetDown => "enetdown", "`ENETDOWN`: the link is down.";
        NoDevice => "enxio", "`ENXIO`: the device is gone.";
        Other => "other", "Anything else.";
    }
}

impl KickError {
    /// The reason behind an error number.
    pub const fn of(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Again,
            Errno::BUSY => Self::Busy,
            Errno::NOBUFS => Self::NoBufs,
            Errno::INTR => Self::Interrupted,
            Errno::NETDOWN => Self::NetDown,
            Errno::NXIO => Self::NoDevice,
            _ => Self::Other,
        }
    }
}

/// Failed kicks by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KickErrors([u64; KickError::ALL.len()]);

impl KickErrors {
    /// How many kicks failed for this reason.
    pub const fn of(&self, reason: KickError) -> u64 {
        self.0[reason as usize]
    }

    /// How many kicks failed.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) const fn count(&mut self, errno: Errno) -> KickError {
        let reason = KickError::of(errno);
        self.0[reason as usize] += 1;
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        for (at, reason) in KickError::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        let mut errors = KickErrors::default();
        assert_eq!(errors.count(Errno::NETDOWN), KickError::NetDown);
        assert_eq!(errors.count(Errno::PIPE), KickError::Other);
        assert_eq!(errors.of(KickError::NetDown), 1);
        assert_eq!(errors.total(), 2);
    }
}
