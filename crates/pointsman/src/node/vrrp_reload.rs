//! VRRP instances of another configuration. Those that stay go on without a transition; a sync group
//! whose members are others leaves, and comes back as a Backup.

use std::collections::{BTreeMap, BTreeSet};

use control::vrrp::Config;
use dataplane::Tick;
use tracing::{info, warn};

use super::Node;
use super::track::Tracking;
use super::vrrp::{Member, Vrrp, config, groups};
use crate::vrrp::{AdvertSocket, Command, Instance, Reconfigured};

impl Node {
    /// Follows `[[vrrp]]` and the VIPs of its instances, as the controller has them.
    pub(super) fn reconfigure_vrrp(&mut self, now: Tick) {
        let wanted = self.instances(now);
        let Some(vrrp) = &mut self.vrrp else { return };
        let (mut stay, mut added) = (BTreeMap::new(), Vec::new());
        for (instance, new) in wanted {
            match vrrp.position(&new.wanted.name) {
                Some(at) => drop(stay.insert(at, new)),
                None => added.push((instance, new)),
            }
        }
        let gone: Vec<usize> =
            vrrp.members.keys().copied().filter(|at| !stay.contains_key(at)).collect();
        let old = before(vrrp);
        for at in &gone {
            vrrp.members.remove(at);
        }
        for (at, new) in &mut stay {
            vrrp.follow(*at, new, now);
        }
        let added = vrrp.place(added);
        vrrp.regroup();
        for at in gone {
            vrrp.thread.send(Command::Forget(at));
        }
        for (at, instance) in added {
            vrrp.thread.send(Command::Instance(at, instance));
        }
        vrrp.reconfigure_in_place(&old);
    }
}

/// What each instance with sockets runs with.
fn before(vrrp: &Vrrp) -> BTreeMap<usize, Config> {
    let running = vrrp.members.iter().filter_map(|(at, member)| Some((*at, member.config()?)));
    running.collect()
}

impl Vrrp {
    fn position(&self, name: &str) -> Option<usize> {
        self.members.iter().find(|(_, member)| member.wanted.name == name).map(|(at, _)| *at)
    }

    /// Takes over what the control thread knows of an instance that stays.
    fn follow(&mut self, at: usize, new: &mut Member, now: Tick) {
        let Some(member) = self.members.get_mut(&at) else { return };
        let priority = member.tracking.tracker().effective();
        if member.wanted.track != new.wanted.track {
            member.tracking = Tracking::new(&new.wanted, now);
        } else if member.wanted.priority != new.wanted.priority {
            member.tracking.set_priority(new.wanted.priority);
        }
        if member.wanted.control_timeout != new.wanted.control_timeout {
            self.thread.send(Command::ControlTimeout(at, new.wanted.control_timeout));
        }
        member.announce |= new.vips.iter().any(|vip| !member.vips.contains(vip));
        member.wanted = new.wanted.clone();
        member.vips = std::mem::take(&mut new.vips);
        let effective = member.tracking.tracker().effective();
        if effective != priority {
            let name = &member.wanted.name;
            info!("({name}) Changing effective priority: {priority} -> {effective}");
            self.thread.send(Command::Priority(at, effective));
        }
    }

    /// Gives instances that are new the positions that are free.
    fn place(&mut self, added: Vec<(Instance, Member)>) -> Vec<(usize, Instance)> {
        let mut placed = Vec::new();
        for (instance, member) in added {
            let at = (0..).find(|at| !self.members.contains_key(at)).unwrap_or_default();
            self.members.insert(at, member);
            placed.push((at, instance));
        }
        placed
    }

    /// Sync groups whose members are others end; follow-up sockets are opened at the next tick.
    fn regroup(&mut self) {
        let mut wanted = groups(&self.members);
        let mut restarted = BTreeSet::new();
        for old in std::mem::take(&mut self.groups) {
            match wanted.iter_mut().find(|new| new.members == old.members) {
                Some(same) => *same = old,
                None => {
                    if let Some(&number) = old.members.first() {
                        self.thread.send(Command::SyncGroup(number, None));
                    }
                    restarted.extend(old.members);
                }
            }
        }
        for at in restarted {
            if let Some(member) = self.members.get_mut(&at) {
                member.endpoint = None;
            }
        }
        self.groups = wanted;
    }

    /// Tells the thread of the other configuration of each instance that goes on.
    fn reconfigure_in_place(&mut self, before: &BTreeMap<usize, Config>) {
        for (&at, member) in &mut self.members {
            let (Some(config), Some(endpoint)) = (member.config(), &member.endpoint) else {
                continue;
            };
            if before.get(&at).is_none_or(|running| *running == config) {
                continue;
            }
            match AdvertSocket::open(&config, endpoint) {
                Ok(socket) => {
                    let with = Box::new(Reconfigured { config, socket });
                    self.thread.send(Command::Reconfigure(at, with));
                }
                Err(error) => {
                    let name = &member.wanted.name;
                    warn!("({name}) cannot open its sockets anew, and starts again: {error}");
                    member.endpoint = None;
                }
            }
        }
    }
}

impl Member {
    /// What its election runs with, if it has an address to send from.
    fn config(&self) -> Option<Config> {
        let primary = self.endpoint.as_ref()?.primary;
        Some(config(&self.wanted, &self.vips, primary))
    }
}
