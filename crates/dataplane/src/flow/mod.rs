//! The flow table of one worker.

mod timeouts;

pub use timeouts::Timeouts;
