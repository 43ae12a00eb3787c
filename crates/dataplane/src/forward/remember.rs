//! Flows that change their queue without a template to follow.
//!
//! A flow table is its worker's own, and what does not hit one takes its source's template or the
//! shared hash. Where neither leads to a flow's backend (every scheduler but `maglev` without
//! persistence, changed members, a backend that its template does not name any more), the flow's
//! worker says so in the pending table, once per sweep, for as long as it knows the flow.

use std::time::Duration;

use super::SharedTables;
use super::service_match::ServiceMatch;
use crate::flow::{Flow, FlowState};
use crate::key::FlowKey;
use crate::snapshot::Snapshot;
use crate::tick::Tick;

/// What a worker compares its flows with.
pub(super) struct Memory<'a> {
    tables: &'a SharedTables,
    snapshot: &'a Snapshot,
    /// Whether templates may have been replaced since they were last looked at.
    compare: bool,
    now: Tick,
}

impl<'a> Memory<'a> {
    pub(super) fn new(
        tables: &'a SharedTables,
        snapshot: &'a Snapshot,
        compare: bool,
        now: Tick,
    ) -> Self {
        Self { tables, snapshot, compare, now }
    }

    /// Sees to it that the flow finds its backend on every worker. Whether it still holds its
    /// template.
    pub(super) fn keep(&self, key: &FlowKey, flow: &Flow) -> bool {
        let next_hop = self.snapshot.next_hop(flow.backend);
        let is_needed = match flow.state {
            FlowState::Established | FlowState::Opening | FlowState::Closing | FlowState::Udp => {
                true
            }
            // Placed by what all workers see, and over.
            FlowState::PickedUp | FlowState::Reset => false,
        };
        if !is_needed || !next_hop.usable || self.snapshot.workers.len() < 2 {
            return true;
        }
        match flow.template {
            Some(_) if next_hop.eligible && !self.compare => true,
            Some(template) => {
                let current = self.tables.persistence.get(&template.key, self.now);
                let holds = current.is_some_and(|current| current.epoch == template.epoch);
                if !(holds && next_hop.eligible) && flow.state != FlowState::Closing {
                    // Though it may lead there still: it gives way to the source's next connection.
                    self.announce(key, flow, true);
                }
                // What has ended goes on to touch what it held.
                holds || flow.state == FlowState::Closing
            }
            None => {
                // Of a handshake's flow nothing else is certain yet.
                self.announce(key, flow, flow.state == FlowState::Opening);
                true
            }
        }
    }

    /// Unless the flow is placed there without, if not `always`.
    fn announce(&self, key: &FlowKey, flow: &Flow, always: bool) {
        let Some(service) = self.snapshot.service(key.dst, key.protocol, key.dst_port) else {
            return;
        };
        let matched = ServiceMatch::of(self.tables, service, key);
        if always || matched.placed(self.tables, self.snapshot, self.now) != Some(flow.backend) {
            let SharedTables { pending, .. } = self.tables;
            pending.hold(matched.connection, flow.backend, HELD, self.now);
        }
    }
}

/// How much longer than a handshake's choice that of a flow of UDP is known that made room: as long
/// as the flow would have been by default.
pub(super) const EVICTED_UDP: Duration = Duration::from_secs(300);

/// How much longer than a handshake's choice: until the next sweeps.
pub(super) const HELD: Duration = Duration::from_secs(60);
