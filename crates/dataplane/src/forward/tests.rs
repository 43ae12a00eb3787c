//! The packet path from bytes to verdicts: several workers on shared tables and one snapshot, with
//! time passed in.

mod bytes;
mod frames;
mod full;
mod kit;
mod lifecycle;
mod moves;
mod properties;
mod spread;
mod verdicts;
