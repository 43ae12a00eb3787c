//! TOML text in, the desired state out, or all mistakes at once, each with its span.
//!
//! Pure: the caller passes the name and the text of the file; no clock, file or network. What only
//! the machine can tell (does the interface exist, is the address free) is checked by the daemon,
//! which points back into the text through [`SpanIndex`].
//!
//! One file per section (`node.rs`, `service.rs`, …), each the same two steps: read every key of a
//! `section::Section` into a raw struct whose fields are all `Option`, mistakes being collected on
//! the way, then `build` the checked type. A new section is one such file and one line in its
//! parent.
#![forbid(unsafe_code)]

mod backend;
mod control_socket;
mod dataplane;
mod diagnostic;
mod document;
mod duration;
mod failure;
mod files;
mod group;
mod health;
mod interface;
mod limits;
mod metrics;
mod min_healthy;
mod net;
mod node;
mod notify;
mod overlap;
mod persistence;
mod ports;
mod render;
mod section;
mod service;
mod source;
mod span_index;
mod suggest;
mod syntax;
mod value;
mod vrrp;

use std::sync::Arc;

pub use control::Desired;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use files::{File, Include, includes, nodes};
pub use source::Span;
pub use span_index::SpanIndex;

use section::Section;
use source::Source;

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What the operator wants, every default filled in.
    pub desired: Desired,
    /// What is allowed but probably not meant, such as a service without backends.
    pub warnings: Diagnostics,
    /// Where in the text each setting stands, for checks that need the machine.
    pub spans: SpanIndex,
}

/// Reads a configuration. `file_name` is only shown in messages.
///
/// # Errors
/// Every mistake found, in the order of the text, warnings among them. When the text is not TOML
/// only that is reported: what a broken file means cannot be checked.
pub fn parse(file_name: &str, text: &str) -> Result<Parsed, Diagnostics> {
    parse_files(&[File { name: file_name.to_owned(), text: text.to_owned() }], None)
}

/// Reads a configuration of several files, the main one first, for the node of this name.
///
/// # Errors
/// As [`parse`]; also where [`nodes`] have sections of their own and this one has none.
pub fn parse_files(files: &[File], node: Option<&str>) -> Result<Parsed, Diagnostics> {
    let texts = files.iter().map(|file| (file.name.as_str(), file.text.as_str()));
    let source = Arc::new(Source::of(texts));
    let document = files::merged(&source, node)?;
    let mut found = Vec::new();
    let desired = Section::root(&source, &document, &mut found, document::read);
    let found = Diagnostics::from_iter(found);
    match desired {
        Some(desired) if !found.has_errors() => Ok(Parsed {
            desired,
            warnings: found,
            spans: SpanIndex::new(Arc::clone(&source), node),
        }),
        _ => Err(found),
    }
}
