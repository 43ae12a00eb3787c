//! What another thread sees of the table.

use std::collections::BTreeSet;

use super::*;
use crate::flow::reader::SeenFlow;
use crate::flow::{FlowReader, FlowTable, Timeouts};

fn dump(reader: &FlowReader, now: Tick) -> Vec<SeenFlow> {
    let page = |from| reader.page(from, 2, &Timeouts::default(), now).collect::<Vec<_>>();
    (0..reader.buckets()).step_by(2).flat_map(page).collect()
}

fn table(flows: u32, origin: Origin) -> FlowTable {
    let mut table = FlowTable::new(flows as usize, 1, &Timeouts::default());
    for number in 0..flows {
        let key = key_of(number, origin);
        let hash = table.hash(&key);
        table.insert(hash, &key, &flow(origin), millis(1), &mut |_| ()).unwrap();
    }
    table
}

#[test]
fn every_flow_is_seen_once_with_all_that_is_known() {
    for origin in [Origin::Udp, Origin::Handshake, Origin::PickUp] {
        let table = table(1000, origin);
        let seen = dump(&table.reader(), millis(2001));
        let keys: BTreeSet<FlowKey> = seen.iter().map(|flow| flow.key).collect();
        assert_eq!(keys, (0..1000).map(|number| key_of(number, origin)).collect());
        assert_eq!(seen.len(), 1000);
        let of_table: BTreeSet<_> = table
            .page(0, table.buckets(), None, millis(2001))
            .map(|(key, flow)| (key, flow.backend, flow.state, flow.last_ack.unwrap_or_default()))
            .collect();
        let of_reader =
            seen.iter().map(|flow| (flow.key, flow.backend, flow.state, flow.last_ack)).collect();
        assert_eq!(of_table, of_reader);
        assert!(seen.iter().all(|flow| flow.idle == Duration::from_secs(2)));
    }
}

#[test]
fn what_is_idle_for_too_long_is_not_seen() {
    let table = table(10, Origin::Udp);
    let last = millis(300_000);
    let left: Vec<_> = dump(&table.reader(), last).iter().map(|flow| flow.left).collect();
    assert_eq!(left, [Duration::from_millis(1); 10]);
    assert_eq!(dump(&table.reader(), millis(300_001)), []);
}
