//! `pointsman_vrrp_*`.

use control::vrrp::StateName;

use super::histogram::Histograms;
use super::{Page, flag};
use crate::status::Status;

/// Adds the VRRP instances to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    let labels = &["instance"];
    states(page, status)?;
    let priority = page.gauge(
        "vrrp_priority",
        "Priority: configured, and the effective one that decides.",
        &["instance", "kind"],
    )?;
    let blocked = page.gauge("vrrp_blocked", "1 while this node cannot forward.", labels)?;
    let sent = page.counter("vrrp_adverts_sent_total", "Adverts sent.", labels)?;
    let failed =
        page.counter("vrrp_advert_send_failures_total", "Adverts that could not be sent.", labels)?;
    let received = page.counter("vrrp_adverts_received_total", "Adverts believed.", labels)?;
    let overflowed = page.counter(
        "vrrp_socket_overflow_total",
        "Messages that the socket had no room for.",
        labels,
    )?;
    let announced = page.counter(
        "vrrp_announcements_total",
        "Gratuitous ARP and unsolicited neighbour advertisements sent.",
        labels,
    )?;
    let claims = page.counter(
        "vrrp_foreign_vip_total",
        "Claims of other stations to a VIP that was active here.",
        labels,
    )?;
    let stalls =
        page.counter("vrrp_stalls_total", "Times that the VRRP thread did not run.", labels)?;
    let peer = page.gauge(
        "vrrp_peer_last_seen_seconds",
        "Time since a peer was heard.",
        &["instance", "peer"],
    )?;
    for instance in &status.vrrp {
        let at = &[instance.name.as_str()];
        let priorities = [
            ("configured", instance.configured_priority),
            ("effective", instance.effective_priority),
        ];
        for (kind, value) in priorities {
            priority.with_label_values(&[at[0], kind]).set(f64::from(value));
        }
        blocked.with_label_values(at).set(flag(instance.blocked.is_some()));
        sent.with_label_values(at).inc_by(instance.sent);
        failed.with_label_values(at).inc_by(instance.send_failed);
        received.with_label_values(at).inc_by(instance.received);
        overflowed.with_label_values(at).inc_by(instance.overflowed);
        announced.with_label_values(at).inc_by(instance.announced);
        claims.with_label_values(at).inc_by(instance.foreign_claims);
        stalls.with_label_values(at).inc_by(instance.stalls);
        for heard in &instance.peers {
            peer.with_label_values(&[at[0], &heard.address]).set(heard.age_seconds);
        }
    }
    let mut late = Histograms::new(
        "vrrp_advert_late_seconds",
        "How late the timers of an Active fired.",
        labels,
    )?;
    for instance in &status.vrrp {
        late.add(&[&instance.name], &instance.late);
    }
    page.registry.register(Box::new(late))
}

fn states(page: &Page, status: &Status) -> prometheus::Result<()> {
    let states = page.gauge(
        "vrrp_state",
        "1 for the state that the instance is in.",
        &["instance", "state"],
    )?;
    let active =
        page.gauge("vrrp_vips_active", "1 while the VIPs are active here.", &["instance"])?;
    let transitions =
        page.counter("vrrp_transitions_total", "Changes of state.", &["instance", "to", "reason"])?;
    let two_owners = page.gauge(
        "vrrp_two_owners_possible",
        "1 while this node is Active, and a peer is heard whose adverts are discarded.",
        &["instance"],
    )?;
    let rejected = page.counter(
        "vrrp_rejected_total",
        "Messages that were discarded.",
        &["instance", "reason"],
    )?;
    for instance in &status.vrrp {
        let name = instance.name.as_str();
        for state in StateName::ALL {
            let is = flag(instance.state == state.name());
            states.with_label_values(&[name, state.name()]).set(is);
        }
        active.with_label_values(&[name]).set(flag(instance.vips_active));
        two_owners.with_label_values(&[name]).set(flag(instance.two_owners().is_some()));
        for count in &instance.transitions {
            let labels = &[name, count.to.as_str(), count.reason.as_str()];
            transitions.with_label_values(labels).inc_by(count.value);
        }
        for count in &instance.rejected {
            rejected.with_label_values(&[name, count.name.as_str()]).inc_by(count.value);
        }
    }
    Ok(())
}
