use std::collections::BTreeMap;
use std::sync::Arc;

use api::listing::{Flow, FlowState, FlushPersistence, ListFlows, ListTemplates, Page, Template};
use api::request::Answer;
use dataplane::{
    Addr, BackendSlot, FlowKey, FlowTable, FragmentTable, Mac, NewFlow, Origin, PendingTable,
    PersistenceTable, Protocol, ServiceSlot, SharedTables, TemplateKey, Tick, Timeouts,
};

use super::filter::Prefix;
use super::*;

/// Two services of two backends each; flows of UDP, 1,000 for each of the four slots.
fn tables() -> Tables {
    let timeouts = Timeouts::default();
    let mut flows = FlowTable::new(4000, 1, &timeouts);
    let shared = SharedTables {
        pending: PendingTable::new(16, 1, timeouts.half_open),
        persistence: PersistenceTable::new(10_000, 1),
        fragments: FragmentTable::new(16, 1),
    };
    let now = clock::now();
    for number in 0..4000_u32 {
        let [_, _, c, d] = number.to_be_bytes();
        let slot = u16::from(d % 4);
        let key = FlowKey {
            src: Addr::from_v4([10, d % 4, c, d]),
            dst: Addr::from_v4([192, 0, 2, 1]),
            src_port: 40_000,
            dst_port: 53,
            protocol: Protocol::Udp,
        };
        let new = NewFlow {
            service: ServiceSlot(slot / 2),
            backend: BackendSlot(slot),
            origin: Origin::Udp,
            tcp: None,
            client: Mac::default(),
            template: None,
        };
        flows.insert(flows.hash(&key), &key, &new, now, &mut |_| ()).unwrap();
        let key = TemplateKey::new(ServiceSlot(slot / 2), key.src, 128);
        shared.persistence.join(&key, BackendSlot(slot), timeouts.udp, false, now);
    }
    Tables { flows: vec![flows.reader()], timeouts, shared: Arc::new(shared), names: names() }
}

fn names() -> Names {
    let mut names = Names::default();
    for (slot, low) in (0..4_u16).zip(0..4_u8) {
        let service = ["dns", "ntp"][usize::from(slot / 2)].to_owned();
        let (backend, address) = (format!("rs{}", slot % 2), Some([10, 0, 0, low].into()));
        names.insert(ServiceSlot(slot / 2), BackendSlot(slot), Named { service, backend, address });
    }
    names
}

fn read<T>(mut lines: Lines, mut entry: impl FnMut(&str) -> (Vec<T>, bool)) -> Vec<T> {
    let mut all = Vec::new();
    let mut ended = false;
    while let Some(line) = lines.blocking_recv() {
        assert!(!ended, "nothing after the last line");
        let (entries, last) = entry(std::str::from_utf8(&line).unwrap());
        all.extend(entries);
        ended = last;
    }
    assert!(ended, "the last line says so");
    all
}

fn flows(wanted: &ListFlows) -> Result<BTreeMap<String, usize>, String> {
    let listed = read(tables().flows(wanted)?, |line| {
        let page: Page<Flow<'_>> = serde_json::from_str::<Answer<_>>(line).unwrap().ok.unwrap();
        let names = page.entries.iter().map(|flow| format!("{}/{}", flow.service, flow.backend));
        (names.collect(), page.last)
    });
    let mut counts = BTreeMap::new();
    listed.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
    Ok(counts)
}

#[test]
fn flows_are_listed_by_what_is_asked_for() {
    let all = ["dns/rs0", "dns/rs1", "ntp/rs0", "ntp/rs1"];
    let some = |text: &str| Some(text.to_owned());
    let of = ListFlows::default();
    let cases: [(ListFlows, &[&str]); 8] = [
        (of.clone(), &all),
        (ListFlows { service: some("ntp"), ..of.clone() }, &all[2..]),
        (ListFlows { backend: some("rs1"), ..of.clone() }, &["dns/rs1", "ntp/rs1"]),
        (ListFlows { backend: some("dns/rs1"), ..of.clone() }, &["dns/rs1"]),
        (ListFlows { source: some("10.2.0.0/16"), ..of.clone() }, &["ntp/rs0"]),
        (ListFlows { source: some("10.2.0.0/15"), ..of.clone() }, &["ntp/rs0", "ntp/rs1"]),
        (ListFlows { state: Some(FlowState::Udp), ..of.clone() }, &all),
        (ListFlows { state: Some(FlowState::Established), ..of.clone() }, &[]),
    ];
    for (wanted, expected) in cases {
        let expected = expected.iter().map(|name| ((*name).to_owned(), 1000)).collect();
        assert_eq!(flows(&wanted), Ok(expected), "{wanted:?}");
    }
}

#[test]
fn a_filter_that_means_nothing_is_an_error() {
    let some = |text: &str| Some(text.to_owned());
    let of = ListFlows::default();
    for (wanted, expected) in [
        (ListFlows { service: some("web"), ..of.clone() }, "there are: dns, ntp"),
        (ListFlows { backend: some("rs9"), ..of.clone() }, "no backend `rs9`"),
        (ListFlows { backend: some("dns/rs9"), ..of.clone() }, "no backend `dns/rs9`"),
        (ListFlows { source: some("10.0.0.1/33"), ..of.clone() }, "0 to 32 bits"),
        (ListFlows { source: some("ten"), ..of }, "no address and no prefix"),
    ] {
        let error = flows(&wanted).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn prefixes_cover_their_own_family_only() {
    let covers = |prefix: &str, address: &str| {
        Prefix::parse(prefix).unwrap().covers(address.parse::<std::net::IpAddr>().unwrap().into())
    };
    assert!(covers("0.0.0.0/0", "203.0.113.9") && !covers("0.0.0.0/0", "2001:db8::1"));
    assert!(covers("192.0.2.9", "192.0.2.9") && !covers("192.0.2.9", "192.0.2.8"));
    assert!(covers("2001:db8::/32", "2001:db8:1::1") && !covers("2001:db8::/32", "2001:db9::1"));
    assert!(covers("10.1.2.3/8", "10.9.9.9"), "bits behind the prefix do not matter");
}

#[test]
fn templates_are_listed_and_flushed_by_what_is_asked_for() {
    let tables = tables();
    let listed = |wanted: &ListTemplates| {
        read(tables.clone().templates(wanted).unwrap(), |line| {
            let page: Page<Template<'_>> =
                serde_json::from_str::<Answer<_>>(line).unwrap().ok.unwrap();
            (page.entries.iter().map(|template| template.source).collect(), page.last)
        })
        .len()
    };
    let of = ListTemplates::default();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(listed(&of), 4000);
    assert_eq!(listed(&ListTemplates { service: some("dns"), ..of.clone() }), 2000);
    assert_eq!(listed(&ListTemplates { backend: some("ntp/rs1"), ..of.clone() }), 1000);
    let flush = |source, service| tables.flush(FlushPersistence { source, service }).unwrap();
    assert_eq!(flush(some("10.2.0.0/16"), some("dns")), 0);
    assert_eq!(flush(some("10.0.0.0/16"), some("dns")), 1000);
    assert_eq!(flush(None, some("dns")), 1000);
    assert_eq!(listed(&of), 2000);
    assert_eq!(flush(None, None), 2000);
    let persistence = &tables.shared.persistence;
    assert_eq!((persistence.len(), persistence.stats().forgotten), (0, 4000));
    assert_eq!((0..4).map(|slot| persistence.templates_of(BackendSlot(slot))).sum::<u32>(), 0);
    assert_eq!(listed(&of), 0);
}

#[test]
fn a_reader_that_stops_holds_the_listing_back_and_ends_it() {
    let mut lines = tables().flows(&ListFlows::default()).unwrap();
    lines.blocking_recv().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(lines.len() <= QUEUE, "{} lines wait", lines.len());
    drop(lines);
    let _: Tick = clock::now();
}
