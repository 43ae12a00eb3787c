//! `[vrrp.notify]` and `[service.notify]`: a program that runs at each change of state.

use std::time::Duration;

use control::Notify;

use crate::duration::{PERIOD, duration};
use crate::section::Section;
use crate::value;

pub(crate) fn read(section: &mut Section<'_>) -> Option<Notify> {
    let command = section.required("command", "command = [\"/usr/local/bin/notify\"]", value::argv);
    let timeout = section.or("timeout", Duration::from_secs(10), duration(PERIOD));
    Some(Notify { command: command?.value, timeout: timeout? })
}
