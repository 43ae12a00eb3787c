//! What listings are made from.

use std::sync::Arc;

use super::Node;
use crate::explain::{Leases, Setting, states};
use crate::listing::{Names, Tables};

impl Node {
    /// What workers decide by, to be asked by other threads.
    pub(super) fn setting(&self) -> Setting {
        Setting {
            tables: self.listed(),
            snapshot: self.snapshots.load_full(),
            leases: Leases::Of(self.steer.leases()),
            states: states(&self.controller),
        }
    }

    /// The tables of the packet path, to be read by other threads.
    pub(super) fn listed(&self) -> Tables {
        Tables {
            flows: self.pool.iter().filter_map(|(_, handle)| handle.shared.flow_reader()).collect(),
            timeouts: self.controller.desired().dataplane.timeouts,
            shared: Arc::clone(&self.tables),
            names: Names::new(self.controller.services()),
        }
    }
}
