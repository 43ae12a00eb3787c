//! `[node]`.

use crate::section::Section;
use crate::value;

/// The node's name, if one is given.
pub(crate) fn read(section: &mut Section<'_>) -> Option<String> {
    section.read("name", value::name).map(|name| name.value)
}
