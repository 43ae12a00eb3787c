use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::state::Segment;
use super::*;
use crate::addr::Addr;
use crate::key::Protocol;
use crate::packet::TcpFields;
use crate::persistence::TemplateKey;

mod proof;
mod reader;
mod room;
mod torn;

const FIN: u8 = 0x11;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// No flags at all: a datagram.
const UDP: u8 = 0xff;

pub(super) fn key(number: u32) -> FlowKey {
    let [a, b, c, d] = number.to_be_bytes();
    FlowKey {
        src: Addr::from_v4([10, b, c, d]),
        dst: Addr::from_v4([192, 0, 2, 1]),
        src_port: 1024 + u16::from(a),
        dst_port: 80,
        protocol: Protocol::Tcp,
    }
}

fn key_of(number: u32, origin: Origin) -> FlowKey {
    let protocol = if origin == Origin::Udp { Protocol::Udp } else { Protocol::Tcp };
    FlowKey { protocol, ..key(number) }
}

pub(super) fn flow(origin: Origin) -> NewFlow {
    NewFlow {
        service: ServiceSlot(3),
        backend: BackendSlot(7),
        origin,
        tcp: (origin != Origin::Udp).then_some(FIRST),
        client: Mac::default(),
        template: None,
    }
}

/// What made a flow: any other number in this file is ahead of it.
const FIRST: TcpFields = TcpFields { flags: ACK, ack: 0, next: 0 };

fn millis(ms: u64) -> Tick {
    Tick::from_nanos(ms * 1_000_000)
}

fn tcp(flags: u8) -> Option<TcpFields> {
    Some(TcpFields { flags, ack: 1000, next: 1000 })
}

fn table(capacity: usize) -> FlowTable {
    FlowTable::new(capacity, 1, &Timeouts::default())
}

/// Inserts without anything having to make room.
fn insert(table: &mut FlowTable, key: &FlowKey, new: &NewFlow, now: Tick) -> FlowId {
    let hash = table.hash(key);
    table.insert(hash, key, new, now, &mut |gone| panic!("{gone:?}")).expect("there is room")
}

/// The same, and proves the flow.
fn connect(table: &mut FlowTable, key: &FlowKey, new: &NewFlow, now: Tick) -> FlowId {
    let id = insert(table, key, new, now);
    table.observe(id, tcp(ACK), now);
    id
}

fn find(table: &FlowTable, key: &FlowKey, now: Tick) -> Option<FlowId> {
    let hash = table.hash(key);
    let mut noted = hash;
    table.prefetch(hash);
    table.prefetch_entry(&mut noted);
    let found = table.find(noted, key, now);
    assert_eq!(found, table.find(hash, key, now), "prefetching changes nothing");
    found.map(|found| found.id)
}

#[test]
fn seeds_give_other_buckets() {
    let (one, other) = (
        FlowTable::new(1 << 16, 1, &Timeouts::default()),
        FlowTable::new(1 << 16, 2, &Timeouts::default()),
    );
    let same =
        (0..1000).map(key).filter(|key| one.hash(key).first == other.hash(key).first).count();
    assert!(same < 10, "{same} of 1000");
    let hash = one.hash(&key(1));
    assert_eq!(hash, one.hash(&key(1)));
    assert!(
        (0..5000).map(key).map(|key| one.hash(&key)).all(|hash| hash.first != one.second(hash))
    );
}

#[test]
fn a_shared_tag_is_told_apart_by_the_key() {
    let mut table = table(64);
    let hash = table.hash(&key(1));
    for (number, origin) in [(1, Origin::Handshake), (2, Origin::PickUp)] {
        let new = NewFlow { backend: BackendSlot(number), ..flow(origin) };
        let key = key(number.into());
        table.insert(hash, &key, &new, millis(0), &mut |gone| panic!("{gone:?}")).expect("room");
    }
    for hash in [hash, looked_up(&table, &key(1))] {
        let backend = |number| table.find(hash, &key(number), millis(0)).map(|found| found.backend);
        assert_eq!(backend(1), Some(BackendSlot(1)));
        assert_eq!(backend(2), Some(BackendSlot(2)));
        assert_eq!(backend(3), None);
    }
}

#[test]
fn idle_flows_expire_when_their_state_says() {
    let table_of = [
        ("a handshake, among few", Origin::Handshake, &[][..], 900_000),
        ("a connection", Origin::Handshake, &[ACK], 900_000),
        ("a pick-up", Origin::PickUp, &[], 60_000),
        ("a proven pick-up", Origin::PickUp, &[ACK], 900_000),
        ("a pick-up that shows no ACK", Origin::PickUp, &[0], 60_000),
        ("after FIN", Origin::Handshake, &[ACK, FIN], 120_000),
        ("half-closed, still acknowledging", Origin::Handshake, &[ACK, FIN, ACK], 120_000),
        ("after RST", Origin::Handshake, &[ACK, RST], 10_000),
        ("a handshake and RST", Origin::Handshake, &[RST], 10_000),
        ("FIN, then RST", Origin::Handshake, &[ACK, FIN, RST], 10_000),
        ("RST, then FIN", Origin::Handshake, &[RST, FIN], 10_000),
        ("a SYN keeps a connection", Origin::Handshake, &[ACK, SYN], 900_000),
        ("UDP", Origin::Udp, &[], 300_000),
    ];
    for (what, origin, segments, idle_ms) in table_of {
        for start in [0, 1_000_000, (1 << 32) - 1, (1 << 32) - 500_000] {
            let mut table = table(16);
            let key = key_of(1, origin);
            let id = insert(&mut table, &key, &flow(origin), millis(start));
            for &flags in segments {
                table.observe(id, tcp(flags), millis(start));
            }
            assert!(find(&table, &key, millis(start + idle_ms - 1)).is_some(), "{what}");
            assert!(find(&table, &key, millis(start + idle_ms)).is_none(), "{what}");
            let mut ends = Vec::new();
            let all = table.buckets();
            table.sweep(millis(start + idle_ms - 1), all, &mut |gone| ends.push(gone.at));
            assert!(ends.is_empty(), "{what}");
            table.sweep(millis(start + idle_ms + 777), all, &mut |gone| ends.push(gone.at));
            assert_eq!(ends, [millis(start + idle_ms)], "{what}: the end is when it was due");
            assert!(table.is_empty() && table.live() == 0, "{what}");
        }
    }
}

#[test]
fn an_end_is_reported_once_and_trailing_packets_once_a_second() {
    let mut table = table(16);
    let id = insert(&mut table, &key(1), &flow(Origin::Handshake), millis(0));
    let steps = [
        (0, ACK, Some(Transition::Proven { picked_up: false })),
        (0, ACK, None),
        (10, FIN, Some(Transition::Ended)),
        (20, FIN, None),
        (1009, ACK, None),
        (1010, ACK, Some(Transition::Trailing)),
        (2009, ACK, None),
        (2010, RST, Some(Transition::Trailing)),
        (2020, SYN, Some(Transition::NewConnection)),
        (2030, SYN, Some(Transition::NewConnection)),
    ];
    for (at, flags, expected) in steps {
        assert_eq!(table.observe(id, tcp(flags), millis(at)), expected, "{at} ms");
    }
    assert_eq!(table.live(), 0);
    let gone = table.remove(id, millis(2040)).expect("in use");
    assert_eq!((gone.state, gone.at), (FlowState::Reset, millis(2040)));
    assert_eq!(table.remove(id, millis(2040)), None);
    assert_eq!(table.observe(id, tcp(ACK), millis(2040)), None);
    assert_eq!(table.get(id), None);
}

#[test]
fn templates_are_left_once() {
    let membership = Membership { epoch: Epoch::new(9).expect("not 0"), prefix_len: 120 };
    let template = TemplateRef {
        key: TemplateKey::new(ServiceSlot(3), Addr::from_v4([10, 0, 0, 0]), 128),
        epoch: membership.epoch,
    };
    let mut table = table(16);
    let id = insert(&mut table, &key(1), &flow(Origin::Handshake), millis(0));
    assert!(!table.join(id, membership), "nothing is proven");
    table.observe(id, tcp(ACK), millis(0));
    assert!(table.join(id, membership));
    assert_eq!(table.get(id).and_then(|flow| flow.template), Some(template));
    let gone = table.remove(id, millis(1)).expect("in use");
    assert_eq!(gone.template, Some(template), "it lived until now");

    let id = insert(&mut table, &key(1), &flow(Origin::PickUp), millis(1));
    assert_eq!(
        table.observe(id, tcp(ACK), millis(1)),
        Some(Transition::Proven { picked_up: true })
    );
    assert!(table.join(id, membership));
    assert_eq!(table.observe(id, tcp(FIN), millis(2)), Some(Transition::Ended));
    assert_eq!(table.get(id).and_then(|flow| flow.template), Some(template), "to be touched");
    assert!(!table.join(id, membership), "its end would never be told");
    let mut gone = Vec::new();
    table.clear(millis(3), &mut |flow| gone.push(flow.template));
    assert_eq!(gone, [None], "it left when it ended");
}

#[test]
fn the_last_ack_is_kept() {
    let mut table = table(16);
    let new = NewFlow { tcp: Some(TcpFields { ack: 4, ..FIRST }), ..flow(Origin::PickUp) };
    let id = insert(&mut table, &key(1), &new, millis(0));
    let mut seen = |flags: u8, ack: u32| {
        table.observe(id, Some(TcpFields { flags, ack, next: 0 }), millis(0));
        table.get(id).and_then(|flow| flow.last_ack)
    };
    assert_eq!(seen(0, 5), Some(4), "no ACK flag");
    assert_eq!(seen(ACK, 6), Some(6));
    assert_eq!(seen(ACK, 0), Some(0));
    assert_eq!(seen(RST, 8), Some(0));
    assert_eq!(seen(FIN, 9), Some(9));
}

#[test]
fn pages_cover_the_table_once() {
    let mut table = table(500);
    for number in 0..500 {
        let backend = BackendSlot(u16::from(number % 5 == 0));
        let new = NewFlow { backend, ..flow(Origin::Handshake) };
        connect(&mut table, &key(number), &new, millis(u64::from(number)));
    }
    let pages = |backend, now| {
        let mut keys: Vec<_> = (0..table.buckets())
            .step_by(7)
            .flat_map(|from| table.page(from, 7, backend, millis(now)))
            .map(|(key, _)| key)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    };
    assert_eq!(pages(None, 500), 500);
    assert_eq!(pages(Some(BackendSlot(1)), 500), 100);
    assert_eq!(pages(None, 900_250), 249, "expired ones are not shown");
    assert_eq!(table.page(usize::MAX, usize::MAX, None, millis(0)).count(), 0);
}

#[test]
fn new_timeouts_hold_at_once() {
    let mut table = table(16);
    insert(&mut table, &key_of(1, Origin::Udp), &flow(Origin::Udp), millis(0));
    table.set_timeouts(&Timeouts { udp: Duration::from_secs(1), ..Timeouts::default() });
    assert!(find(&table, &key_of(1, Origin::Udp), millis(999)).is_some());
    assert!(find(&table, &key_of(1, Origin::Udp), millis(1000)).is_none());
}

/// What may happen to a table.
#[derive(Clone, Debug)]
enum Event {
    Packet { number: u32, flags: u8 },
    Insert { number: u32, origin: Origin },
    Remove { number: u32 },
    Pass { ms: u64 },
    Sweep { buckets: usize },
}

fn events(numbers: u32) -> impl Strategy<Value = Vec<Event>> {
    let flags = prop::sample::select(vec![ACK, ACK, ACK, FIN, RST, SYN, 0, UDP]);
    let origin = prop::sample::select(vec![Origin::Handshake, Origin::PickUp, Origin::Udp]);
    let event = prop_oneof![
        4 => (0..numbers, flags).prop_map(|(number, flags)| Event::Packet { number, flags }),
        3 => (0..numbers, origin).prop_map(|(number, origin)| Event::Insert { number, origin }),
        1 => (0..numbers).prop_map(|number| Event::Remove { number }),
        2 => prop_oneof![0..2_000u64, 0..200_000u64, 0..1_000_000u64]
            .prop_map(|ms| Event::Pass { ms }),
        1 => (0..4usize).prop_map(|buckets| Event::Sweep { buckets }),
    ];
    prop::collection::vec(event, 1..300)
}

/// A flow as the model has it. Nothing is forgotten before it is reported.
#[derive(Clone, Copy, Debug)]
struct Modelled {
    state: FlowState,
    last_ms: u64,
}

impl Modelled {
    fn due(self, crowded: bool) -> u64 {
        self.last_ms
            + match self.state {
                FlowState::PickedUp => 60_000,
                FlowState::Opening if crowded => 60_000,
                FlowState::Opening | FlowState::Established => 900_000,
                FlowState::Closing => 120_000,
                FlowState::Reset => 10_000,
                FlowState::Udp => 300_000,
            }
    }
}

/// The hash, with the likely entry noted in it.
fn looked_up(table: &FlowTable, key: &FlowKey) -> FlowHash {
    let mut hash = table.hash(key);
    if !table.prefetch_entry(&mut hash) {
        table.prefetch_second(&mut hash);
    }
    hash
}

/// A table and what it should hold.
struct Pair {
    table: FlowTable,
    model: BTreeMap<FlowKey, Modelled>,
    now: u64,
    /// Lives ended by FIN or RST.
    ended: usize,
    /// Lives begun.
    begun: usize,
    /// Lives that ended with their entry.
    dropped: usize,
}

impl Pair {
    /// Starts shortly before the milliseconds wrap.
    fn new(capacity: usize) -> Self {
        let now = (1 << 32) - 700_000;
        Self { table: table(capacity), model: BTreeMap::new(), now, ended: 0, begun: 0, dropped: 0 }
    }

    fn run(&mut self, event: &Event) {
        match *event {
            Event::Packet { number, flags: UDP } => self.packet(&key_of(number, Origin::Udp), UDP),
            Event::Packet { number, flags } => self.packet(&key(number), flags),
            Event::Insert { number, origin } => self.insert(&key_of(number, origin), origin),
            Event::Remove { number } => {
                if let Some(id) = find(&self.table, &key(number), millis(self.now)) {
                    let gone = self.table.remove(id, millis(self.now)).expect("just found");
                    self.leave(&[gone]);
                }
            }
            Event::Pass { ms } => self.now += ms,
            Event::Sweep { buckets } => self.sweep(buckets),
        }
        self.check();
    }

    fn packet(&mut self, key: &FlowKey, flags: u8) {
        let found = find(&self.table, key, millis(self.now));
        let crowded = self.table.is_crowded();
        let expected = self.model.get_mut(key).filter(|flow| self.now < flow.due(crowded));
        assert_eq!(found.is_some(), expected.is_some(), "{key:?}");
        let (Some(id), Some(flow)) = (found, expected) else { return };
        let was = flow.state;
        let segment = tcp(flags).filter(|_| flow.state != FlowState::Udp);
        let hash = looked_up(&self.table, key);
        let simple = match segment {
            Some(tcp) => {
                flow.state == FlowState::Established && Segment::of(tcp.flags) == Segment::Ack
            }
            None => true,
        };
        let hit = self.table.hit(hash, key, segment, millis(self.now));
        // Two keys of one tag: the other one's entry was taken for the likely one.
        assert_eq!(hit.is_some(), simple && hash.likely == id.0);
        assert!(
            hit.is_none_or(|(backend, _)| backend == self.table.get(id).expect("in use").backend)
        );
        match self.table.observe(id, segment, millis(self.now)) {
            Some(Transition::NewConnection) => {
                assert!(flags == SYN && !was.is_live() && was != FlowState::Opening);
                return;
            }
            Some(Transition::Ended) => {
                assert!(was.is_live());
                self.ended += 1;
            }
            Some(Transition::Abandoned) => assert!(was.is_unproven()),
            Some(Transition::Repeated) => {
                assert!(flags == SYN && (was.is_live() || was == FlowState::Opening));
            }
            Some(Transition::Proven { picked_up }) => {
                assert!(was.is_unproven() && picked_up == (was == FlowState::PickedUp));
                self.begun += 1;
            }
            Some(Transition::Trailing) => assert!(!was.is_live() && !was.is_unproven()),
            None => {}
        }
        flow.state = self.table.get(id).expect("in use").state;
        flow.last_ms = self.now;
    }

    fn insert(&mut self, key: &FlowKey, origin: Origin) {
        let mut gone = Vec::new();
        let hash = self.table.hash(key);
        let new = flow(origin);
        let now = millis(self.now);
        let done = self.table.insert(hash, key, &new, now, &mut |flow| gone.push(flow));
        assert!(gone.len() <= 1);
        self.leave(&gone);
        if let Ok(id) = done {
            let state = self.table.get(id).expect("in use").state;
            assert!(self.model.insert(*key, Modelled { state, last_ms: self.now }).is_none());
            self.begun += usize::from(state.is_live());
        }
    }

    fn sweep(&mut self, buckets: usize) {
        let mut gone = Vec::new();
        self.table.sweep(millis(self.now), buckets, &mut |flow| gone.push(flow));
        for flow in &gone {
            assert!(flow.at <= millis(self.now));
            assert!(self.model[&flow.key].due(true) <= self.now, "swept too early");
        }
        self.leave(&gone);
    }

    /// Each entry goes once, in the state and at the time that it should have.
    fn leave(&mut self, gone: &[EndedFlow]) {
        for flow in gone {
            let modelled = self.model.remove(&flow.key).expect("gone once");
            assert_eq!(flow.state, modelled.state);
            if flow.state == FlowState::Opening {
                assert!(flow.at <= millis(self.now));
            } else {
                assert_eq!(flow.at, millis(self.now.min(modelled.due(false))));
            }
            self.dropped += usize::from(flow.state.is_live());
        }
    }

    fn check(&self) {
        assert_eq!(self.table.len(), self.model.len());
        let live = self.model.values().filter(|flow| flow.state.is_live()).count();
        let unproven = self.model.values().filter(|flow| flow.state.is_unproven()).count();
        assert_eq!((self.table.live(), self.table.unproven()), (live, unproven));
        assert_eq!(self.begun, self.ended + self.dropped + live, "each life ends once");
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(events in events(20)) {
        let mut pair = Pair::new(64);
        events.iter().for_each(|event| pair.run(event));
        pair.now += 1_000_000;
        pair.sweep(pair.table.buckets());
        prop_assert!(pair.table.is_empty());
    }

    #[test]
    fn agrees_with_the_model_when_full(events in events(200)) {
        let mut pair = Pair::new(1);
        for number in 1000..1030 {
            pair.run(&Event::Insert { number, origin: Origin::Handshake });
        }
        events.iter().for_each(|event| pair.run(event));
    }
}
