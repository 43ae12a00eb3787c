//! The packet path from bytes to verdicts: several workers on shared tables and one snapshot, with
//! time passed in.

mod acked;
mod answered;
mod bytes;
mod closed;
mod down;
mod explain;
mod forged;
mod fragments;
mod frames;
mod full;
mod groups;
mod handshakes;
mod kit;
mod lifecycle;
mod loops;
mod moves;
mod other_hosts;
mod properties;
mod restart;
mod spread;
mod unasked;
mod verdicts;
