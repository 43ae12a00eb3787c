//! Which messages an instance accepts: RFC 9568 §7.1, the list of peers, and the list of addresses.
//!
//! VRRPv3 has no authentication (RFC 9568 §9): TTL 255 keeps out what is routed, the list of peers
//! keeps out the rest of the link as far as source addresses can be trusted.

use std::net::IpAddr;

use super::config::Config;
use super::packet::{Advert, Envelope, Version, decode};
use super::reject::Reject;

/// Decodes a message and checks it against an instance.
pub fn accept<'a>(
    config: &Config,
    message: &'a [u8],
    from: &Envelope,
) -> Result<Advert<'a>, Reject> {
    let advert = accept_any_list(config, message, from)?;
    // Another virtual router that has our number by mistake, or a node that was configured
    // differently: followed, it would take VIPs away that it does not serve. keepalived discards too.
    if !advert.addresses.same_as(&config.vips) {
        return Err(Reject::Addresses);
    }
    Ok(advert)
}

/// The same without the list of addresses.
pub(super) fn accept_any_list<'a>(
    config: &Config,
    message: &'a [u8],
    from: &Envelope,
) -> Result<Advert<'a>, Reject> {
    let advert = decode(message, from)?;
    if advert.version != config.version {
        return Err(Reject::Version);
    }
    if advert.vrid != config.vrid {
        return Err(Reject::Vrid);
    }
    check_addresses(config, from)?;
    let authentic = match (&config.auth_pass, &advert.auth) {
        (None, None) => true,
        (Some(pass), Some(data)) => pass.matches(data),
        (None, Some(_)) | (Some(_), None) => false,
    };
    if !authentic {
        return Err(Reject::Auth);
    }
    // RFC 3768 §7.1: the interval must be the configured one. RFC 9568 §6.4.2 learns it instead.
    if advert.version == Version::V2 && advert.interval != config.interval {
        return Err(Reject::Interval);
    }
    Ok(advert)
}

fn check_addresses(config: &Config, from: &Envelope) -> Result<(), Reject> {
    let source = from.source;
    if source.is_ipv4() != config.primary.is_ipv4() || !is_host(source) {
        return Err(Reject::Family);
    }
    // A looped-back advert of our own would be an equal priority that never wins nor loses.
    if source == config.primary {
        return Err(Reject::Own);
    }
    if !config.peers.is_empty() && !config.peers.contains(&source) {
        return Err(Reject::Source);
    }
    let to_group = from.destination == config.group();
    let addressed = if config.unicast { !from.destination.is_multicast() } else { to_group };
    if addressed { Ok(()) } else { Err(Reject::Destination) }
}

fn is_host(ip: IpAddr) -> bool {
    !ip.is_multicast() && !ip.is_unspecified() && !ip.is_loopback()
}
