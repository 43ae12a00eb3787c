//! The Prometheus view of [`Status`]: a registry is filled at each scrape, so a metric cannot
//! disagree with the status document. Every series exists from the start, with 0.

mod family;
mod health;
mod histogram;
mod interface;
mod labels;
mod node;
mod service;
#[cfg(test)]
mod tests;
mod vrrp;
mod worker;

use api::status::Status;
use prometheus::TextEncoder;

use self::family::Page;

/// The exposition text of a status document.
///
/// # Errors
/// A name or label set is used twice: a bug, reported instead of a panic.
pub fn render(status: &Status) -> prometheus::Result<String> {
    let page = Page::default();
    node::add(&page, status)?;
    interface::add(&page, status)?;
    worker::add(&page, status)?;
    vrrp::add(&page, status)?;
    service::add(&page, status)?;
    health::add(&page, status)?;
    TextEncoder::new().encode_to_string(&page.gather())
}
