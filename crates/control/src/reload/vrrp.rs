//! What changes of VRRP instances.

use std::net::IpAddr;
use std::time::Duration;

use super::{Change, Kind, Plan, Setting};
use crate::desired::{Desired, Vrrp};
use crate::vrrp::Version;

impl Plan {
    /// Adds what `wanted` changes of the instances of `running`.
    pub(super) fn instances(&mut self, (running, vrrp): (&Desired, &[Vrrp]), wanted: &Desired) {
        for instance in vrrp {
            let name = &instance.name;
            match wanted.vrrp.iter().find(|new| new.name == *name) {
                Some(new) => {
                    self.fixed_of(instance, new);
                    let vips = (running.vips_of(name), wanted.vips_of(name));
                    let none_stays = !vips.0.iter().any(|vip| vips.1.contains(vip));
                    self.fixed_if(none_stays, Setting::Vrrp(name.clone(), "name"), OTHER_VIPS);
                    let changed = |detail| change(name, Kind::Changed, detail);
                    self.changes.extend(details((instance, new), vips).into_iter().map(changed));
                }
                None => {
                    let detail = "it leaves; its VIPs are inactive here".to_owned();
                    self.changes.push(change(name, Kind::Removed, detail));
                }
            }
        }
        for new in &wanted.vrrp {
            if !vrrp.iter().any(|instance| instance.name == new.name) {
                let detail = format!("vrid {} on {}", new.vrid.get(), new.interface);
                self.changes.push(change(&new.name, Kind::Added, detail));
            }
        }
    }

    fn fixed_of(&mut self, old: &Vrrp, new: &Vrrp) {
        let v2 = old.version == Version::V2;
        for (differs, key, why) in [
            (old.interface != new.interface, "interface", IDENTITY),
            (old.vrid != new.vrid, "vrid", IDENTITY),
            (old.version != new.version, "version", IDENTITY),
            (old.auth_pass != new.auth_pass, "auth_pass", IDENTITY),
            (old.down_adverts != new.down_adverts, "down_adverts", PATIENCE),
            (v2 && old.advert_interval != new.advert_interval, "advert_interval", VERSION_2),
        ] {
            self.fixed_if(differs, Setting::Vrrp(old.name.clone(), key), why);
        }
    }
}

fn change(name: &str, kind: Kind, detail: String) -> Change {
    Change { kind, what: format!("vrrp {name}"), detail }
}

fn details((old, new): (&Vrrp, &Vrrp), vips: (Vec<IpAddr>, Vec<IpAddr>)) -> Vec<String> {
    let mut list = Vec::new();
    // Named one by one: a setting that is added here does not compile until it has its line.
    let Vrrp {
        name: _,
        interface: _,
        vrid: _,
        version: _,
        priority,
        advert_interval,
        preempt,
        preempt_delay,
        down_adverts: _,
        checksum,
        handover,
        unicast,
        source,
        peers,
        auth_pass: _,
        group,
        control_timeout,
        announce,
        track,
        notify,
    } = old;
    if *priority != new.priority {
        list.push(format!("priority {priority} -> {}", new.priority));
    }
    for (differs, key, from, to) in [
        (
            *advert_interval != new.advert_interval,
            "advert_interval",
            advert_interval,
            &new.advert_interval,
        ),
        (*preempt_delay != new.preempt_delay, "preempt_delay", preempt_delay, &new.preempt_delay),
        (
            *control_timeout != new.control_timeout,
            "control_timeout",
            control_timeout,
            &new.control_timeout,
        ),
    ] {
        if differs {
            list.push(format!("{key} {} -> {}", seconds(*from), seconds(*to)));
        }
    }
    if *preempt != new.preempt {
        list.push(format!("preempt {preempt} -> {}", new.preempt));
    }
    list.extend(
        vips.0.iter().filter(|vip| !vips.1.contains(vip)).map(|vip| format!("- VIP {vip}")),
    );
    list.extend(
        vips.1.iter().filter(|vip| !vips.0.contains(vip)).map(|vip| format!("+ VIP {vip}")),
    );
    let others = peers.iter().filter(|peer| !new.peers.contains(peer));
    list.extend(others.map(|peer| format!("- peer {peer}")));
    let others = new.peers.iter().filter(|peer| !peers.contains(peer));
    list.extend(others.map(|peer| format!("+ peer {peer}")));
    for (differs, detail) in [
        (*checksum != new.checksum, "checksum"),
        (*handover != new.handover, "handover"),
        (*unicast != new.unicast, "mode"),
        (*announce != new.announce, "how its VIPs are announced"),
        (*source != new.source, "source: it leaves and comes back as a Backup"),
        (*group != new.group, "group: its members leave and come back as Backups"),
        (*track != new.track, "what it tracks"),
        (*notify != new.notify, "notify"),
    ] {
        if differs {
            list.push(detail.to_owned());
        }
    }
    list
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

const IDENTITY: &str = "its peers would not know it for the same virtual router, and two nodes would own \
                        the VIPs: stop this node first, or add an instance of another name";
const OTHER_VIPS: &str = "none of its VIPs stays, so its peers would not know it for the same virtual router: \
                          add the new VIPs first, on all nodes, then remove the old ones";
const PATIENCE: &str =
    "its peers must wait for as long as its lease lasts: stop all of its nodes, then start them";
const VERSION_2: &str = "peers that speak version 2 discard another interval than their own: stop all of its \
                         nodes, then start them";
