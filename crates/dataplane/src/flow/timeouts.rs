//! Idle timeouts by connection state.

use std::time::Duration;

use super::state::FlowState;

/// Idle timeouts by connection state. The defaults are those of ip_vs (`ip_vs_proto_tcp.c`).
///
/// The tables keep time in milliseconds that wrap: a timeout longer than 12 days (2^30 ms) is
/// taken as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// SYN seen, no ACK yet; also a connection that is not proven, unless its SYN was seen and few
    /// are.
    pub half_open: Duration,
    /// The connection is proven.
    pub established: Duration,
    /// The client sent FIN.
    pub closing: Duration,
    /// The client sent RST.
    pub reset: Duration,
    /// UDP has no states.
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            half_open: Duration::from_secs(60),
            established: Duration::from_secs(900),
            closing: Duration::from_secs(120),
            reset: Duration::from_secs(10),
            udp: Duration::from_secs(300),
        }
    }
}

/// [`Timeouts`] in milliseconds, by state.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleMillis {
    half_open: u32,
    established: u32,
    closing: u32,
    reset: u32,
    udp: u32,
}

impl IdleMillis {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        Self {
            half_open: millis(timeouts.half_open),
            established: millis(timeouts.established),
            closing: millis(timeouts.closing),
            reset: millis(timeouts.reset),
            udp: millis(timeouts.udp),
        }
    }

    /// Those of established and of UDP flows.
    pub(super) const fn of_known(&self) -> [u32; 2] {
        [self.established, self.udp]
    }

    /// `crowded`: many flows are not proven.
    #[inline]
    pub(super) const fn of(&self, state: FlowState, crowded: bool) -> u32 {
        match state {
            FlowState::PickedUp => self.half_open,
            FlowState::Opening if crowded => self.half_open,
            FlowState::Opening | FlowState::Established => self.established,
            FlowState::Closing => self.closing,
            FlowState::Reset => self.reset,
            FlowState::Udp => self.udp,
        }
    }
}

/// Milliseconds since `earlier`, both on the clock that wraps; 0 when `earlier` lies ahead.
#[inline]
pub(super) const fn millis_since(now: u32, earlier: u32) -> u32 {
    let passed = now.wrapping_sub(earlier);
    if passed > i32::MAX.unsigned_abs() { 0 } else { passed }
}

/// Whether `idle` milliseconds have passed since `earlier`; an `earlier` that lies ahead is no time
/// ago. [`IdleMillis`] are never so long that the difference of the two wraps into the past.
#[inline]
pub(super) const fn is_over(idle: u32, earlier: u32, now: u32) -> bool {
    now.wrapping_sub(earlier).cast_signed() >= idle.cast_signed()
}

fn millis(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).min(MAX_MILLIS)
}

/// A quarter of the clock's range: half of it parts past from future, and what is left between a
/// timeout and that half is the time in which a sweep must come by.
const MAX_MILLIS: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_times_follow_the_states() {
        let idle = IdleMillis::new(&Timeouts::default());
        let table = [
            (FlowState::PickedUp, [60_000; 2]),
            (FlowState::Opening, [900_000, 60_000]),
            (FlowState::Established, [900_000; 2]),
            (FlowState::Closing, [120_000; 2]),
            (FlowState::Reset, [10_000; 2]),
            (FlowState::Udp, [300_000; 2]),
        ];
        for (state, expected) in table {
            let got = [false, true].map(|crowded| idle.of(state, crowded));
            assert_eq!(got, expected, "{state:?}");
        }
    }

    #[test]
    fn long_timeouts_are_capped() {
        assert_eq!(millis(Duration::MAX), MAX_MILLIS);
        assert_eq!(millis(Duration::from_secs(3_000_000)), MAX_MILLIS);
    }

    #[test]
    fn differences_wrap() {
        assert_eq!(millis_since(5, u32::MAX - 4), 10);
        assert_eq!(millis_since(u32::MAX, u32::MAX), 0);
        assert_eq!(millis_since(10, 11), 0, "the future is not the distant past");
        for (idle, earlier, now, over) in [
            (10, u32::MAX - 4, 5, true),
            (11, u32::MAX - 4, 5, false),
            (1, 11, 10, false),
            (MAX_MILLIS, 0, MAX_MILLIS, true),
            (MAX_MILLIS, 0, MAX_MILLIS - 1, false),
            (MAX_MILLIS, 0, i32::MAX.unsigned_abs(), true),
        ] {
            assert_eq!(is_over(idle, earlier, now), over, "{idle} ms, {earlier} to {now}");
        }
    }
}
