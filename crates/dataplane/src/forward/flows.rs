//! The flows as others see them.

use std::sync::Arc;

use super::Forwarder;
use crate::flow::{FlowTable, Words, WrongMemory};

impl Forwarder {
    /// Moves the flows to memory that another reader shares.
    ///
    /// # Errors
    /// [`WrongMemory`]: they stay where they were.
    pub fn share_flows(&mut self, owner: Arc<dyn Words>) -> Result<(), WrongMemory> {
        self.flows.move_to(owner)
    }

    /// The flows.
    pub const fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// Flows remembered.
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }
}
