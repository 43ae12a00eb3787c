//! `[control]`.

use std::path::PathBuf;

use crate::section::Section;
use crate::value::{Checked, Value};

pub(crate) fn read(section: &mut Section<'_>) -> Option<PathBuf> {
    section.or("socket", PathBuf::from(DEFAULT), path)
}

/// An absolute path that fits `sockaddr_un`.
fn path(value: &Value<'_>) -> Checked<PathBuf> {
    let path = value.str("a string", DEFAULT)?;
    let label = if !path.starts_with('/') {
        "not an absolute path".to_owned()
    } else if path.len() > PATH_MAX {
        format!("{} bytes, Linux allows {PATH_MAX}", path.len())
    } else if path.ends_with('/') {
        "a directory".to_owned()
    } else if path.contains(char::is_control) {
        "contains control characters".to_owned()
    } else {
        return Ok(PathBuf::from(path));
    };
    let error = value.error(format!("`{}` is not a usable path", value.key)).with_label(label);
    Err(vec![error.with_help(format!("write an absolute path such as `\"{DEFAULT}\"`"))])
}

const DEFAULT: &str = "/run/pointsman/pointsman.sock";

/// `sun_path` less its final NUL.
const PATH_MAX: usize = 107;
