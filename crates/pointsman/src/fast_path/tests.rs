//! The XDP program beside the packet path: with it, frames, counters and flows are what they are
//! without it. Needs root, as everything that loads a program.

mod differential;
mod frames;
mod local_senders;
mod world;
