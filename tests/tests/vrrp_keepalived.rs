//! Debian's keepalived as the other node, with adverts of 100 ms: every way of talking, both ways
//! round, and how soon one takes over from the other. The rest is in `waiting/vrrp_keepalived.rs`.
//! Needs root.

#[path = "vrrp/keepalived.rs"]
mod keepalived;
mod vrrp;

use keepalived::{IPV6, MULTICAST, TEN_VIPS, UNICAST, Way, both_ways, keepalived_leads};
use lab::Result;

/// The kind of checksum is learnt as soon as keepalived says something.
#[test]
fn version_3_with_a_checksum_that_is_learnt() -> Result<()> {
    keepalived_leads(&Way { checksum: "auto", ..MULTICAST })
}

#[test]
fn version_3_multicast_with_ten_vips() -> Result<()> {
    both_ways(&TEN_VIPS)
}

#[test]
fn version_3_unicast() -> Result<()> {
    both_ways(&UNICAST)
}

#[test]
fn version_3_over_ipv6() -> Result<()> {
    both_ways(&IPV6)
}
