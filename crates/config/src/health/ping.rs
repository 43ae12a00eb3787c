//! `ping = true`.

use control::health::CheckKind;

use super::kind::{Kind, PortUse};
use crate::value::{self, Checked, Value};

pub(super) const PING: Kind = Kind {
    key: "ping",
    port: PortUse::Portless { help: "remove `port`, or ask it with `tcp = {}`" },
    connected: false,
    steerable: true,
    read: |section| section.read("ping", only_true).map(|_| CheckKind::Ping),
};

fn only_true(value: &Value<'_>) -> Checked<()> {
    if value::boolean(value)? {
        return Ok(());
    }
    let error = value.error(format!("`{}` cannot be false", value.key));
    Err(vec![error.with_label("asks nothing").with_help("write `true`, or remove it")])
}
