//! `[service.persistence]`.

use std::time::Duration;

use control::Persistence;

use crate::duration::{TIMEOUT, duration};
use crate::section::Section;
use crate::source::{Span, WithSpan, Written};
use crate::value;

/// Persistence as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawPersistence {
    pub(crate) header: Span,
    pub(crate) timeout: Option<WithSpan<Duration>>,
    pub(crate) prefix_v4: Option<u8>,
    pub(crate) prefix_v6: Option<u8>,
    pub(crate) sticky_when_drained: Option<bool>,
    pub(crate) group: Written<String>,
}

impl RawPersistence {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        Self {
            header: section.header().clone(),
            timeout: section.required("timeout", "timeout = \"50s\"", duration(TIMEOUT)),
            prefix_v4: section.or("prefix_v4", 32, value::number(1..=32)),
            prefix_v6: section.or("prefix_v6", 128, value::number(1..=128)),
            sticky_when_drained: section.or("sticky_when_drained", false, value::boolean),
            group: section.optional("group", value::name),
        }
    }

    pub(crate) fn build(&self) -> Option<Persistence> {
        Some(Persistence {
            timeout: self.timeout.as_ref()?.value,
            prefix_v4: self.prefix_v4?,
            prefix_v6: self.prefix_v6?,
            sticky_when_drained: self.sticky_when_drained?,
            group: self.group.if_right()?,
        })
    }
}
