//! The program against the kernel, so all of it needs root: without, these tests fail.
//!
//! `table` says frame by frame what is to happen, `oracle` says it as code and compares for
//! generated frames, `maps` is about VIPs, leases and sockets, `lifecycle` about attachments.

mod frames;
mod lifecycle;
mod maps;
mod oracle;
mod rig;
mod table;
