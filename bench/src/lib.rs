//! What the benches measure, and how.
//!
//! | module | holds |
//! |---|---|
//! | [`traffic`] | packets of numbered flows, and a random order to visit them in |
//! | [`rig`] | a worker over rings in plain memory, with flows established |
//! | [`subjects`] | what is measured: the null loop, whole turns, and their parts alone |
//! | [`harness`] | interleaved rounds and their statistics |
//! | [`report`] | the results as a table and as files |
//! | [`veth`] | the other bench: whole programs on a veth, beside an XDP reflector and a bare AF_XDP loop |
//!
//! All subjects of a bench run in one process, round by round (A, B, C, A, B, C …), so that a noisy
//! machine disturbs all of them alike: ratios between them mean more than the figures themselves.

pub mod harness;
pub mod report;
pub mod rig;
pub mod subjects;
pub mod traffic;
pub mod veth;
