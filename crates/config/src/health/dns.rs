//! `dns`: a query and the response codes that pass.

use std::collections::BTreeSet;

use control::health::{CheckKind, DNS_RCODES, DNS_TYPES, DnsCheck};

use super::kind::{Kind, PortUse};
use crate::section::Section;
use crate::suggest;
use crate::value::{self, Checked, Value};

pub(super) const DNS: Kind = Kind {
    key: "dns",
    port: PortUse::WellKnown,
    connected: false,
    steerable: true,
    read: |section| section.table("dns", dns).flatten().map(CheckKind::Dns),
};

/// `dns`.
fn dns(section: &mut Section<'_>) -> Option<DnsCheck> {
    let name = section.required("name", "name = \"www.example.org\"", name);
    let rtype = section.or("type", A, value::choice(DNS_TYPES));
    let rcodes = section.or("rcode", BTreeSet::from([NOERROR]), rcodes);
    Some(DnsCheck { name: name?.value, rtype: rtype?, rcodes: rcodes? })
}

/// A domain name in ASCII (RFC 1035 §2.3.4), kept without a final dot; `.` is the root.
fn name(value: &Value<'_>) -> Checked<String> {
    let written = value.str("a string", "\"www.example.org\"")?;
    let refuse = |label: String, help: &str| {
        let message = format!("`{}` is not a domain name: `{}`", value.key, written.escape_debug());
        Err(vec![value.error(message).with_label(label).with_help(help)])
    };
    const EXAMPLE: &str = "write for example `name = \"www.example.org\"`; the root is `.`";
    let name = written.strip_suffix('.').unwrap_or(written);
    if written == "." {
        return Ok(String::new());
    }
    if let Some(odd) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c)) {
        let label = format!("contains `{}`", odd.escape_default());
        return refuse(label, "write letters, digits, `-`, `_` and dots; other names as `xn--…`");
    }
    if let Some(label) = name.split('.').find(|label| !(1..=63).contains(&label.len())) {
        let what = if label.is_empty() { "an empty label" } else { "a label beyond 63 bytes" };
        return refuse(what.to_owned(), EXAMPLE);
    }
    if name.len() > 253 {
        return refuse(format!("{} bytes, of at most 253", name.len()), EXAMPLE);
    }
    Ok(name.to_owned())
}

/// One word or a list of them.
fn rcodes(value: &Value<'_>) -> Checked<BTreeSet<u8>> {
    if value.value.as_str().is_some() {
        return Ok(BTreeSet::from([value::choice(DNS_RCODES)(value)?]));
    }
    if value.value.as_array().is_none() {
        let words = suggest::list(DNS_RCODES.iter().map(|(word, _)| *word));
        return Err(value.wrong_type("a word or a list", &format!("one of {words}, in quotes")));
    }
    let list = value::list("[\"NOERROR\", \"NXDOMAIN\"]", value::choice(DNS_RCODES))(value)?;
    if list.is_empty() {
        let error = value.error(format!("`{}` is an empty list", value.key));
        let help = "write the codes that pass, or remove it: then `NOERROR` does";
        return Err(vec![error.with_label("nothing would pass").with_help(help)]);
    }
    Ok(list.into_iter().map(|at| at.value).collect())
}

const A: u16 = 1;
const NOERROR: u8 = 0;
