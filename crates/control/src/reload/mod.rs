//! What a new configuration changes, before it is taken over: one line for people each, and what of
//! it cannot change while the node runs.

mod history;
mod service;
mod vrrp;

use std::fmt;

pub use history::History;
pub(crate) use service::renamed;

use crate::desired::{Dataplane, Desired, Interface};

/// The difference between the configuration in force and a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What would change, in the order of the file, without what cannot.
    pub changes: Vec<Change>,
    /// What cannot change while the node runs: with any of it nothing is taken over.
    pub fixed: Vec<Fixed>,
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    kind: Kind,
    /// Such as `service web`.
    what: String,
    /// What about it; empty where it comes or goes as a whole.
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Added,
    Removed,
    Changed,
}

/// A setting that is read at the start only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Where it stands.
    pub setting: Setting,
    /// Why it cannot change, as the second half of a sentence.
    pub why: &'static str,
}

/// A place in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `[node] name`.
    NodeName,
    /// A key of `[dataplane]`.
    Dataplane(&'static str),
    /// A key of an `[[interface]]`, by its name.
    Interface(String, &'static str),
    /// An `[[interface]]` that was there and is not any more.
    InterfaceGone(String),
    /// A key of a `[[vrrp]]`, by its name.
    Vrrp(String, &'static str),
    /// `[metrics] listen`.
    MetricsListen,
    /// `[control] socket`.
    ControlSocket,
}

impl Plan {
    /// What `wanted` changes of `running`.
    pub fn between(running: &Desired, wanted: &Desired) -> Self {
        let mut plan = Self::default();
        // Named one by one: a setting that is added here does not compile until it has its line.
        let Desired {
            node_name,
            interfaces,
            dataplane,
            metrics_listen,
            control_socket,
            vrrp,
            services,
        } = running;
        plan.fixed_if(node_name != &wanted.node_name, Setting::NodeName, NAMED);
        plan.interfaces(interfaces, &wanted.interfaces);
        plan.dataplane(dataplane, &wanted.dataplane);
        plan.fixed_if(metrics_listen != &wanted.metrics_listen, Setting::MetricsListen, LISTENS);
        plan.fixed_if(control_socket != &wanted.control_socket, Setting::ControlSocket, LISTENS);
        plan.instances((running, vrrp), wanted);
        service::compare(&mut plan.changes, services, &wanted.services);
        plan
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.fixed.is_empty()
    }

    fn interfaces(&mut self, running: &[Interface], wanted: &[Interface]) {
        for interface in running {
            let Interface { name, mode, zero_copy, queues, tagged_frames } = interface;
            let Some(new) = wanted.iter().find(|new| new.name == *name) else {
                self.fix(Setting::InterfaceGone(name.clone()), ATTACHED);
                continue;
            };
            for (differs, key) in [
                (*mode != new.mode, "mode"),
                (*zero_copy != new.zero_copy, "zero_copy"),
                (*queues != new.queues, "queues"),
                (*tagged_frames != new.tagged_frames, "tagged_frames"),
            ] {
                self.fixed_if(differs, Setting::Interface(name.clone(), key), ATTACHED);
            }
        }
        for new in wanted {
            let there = running.iter().any(|interface| interface.name == new.name);
            self.fixed_if(!there, Setting::Interface(new.name.clone(), "name"), ATTACHED);
        }
        let mut pairs = running.iter().zip(wanted);
        if self.fixed.is_empty()
            && let Some((_, moved)) = pairs.find(|(old, new)| old.name != new.name)
        {
            let setting = Setting::Interface(moved.name.clone(), "name");
            self.fix(setting, "interfaces are numbered in the order of the file");
        }
    }

    fn dataplane(&mut self, running: &Dataplane, wanted: &Dataplane) {
        let Dataplane {
            cpus,
            poll,
            fast_path,
            flow_capacity,
            persistence_capacity,
            pending_capacity,
            frames,
            timeouts,
        } = running;
        for (differs, key, why) in [
            (*cpus != wanted.cpus, "cpus", THREADS),
            (*poll != wanted.poll, "poll", THREADS),
            (*fast_path != wanted.fast_path, "fast_path", ATTACHED),
            (*flow_capacity != wanted.flow_capacity, "flow_capacity", TABLES),
            (*persistence_capacity != wanted.persistence_capacity, "persistence_capacity", TABLES),
            (*pending_capacity != wanted.pending_capacity, "pending_capacity", TABLES),
            (*frames != wanted.frames, "frames", TABLES),
            (*timeouts != wanted.timeouts, "timeouts", TABLES),
        ] {
            self.fixed_if(differs, Setting::Dataplane(key), why);
        }
    }

    fn fixed_if(&mut self, differs: bool, setting: Setting, why: &'static str) {
        if differs {
            self.fix(setting, why);
        }
    }

    fn fix(&mut self, setting: Setting, why: &'static str) {
        self.fixed.push(Fixed { setting, why });
    }
}

const NAMED: &str = "the node is named when it starts";
const ATTACHED: &str = "the XDP program is attached when the node starts";
const THREADS: &str = "workers are set up when the node starts";
const TABLES: &str = "tables and their times are set up when the node starts";
const LISTENS: &str = "sockets are bound when the node starts";

impl fmt::Display for Change {
    /// `+ service web: …`, `- …`, `~ …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, what, detail } = self;
        let sign = match kind {
            Kind::Added => '+',
            Kind::Removed => '-',
            Kind::Changed => '~',
        };
        write!(f, "{sign} {what}")?;
        if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
    }
}
