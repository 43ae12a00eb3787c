//! Persistence templates: which backend the clients of a source prefix return to.
//!
//! Owns the templates of the node and their life. It chooses no backend, and counts on the
//! forwarder to report each end of a member flow exactly once. Never touched by a packet of a
//! known flow, but for the first after its end and one a second after that.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod table;
mod template;

pub use table::{PersistencePage, PersistenceStats, PersistenceTable};
pub use template::{Epoch, Joined, Template, TemplateEntry, TemplateKey, TemplateRef};

#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod tests;
