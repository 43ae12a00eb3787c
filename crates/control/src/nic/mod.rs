//! Whether a network card does what its driver said it would: faults that no system call reports.
//!
//! [`ReceiveWatch`] finds a card whose frames never reach the XDP program, [`SendWatch`] a queue
//! whose transmissions never complete, [`UnboundWatch`] frames on queues that no socket is bound to.
//! Each is given readings of counters and says what follows; the caller executes it.

mod fast_path;
mod receive;
mod send;
mod unbound;

pub use fast_path::{Egress, FastPathChoice, FastPathFacts, LossReading, LossWatch, fast_path};
pub use receive::{Fallbacks, ReceiveAction, ReceiveMode, ReceiveReading, ReceiveWatch};
pub use send::{SendReading, SendWatch};
pub use unbound::UnboundWatch;
