//! The state of the VRRP instances as status documents.

use std::time::Instant;

use control::vrrp::{ChecksumStyle, Peer, Reason, Reject, StateName, Version};
use dataplane::Mac;

use super::Node;
use super::vrrp::{Member, state_of};
use crate::vrrp::{Counters, LATE_BOUNDS, Report};
use api::status::{
    Checksum, Count, ForeignClaim, Histogram, Vrrp, VrrpDiscardedPeer, VrrpPeer, VrrpTransitions,
};

impl Node {
    pub(super) fn vrrp_status(&self) -> Vec<Vrrp> {
        let Some(vrrp) = &self.vrrp else { return Vec::new() };
        let now = Instant::now();
        let reports = vrrp.thread.reports();
        vrrp.members
            .iter()
            .filter_map(|(at, member)| Some((member, reports.get(*at)?)))
            .map(|(member, report)| {
                let mut shown = show(member, report, now);
                shown.last_foreign_claim = report.claim.map(|(claim, at)| ForeignClaim {
                    vip: claim.vip,
                    mac: claim.mac.to_string(),
                    backend: self.backend_at(claim.mac),
                    age_seconds: now.saturating_duration_since(at).as_secs_f64(),
                });
                shown
            })
            .collect()
    }

    /// The name of the backend that has a MAC address.
    pub(super) fn backend_at(&self, mac: Mac) -> Option<String> {
        let mut services = self.controller.services();
        services.find_map(|service| {
            let at = |usable: &Result<(_, Mac), _>| usable.as_ref().is_ok_and(|path| path.1 == mac);
            let found = service.backends.iter().find(|backend| at(&backend.usable));
            found.map(|backend| backend.name.to_owned())
        })
    }
}

fn show(member: &Member, report: &Report, now: Instant) -> Vrrp {
    let Member { wanted, vips, tracking, .. } = member;
    let status = report.status;
    let counters = &report.counters;
    let until = |at: Option<Instant>| {
        at.filter(|at| *at > now).map(|at| at.duration_since(now).as_secs_f64())
    };
    let lease = until(status.and_then(|status| status.lease_until));
    let tracker = tracking.tracker();
    let why = status
        .map_or("It waits for the interface, an address on it, or the backends' MACs.", |status| {
            status.reason.help()
        });
    Vrrp {
        name: wanted.name.clone(),
        interface: wanted.interface.clone(),
        vrid: wanted.vrid.get(),
        version: match wanted.version {
            Version::V2 => 2,
            Version::V3 => 3,
        },
        state: state_of(report),
        since_seconds: status
            .and_then(|status| status.since)
            .map(|since| now.saturating_duration_since(since).as_secs_f64()),
        reason: status.map(|status| status.reason),
        why: why.to_owned(),
        vips: vips.to_vec(),
        vips_active: lease.is_some(),
        lease_seconds: lease,
        configured_priority: wanted.priority,
        effective_priority: status.map_or(0, |status| status.effective_priority),
        priority_why: tracker.to_string(),
        blocked: status.and_then(|status| status.block),
        resigned_seconds: until(status.and_then(|status| status.resigned_until)),
        advert_interval_seconds: status
            .map_or(wanted.advert_interval, |status| status.active_interval)
            .as_secs_f64(),
        checksum: match status.map(|status| status.checksum) {
            Some(ChecksumStyle::PseudoHeader) => Checksum::PseudoHeader,
            Some(ChecksumStyle::Plain) | None => Checksum::Rfc9568,
        },
        peers: report.peers.iter().flatten().map(|peer| show_peer(peer, now)).collect(),
        stalls: status.map_or(0, |status| status.stalls),
        sent: counters.sent,
        send_failed: counters.send_failed,
        received: counters.received,
        overflowed: counters.overflowed,
        announced: counters.announced,
        foreign_claims: counters.claimed,
        last_foreign_claim: None,
        discarded_peer: report.discarded.map(|peer| VrrpDiscardedPeer {
            address: peer.source,
            reason: peer.reject,
            why: peer.reject.help().to_owned(),
            since_seconds: now.saturating_duration_since(peer.since).as_secs_f64(),
        }),
        rejected: Count::list(Reject::ALL, |reject| counters.rejected[reject.index()]),
        transitions: transitions(counters),
        late: Histogram {
            bounds: LATE_BOUNDS.iter().map(std::time::Duration::as_secs_f64).collect(),
            counts: counters.late.to_vec(),
            sum: counters.late_sum.as_secs_f64(),
        },
    }
}

fn show_peer(peer: &Peer, now: Instant) -> VrrpPeer {
    VrrpPeer {
        address: peer.last.source,
        priority: peer.last.priority,
        interval_seconds: peer.last.interval.as_secs_f64(),
        age_seconds: now.saturating_duration_since(peer.at).as_secs_f64(),
        adverts: peer.adverts,
    }
}

/// The transitions that happened; the metric lists every state with every reason.
fn transitions(counters: &Counters) -> Vec<VrrpTransitions> {
    let mut list = Vec::new();
    for (state, row) in StateName::ALL.iter().zip(&counters.transitions) {
        for (reason, value) in Reason::ALL.iter().zip(row) {
            list.push(VrrpTransitions { to: *state, reason: *reason, value: *value });
        }
    }
    list
}
