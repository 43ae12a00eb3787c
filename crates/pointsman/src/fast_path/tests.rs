//! The XDP program beside the packet path: with it, frames, counters and flows are what they are
//! without it. Needs root, as everything that loads a program.

#![expect(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "frames are short, and most oddities mean nothing to most headers"
)]

mod differential;
mod egress;
mod frames;
mod local_senders;
mod world;
