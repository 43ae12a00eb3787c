//! The schema of what the daemon says and takes: the protocol of the control socket, and the status
//! document. States and labels are the enums of the crates that decide them, so a word that no
//! machine knows cannot be expressed.

pub mod explain;
pub mod listing;
pub mod request;
pub mod status;
