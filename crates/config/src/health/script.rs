//! `script = ["program", "argument"]`.

use control::health::CheckKind;

use super::kind::{Kind, PortUse};
use crate::value;

pub(super) const SCRIPT: Kind = Kind {
    key: "script",
    port: PortUse::Portless { help: "remove `port`, or give it to the program as an argument" },
    connected: false,
    steerable: false,
    read: |section| section.read("script", value::argv).map(|argv| CheckKind::Script(argv.value)),
};
