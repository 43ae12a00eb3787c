//! Which new connections of a backend are answered: what makes a silent backend suspected before
//! its next check.

use crate::tick::Tick;

/// New connections of one backend, as one worker saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// The oldest SYNs of different 5-tuples (a hash tells them apart) that no ACK followed yet.
    pub waiting: [Option<(u32, Tick)>; 2],
    /// When a handshake was last seen to complete.
    pub completed: Option<Tick>,
}
