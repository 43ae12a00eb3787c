//! P.

pub mod lifecycle;
