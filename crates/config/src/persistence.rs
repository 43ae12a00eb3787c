//! `[service.persistence]`.

use control::Persistence;

use crate::duration::{TIMEOUT, duration};
use crate::section::Section;
use crate::value;

pub(crate) fn read(section: &mut Section<'_>) -> Option<Persistence> {
    let timeout = section.required("timeout", "timeout = \"50s\"", duration(TIMEOUT));
    let prefix_v4 = section.or("prefix_v4", 32, value::number(1..=32));
    let prefix_v6 = section.or("prefix_v6", 128, value::number(1..=128));
    let sticky_when_drained = section.or("sticky_when_drained", false, value::boolean);
    Some(Persistence {
        timeout: timeout?.value,
        prefix_v4: prefix_v4?,
        prefix_v6: prefix_v6?,
        sticky_when_drained: sticky_when_drained?,
    })
}
