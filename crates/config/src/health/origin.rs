//! `source`: the addresses that probes come from, one per family.

use std::net::IpAddr;

use crate::diagnostic::Diagnostic;
use crate::net;
use crate::source::WithSpan;
use crate::value::{self, Checked, Value};

/// At most one address of each family.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Origin {
    /// The one of the family of `vip`.
    pub(super) fn towards(&self, vip: IpAddr) -> Option<IpAddr> {
        if vip.is_ipv4() { self.v4 } else { self.v6 }
    }

    fn add(&mut self, address: &WithSpan<IpAddr>) -> Option<Diagnostic> {
        let of_family = if address.value.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let earlier = of_family.replace(address.value)?;
        let message = format!("`source` has two addresses of one family: {earlier} is there");
        let error = Diagnostic::error(&address.span, message).with_label("the second one");
        Some(error.with_help("write one IPv4 and one IPv6 address at most"))
    }
}

/// One address, or a list with one of each family.
pub(super) fn origin(value: &Value<'_>) -> Checked<Origin> {
    let written = if value.value.as_array().is_some() {
        value::list("[\"192.0.2.9\", \"2001:db8::9\"]", net::host_address)(value)?
    } else {
        vec![WithSpan { value: net::host_address(value)?, span: value.span.clone() }]
    };
    if written.is_empty() {
        let error = value.error(format!("`{}` is an empty list", value.key));
        let help = "write an address of this node, or remove it: then the kernel chooses";
        return Err(vec![error.with_label("no address").with_help(help)]);
    }
    let mut origin = Origin::default();
    let mistakes: Vec<_> = written.iter().filter_map(|address| origin.add(address)).collect();
    if mistakes.is_empty() { Ok(origin) } else { Err(mistakes) }
}
