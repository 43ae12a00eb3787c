//! What the twin's kernel knows beside its rings: how it is to behave, and what it counted.

use std::collections::VecDeque;

use rustix::io::Errno;

use crate::rings::Statistics;

/// Everything behind the twin's lock. Its holder plays the kernel: moves the positions that
/// the kernel moves, and touches the frames that it owns.
#[derive(Debug)]
pub(super) struct State {
    pub(super) policy: Policy,
    pub(super) statistics: Statistics,
    pub(super) capture: bool,
    pub(super) captured: VecDeque<Vec<u8>>,
    pub(super) transmitted: u64,
    pub(super) kicks: u64,
    pub(super) wakes: u64,
}

impl State {
    pub(super) fn new(capture: bool) -> Self {
        Self {
            policy: Policy::default(),
            statistics: Statistics::default(),
            capture,
            captured: VecDeque::new(),
            transmitted: 0,
            kicks: 0,
            wakes: 0,
        }
    }
}

/// How the kernel is to behave.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) complete_later: bool,
    pub(super) budget: Option<u32>,
    pub(super) fail: Option<Errno>,
    pub(super) script: VecDeque<Errno>,
    pub(super) no_tx_queue: bool,
}

/// Frames by place, found by looking at each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// With user space: held, queued or free.
    pub user: u64,
    /// On the fill ring.
    pub fill: u64,
    /// On the RX ring.
    pub rx: u64,
    /// On the TX ring.
    pub tx: u64,
    /// Sent, not completed.
    pub wire: u64,
    /// On the completion ring.
    pub completion: u64,
}
