//! What listings are made from.

use std::sync::Arc;

use super::Node;
use crate::listing::{Names, Tables};

impl Node {
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
