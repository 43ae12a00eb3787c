//! `[metrics]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::net;
use crate::section::Section;
use crate::source::WithSpan;

/// Where metrics are served (`None` inside: nowhere). The span is the section's for the default.
pub(crate) fn read(section: &mut Section<'_>) -> Option<WithSpan<Option<SocketAddr>>> {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);
    if section.has("listen") {
        return section.read("listen", net::listen_address);
    }
    let span = section.header().clone();
    section.or("listen", Some(default), net::listen_address).map(|value| WithSpan { value, span })
}
