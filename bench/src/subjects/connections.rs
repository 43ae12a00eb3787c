//! Whole turns over what opens connections, and over connections that changed their queue.

use std::time::Duration;

use pointsman::clock;

use super::{PACKETS, take_turns};
use crate::harness::Subject;
use crate::rig::{Rig, Shape};
use crate::traffic::{FLOWS_PER_CLIENT, Flags, Order, Tuple};

/// Whole turns over packets that are no SYN and belong to no flow here, from clients with a
/// template: connections that changed their queue. Each enters a flow.
#[derive(Debug)]
pub struct TemplateHits {
    rig: Rig,
    /// Flows of the current block.
    flows: Vec<u32>,
    order: Order,
}

impl TemplateHits {
    /// Over `CLIENTS` clients, each with one flow.
    pub fn new() -> Self {
        let mut rig = Rig::new(Shape { flows: 0, vips: 1, backends: 10 });
        for flags in [Flags::Syn, Flags::Ack, Flags::Data] {
            for client in 0..CLIENTS {
                rig.inject(client * FLOWS_PER_CLIENT, flags);
                rig.turn();
            }
        }
        Self { rig, flows: Vec::with_capacity(PACKETS), order: Order::new() }
    }
}

impl Default for TemplateHits {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for TemplateHits {
    fn block(&mut self) -> (Duration, usize) {
        // All of them different, as an odd factor permutes the numbers below a power of two.
        let first = self.order.below(CLIENTS);
        let client = |step: u32| (first + step).wrapping_mul(SCATTER) % CLIENTS;
        self.flows.clear();
        self.flows.extend((0..).take(PACKETS).map(|step| client(step) * FLOWS_PER_CLIENT + 1));
        for flow in &self.flows {
            self.rig.inject(*flow, Flags::Ack);
        }
        self.rig.kernel.cool();
        let measured = take_turns(&mut self.rig);
        let forwarder = self.rig.worker.forwarder_mut();
        assert_eq!(
            forwarder.flow_count(),
            CLIENTS as usize + PACKETS,
            "not all were template hits"
        );
        for flow in &self.flows {
            forwarder.forget(&Tuple::new(*flow, 1).key(), clock::now());
        }
        measured
    }

    fn rest(&mut self) {
        self.rig.audit();
    }
}

/// Which packets of new connections are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The SYN alone; the others are sent outside of the measured time.
    Syn,
    /// SYN, first ACK and a request.
    All,
}

/// Whole turns over the packets of new connections of new clients; counted per packet.
#[derive(Debug)]
pub struct NewFlows {
    rig: Rig,
    next: u32,
    opening: Opening,
}

impl NewFlows {
    /// From empty tables, which are emptied again after each round.
    pub fn new(opening: Opening) -> Self {
        Self { rig: Rig::new(Shape { flows: 0, vips: 1, backends: 10 }), next: 0, opening }
    }
}

impl Subject for NewFlows {
    fn block(&mut self) -> (Duration, usize) {
        let numbers = (0..PACKETS).map(|_| {
            self.next = self.next.wrapping_add(1);
            self.next
        });
        let clients: Vec<u32> = numbers.map(|n| n.wrapping_mul(SCATTER) % NEW_CLIENTS).collect();
        let blocks = [Flags::Syn, Flags::Ack, Flags::Data].map(|flags| {
            for client in &clients {
                self.rig.inject(client * FLOWS_PER_CLIENT, flags);
            }
            self.rig.kernel.cool();
            take_turns(&mut self.rig)
        });
        let measured = if self.opening == Opening::Syn { &blocks[..1] } else { &blocks[..] };
        (measured.iter().map(|block| block.0).sum(), measured.iter().map(|block| block.1).sum())
    }

    fn rest(&mut self) {
        self.rig.audit();
        self.rig.clear();
    }
}

/// Clients with a template.
const CLIENTS: u32 = 1 << 16;

/// Clients that new connections come from, one after the other.
const NEW_CLIENTS: u32 = 1 << 20;

/// Odd and arbitrary.
const SCATTER: u32 = 0x9e37_79b1;
