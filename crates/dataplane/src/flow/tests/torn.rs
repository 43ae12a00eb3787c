//! One writer and a reader that looks at an entry while it is freed and filled: under every order of
//! memory accesses that the memory model of Rust (C++20) allows, the reader sees one flow or none.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, fence};

use crate::flow::entry::{Head, Word, fill};
use crate::flow::reader;
use crate::flow::state::FlowState;
use crate::key::FlowKey;

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn fence(order: Ordering) {
        fence(order);
    }
}

/// A small entry: half a source, the head, half a destination.
type Entry = [AtomicU64; 3];
const HEAD: usize = 1;

/// The addresses of the flows, and their backends: the first one comes back, and only the version
/// tells its head from the former one.
const FLOWS: [(u64, u16); 3] = [(1, 10), (2, 20), (1, 10)];

fn contents((address, backend): (u64, u16)) -> [u64; 3] {
    let key = FlowKey { src_port: 1024, dst_port: 80, ..super::key(0) };
    let head =
        Head::ports(&key).0 | u64::from(backend) << 16 | (FlowState::Established as u64) << 13;
    [address, head, address]
}

/// What other threads do, and the XDP program (`bpf/flows.h`): the addresses and the backend.
fn read(entry: &Entry) -> Option<(u64, u64, u16)> {
    let (head, [source, destination]) = reader::read(&entry[..], HEAD, [0, 2])?;
    Some((source, destination, head.backend().0))
}

fn free(entry: &Entry) {
    let version = entry[HEAD].load(Ordering::Relaxed) & 0x1fff;
    entry[HEAD].store(version, Ordering::Relaxed);
}

#[test]
fn a_reader_sees_one_flow_or_none() {
    let seen = std::sync::Arc::new(Mutex::new(BTreeSet::new()));
    let all = std::sync::Arc::clone(&seen);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(move || {
        let entry: Arc<Entry> = Arc::new([0; 3].map(AtomicU64::new));
        fill(&entry[..], HEAD, &contents(FLOWS[0]));
        let writer = Arc::clone(&entry);
        let writer = loom::thread::spawn(move || {
            for flow in &FLOWS[1..] {
                free(&writer);
                fill(&writer[..], HEAD, &contents(*flow));
            }
        });
        let reader = loom::thread::spawn(move || read(&entry));
        writer.join().unwrap();
        let found = reader.join().unwrap();
        if let Some((source, destination, backend)) = found {
            assert_eq!(source, destination);
            assert!(FLOWS.contains(&(source, backend)), "{source} goes to {backend}");
        }
        all.lock().unwrap().insert(found);
    });
    let expected = BTreeSet::from([None, Some((1, 1, 10)), Some((2, 2, 20))]);
    assert_eq!(*seen.lock().unwrap(), expected, "each of them, and none");
}

/// How often a thread is stopped in its midst: without a limit the model takes half a minute.
const PREEMPTIONS: usize = 3;
