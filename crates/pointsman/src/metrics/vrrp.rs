//! `pointsman_vrrp_*`.

use api::status::{Count, Status, VrrpTransitions};
use control::vrrp::StateName;

use super::family::{Page, flag};
use super::histogram::Histograms;
use super::labels::{
    OfInstance, OfPeer, OfPriority, OfReject, OfTransition, OfVrrpState, Priority,
};

/// Adds the VRRP instances to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    states(page, status)?;
    let priority =
        page.gauge("vrrp_priority", "Priority: configured, and the effective one that decides.")?;
    let blocked = page.gauge("vrrp_blocked", "1 while this node cannot forward.")?;
    let sent = page.counter("vrrp_adverts_sent_total", "Adverts sent.")?;
    let failed =
        page.counter("vrrp_advert_send_failures_total", "Adverts that could not be sent.")?;
    let received = page.counter("vrrp_adverts_received_total", "Adverts accepted.")?;
    let overflowed =
        page.counter("vrrp_socket_overflow_total", "Messages that the socket had no room for.")?;
    let announced = page.counter(
        "vrrp_announcements_total",
        "Gratuitous ARP and unsolicited neighbour advertisements sent.",
    )?;
    let claims = page.counter(
        "vrrp_foreign_vip_total",
        "Claims of other stations to a VIP that was active here.",
    )?;
    let stalls = page.counter("vrrp_stalls_total", "Times that the VRRP thread did not run.")?;
    let peer = page.gauge("vrrp_peer_last_seen_seconds", "Time since a peer was heard.")?;
    for instance in &status.vrrp {
        let at = OfInstance { instance: &instance.name };
        let priorities = [
            (Priority::Configured, instance.configured_priority),
            (Priority::Effective, instance.effective_priority),
        ];
        for (kind, value) in priorities {
            priority.set(&OfPriority { instance: at.instance, kind }, f64::from(value));
        }
        blocked.set(&at, flag(instance.blocked.is_some()));
        sent.add(&at, instance.sent);
        failed.add(&at, instance.send_failed);
        received.add(&at, instance.received);
        overflowed.add(&at, instance.overflowed);
        announced.add(&at, instance.announced);
        claims.add(&at, instance.foreign_claims);
        stalls.add(&at, instance.stalls);
        for heard in &instance.peers {
            peer.set(&OfPeer { instance: at.instance, peer: heard.address }, heard.age_seconds);
        }
    }
    let mut late =
        Histograms::new("vrrp_advert_late_seconds", "How late the timers of an Active fired.")?;
    for instance in &status.vrrp {
        late.add(&OfInstance { instance: &instance.name }, &instance.late);
    }
    page.register(late)
}

fn states(page: &Page, status: &Status) -> prometheus::Result<()> {
    let states = page.gauge("vrrp_state", "1 for the state that the instance is in.")?;
    let active = page.gauge("vrrp_vips_active", "1 while the VIPs are active here.")?;
    let transitions = page.counter("vrrp_transitions_total", "Changes of state.")?;
    let two_owners = page.gauge(
        "vrrp_two_owners_possible",
        "1 while this node is Active, and a peer is heard whose adverts are discarded.",
    )?;
    let rejected = page.counter("vrrp_rejected_total", "Messages that were discarded.")?;
    for instance in &status.vrrp {
        let at = OfInstance { instance: &instance.name };
        let name = at.instance;
        for state in StateName::ALL {
            states.set(&OfVrrpState { instance: name, state }, flag(instance.state == state));
        }
        active.set(&at, flag(instance.vips_active));
        two_owners.set(&at, flag(instance.two_owners().is_some()));
        for &VrrpTransitions { to, reason, value } in &instance.transitions {
            transitions.add(&OfTransition { instance: name, to, reason }, value);
        }
        for &Count { name: reason, value } in &instance.rejected {
            rejected.add(&OfReject { instance: name, reason }, value);
        }
    }
    Ok(())
}
