//! The same beside a model in which nothing is lazy.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What a node should do, with every deadline met on the second.
#[derive(Default)]
struct Model {
    now: u64,
    timeout: u64,
    next: u16,
    epochs: u32,
    /// By source: backend and the second of the last SYN.
    choices: BTreeMap<TemplateKey, (u16, u64)>,
    /// By 5-tuple, the same.
    marks: BTreeMap<FlowKey, (u16, u64)>,
    templates: BTreeMap<TemplateKey, ModelTemplate>,
    flows: BTreeMap<(usize, FlowKey), ModelFlow>,
}

#[derive(Clone, Copy, Debug)]
struct ModelTemplate {
    backend: u16,
    epoch: u32,
    refreshed: u64,
}

#[derive(Clone, Copy, Debug)]
struct ModelFlow {
    backend: u16,
    state: FlowState,
    seen: u64,
    reported: u64,
    source: TemplateKey,
    epoch: Option<u32>,
}

impl ModelFlow {
    fn due(&self) -> u64 {
        self.seen
            + match self.state {
                // Half a second late, but it holds no template.
                FlowState::PickedUp => 60,
                // Few flows are unproven.
                FlowState::Opening | FlowState::Established => 900,
                FlowState::Closing => 120,
                FlowState::Reset => 10,
                FlowState::Udp => 300,
            }
    }
}

impl Model {
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            self.expire();
        }
    }

    fn expire(&mut self) {
        let now = self.now;
        let due: Vec<_> =
            self.flows.iter().filter(|(_, flow)| flow.due() <= now).map(|(id, _)| *id).collect();
        for id in due {
            let flow = self.flows.remove(&id).expect("listed");
            if flow.state.is_live() {
                self.refresh(&flow);
            }
        }
        self.choices.retain(|_, (_, at)| now - *at < 60);
        self.marks.retain(|_, (_, at)| now - *at < 60);
        let flows = &self.flows;
        let timeout = self.timeout;
        self.templates.retain(|_, template| {
            members(flows, template.epoch) > 0 || now < template.refreshed + timeout
        });
    }

    /// The template of an ending or trailing flow.
    fn refresh(&mut self, flow: &ModelFlow) {
        if let Some(template) = self.templates.get_mut(&flow.source)
            && Some(template.epoch) == flow.epoch
        {
            template.refreshed = self.now;
        }
    }

    fn packet(&mut self, packet: Packet) -> u16 {
        let id = (packet.worker, packet.key());
        let Some(mut flow) = self.flows.get(&id).copied() else { return self.miss(packet) };
        let over = !flow.state.is_live() && !flow.state.is_unproven();
        match (flow.state, packet.kind) {
            (FlowState::PickedUp | FlowState::Closing | FlowState::Reset, Kind::Syn) => {
                self.flows.remove(&id);
                if !over {
                    self.refresh(&flow);
                }
                return self.miss(packet);
            }
            (FlowState::Closing, Kind::Rst) => flow.state = FlowState::Reset,
            (
                FlowState::PickedUp | FlowState::Opening | FlowState::Established,
                Kind::Fin | Kind::Rst,
            ) => {
                let fin = packet.kind == Kind::Fin;
                flow.state = if fin { FlowState::Closing } else { FlowState::Reset };
                self.refresh(&flow);
                flow.reported = self.now;
            }
            (FlowState::PickedUp, Kind::Data) => {
                flow.state = FlowState::Established;
                let template = self.templates.get(&flow.source);
                flow.epoch =
                    template.filter(|t| t.backend == flow.backend).map(|template| template.epoch);
            }
            (FlowState::Opening, Kind::Data) => {
                flow.state = FlowState::Established;
                flow.epoch = self.join(packet, flow.backend);
            }
            _ => {}
        }
        if over && self.now > flow.reported {
            self.refresh(&flow);
            flow.reported = self.now;
        }
        flow.seen = self.now;
        self.flows.insert(id, flow);
        flow.backend
    }

    fn miss(&mut self, packet: Packet) -> u16 {
        let (key, source) = (packet.key(), packet.source());
        let mark = self.marks.get(&key).map(|&(backend, _)| backend);
        let template = self.templates.get(&source).map(|template| template.backend);
        let choice = self.choices.get(&source).map(|&(backend, _)| backend);
        match (packet.kind, mark) {
            (Kind::Syn, _) | (Kind::Udp, None) => {
                let backend = template.unwrap_or_else(|| {
                    let backend = choice.unwrap_or(self.next + 1);
                    self.next = self.next.max(backend);
                    self.choices.insert(source, (backend, self.now));
                    backend
                });
                self.marks.insert(key, (backend, self.now));
                backend
            }
            (Kind::Fin | Kind::Rst, mark) => mark.or(template).or(choice).unwrap_or(u16::MAX),
            (Kind::Udp, Some(backend)) => {
                let epoch = self.join(packet, backend);
                self.begin(packet, backend, FlowState::Udp, epoch);
                backend
            }
            (Kind::Ack | Kind::Data, Some(backend)) => {
                self.begin(packet, backend, FlowState::Opening, None);
                backend
            }
            (Kind::Ack | Kind::Data, None) => {
                let backend = template.or(choice).unwrap_or(u16::MAX);
                self.begin(packet, backend, FlowState::PickedUp, None);
                backend
            }
        }
    }

    fn join(&mut self, packet: Packet, backend: u16) -> Option<u32> {
        let source = packet.source();
        self.marks.remove(&packet.key());
        self.choices.remove(&source);
        match self.templates.get_mut(&source) {
            Some(template) if template.backend == backend => {
                template.refreshed = self.now;
                Some(template.epoch)
            }
            Some(_) => None,
            None => {
                self.epochs += 1;
                let (epoch, refreshed) = (self.epochs, self.now);
                self.templates.insert(source, ModelTemplate { backend, epoch, refreshed });
                Some(epoch)
            }
        }
    }

    fn begin(&mut self, packet: Packet, backend: u16, state: FlowState, epoch: Option<u32>) {
        let (seen, source) = (self.now, packet.source());
        let flow = ModelFlow { backend, state, seen, reported: seen, source, epoch };
        self.flows.insert((packet.worker, packet.key()), flow);
    }
}

/// The live flows of a template.
fn members(flows: &BTreeMap<(usize, FlowKey), ModelFlow>, epoch: u32) -> usize {
    flows.values().filter(|flow| flow.state.is_live() && flow.epoch == Some(epoch)).count()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    use Kind::{Ack, Data, Fin, Rst, Syn, Udp};
    let kind =
        prop::sample::select(vec![Syn, Syn, Ack, Ack, Ack, Data, Data, Data, Fin, Rst, Udp, Udp]);
    let one = (0..WORKERS, 0..4u8, 0..3u16, kind)
        .prop_map(|(worker, client, port, kind)| packet(worker, client, port, kind));
    let pass = prop_oneof![Just(1), 2..20u64, 40..70u64, 100..130u64, 290..320u64, 880..960u64];
    prop::collection::vec(prop_oneof![5 => one, 2 => pass.prop_map(Event::Pass)], 1..120)
}

proptest! {
    #[test]
    fn agrees_with_the_model(
        events in events(),
        timeout in prop::sample::select(vec![5, 50, 130, 400]),
    ) {
        let mut node = Node::new(timeout);
        let mut model = Model { timeout, ..Model::default() };
        for event in events {
            match event {
                Event::Packet(packet) => {
                    let (goes, should) = (node.packet(packet), model.packet(packet));
                    prop_assert_eq!(goes, BackendSlot(should), "{:?}", packet);
                }
                Event::Pass(seconds) => {
                    node.pass(seconds);
                    model.pass(seconds);
                }
            }
            let entries: Vec<_> = node
                .dump()
                .iter()
                .map(|entry| (entry.key, entry.backend.0, entry.live_flows as usize))
                .collect();
            let expected: Vec<_> = model
                .templates
                .iter()
                .map(|(&key, t)| (key, t.backend, members(&model.flows, t.epoch)))
                .collect();
            prop_assert_eq!(entries, expected);
            let live = model.flows.values().filter(|flow| flow.state.is_live()).count();
            prop_assert_eq!(node.flows.iter().map(FlowTable::live).sum::<usize>(), live);
            let len: usize = node.flows.iter().map(FlowTable::len).sum();
            prop_assert_eq!(len, model.flows.len());
        }
        node.pass(10_000);
        prop_assert!(node.templates.is_empty() && node.flows.iter().all(FlowTable::is_empty));
    }
}
