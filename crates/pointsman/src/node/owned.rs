//! VIPs that the kernel of this node owns: it answers for them whether this node forwards or not, after
//! this process ended too. Start and reload refuse it; an address that is added later is named.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tracing::{error, info};

use super::Node;
use crate::netlink::Picture;

impl Node {
    /// Names what changed.
    pub(super) fn look_at_owned_vips(&mut self, picture: &Picture) {
        let vips = self.controller.desired().services.iter().map(|service| service.vip);
        let owned: BTreeSet<IpAddr> = vips.filter(|vip| remedy(*vip, picture).is_some()).collect();
        for vip in owned.difference(&self.owned_vips) {
            let remedy = remedy(*vip, picture).unwrap_or_default();
            error!(%vip, "the kernel of this node owns the VIP now: it goes on answering when this \
                node does not forward, and the next start is refused; {remedy}");
        }
        for vip in self.owned_vips.difference(&owned) {
            info!(%vip, "the kernel of this node does not own the VIP any more");
        }
        self.owned_vips = owned;
    }
}

/// What to do if the kernel owns the VIP.
pub(super) fn remedy(vip: IpAddr, picture: &Picture) -> Option<String> {
    let (owner, network) = picture.links.iter().find_map(|(name, link)| {
        let networks = picture.networks.get(&link.ifindex)?;
        Some((name, networks.iter().find(|network| network.address == vip)?))
    })?;
    Some(format!(
        "remove it (`ip address del {vip}/{} dev {owner}`): pointsman answers for the VIP itself, and \
         only while it forwards",
        network.prefix
    ))
}
