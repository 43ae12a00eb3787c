//! Requirement: removing one of 10 backends under `maglev` moves at most 1 % of the sources that
//! were not on it; two processes with the same configuration choose the same backend for 10,000 of
//! 10,000 sources.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use lab::{Lab, LoadClient};
use tests::{assert_all_done, close_books, measured, patient};

#[test]
fn two_processes_choose_alike_and_a_removal_moves_few() {
    let lab = Lab::builder().balancers(2).backends(10).queues(4).build().unwrap();
    let web = lab.start_web().unwrap();
    let all: Vec<usize> = (0..10).collect();
    let first = choices(&lab, 0, &config(&lab, &all, "a"));
    assert_eq!(first.len(), usize::from(SOURCES));

    // The same backends under other names, in another order, on another node.
    let turned: Vec<usize> = all.iter().rev().copied().collect();
    let second = choices(&lab, 1, &config(&lab, &turned, "b"));
    let equal = first.iter().filter(|(source, name)| second.get(*source) == Some(name)).count();
    measured("same_backend_in_two_processes", equal, "sources", "=10000");
    assert_eq!(equal, usize::from(SOURCES));

    let gone = 3;
    let rest: Vec<usize> = all.iter().copied().filter(|n| *n != gone).collect();
    let third = choices(&lab, 0, &config(&lab, &rest, "a"));
    assert_eq!(third.len(), usize::from(SOURCES));
    let gone = web[gone].name();
    assert!(third.values().all(|name| name != gone), "{gone} is not in the configuration");
    let others = || first.iter().filter(|(_, name)| *name != gone);
    let moved = others().filter(|(source, name)| third.get(*source) != Some(name)).count();
    let share = 100.0 * moved as f64 / others().count() as f64;
    measured("moved_by_a_removal", format!("{share:.2}"), "%", "<=1");
    assert!(share <= 1.0, "{moved} of {}", others().count());
}

fn config(lab: &Lab, backends: &[usize], prefix: &str) -> String {
    // A ServiceText lists the lab's backends by name and in order: here neither is wanted.
    let mut text = format!(
        "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"{prefix}\"\nvip = \"{}\"\n\
         port = 80\nscheduler = \"maglev\"\n[service.persistence]\ntimeout = \"50s\"\n",
        lab.vip()
    );
    for n in backends {
        let address = lab.backend(*n).address();
        text += &format!(
            "[[service.backend]]\nname = \"{prefix}{}\"\naddress = \"{address}\"\n",
            (n * 7) % 10
        );
    }
    text
}

/// Runs a balancer, has each source make a request, and returns who answered it.
fn choices(lab: &Lab, balancer: usize, config: &str) -> BTreeMap<IpAddr, String> {
    let mut lb = lab.start_pointsman(balancer, config).unwrap();
    let client = lab.client(0);
    // Who answers for the VIP has changed.
    client.netns().ip("neigh flush dev eth0\n").unwrap();
    let file = lab.files().ensure("1b").unwrap();
    let load = LoadClient::new(lab.vip_port(80), &file).threads(8).sources(client.sources(SOURCES));
    let report = patient(load).requests(SOURCES.into()).run(client.netns()).unwrap();
    assert_all_done(&report, &lb);
    close_books(&lb);
    let (status, _) = lb.process().stop(Duration::from_secs(5)).unwrap();
    assert!(status.success(), "{status}");
    let only = |backends: std::collections::BTreeSet<String>| backends.into_iter().next().unwrap();
    report.backends_by_source().into_iter().map(|(source, set)| (source, only(set))).collect()
}

const SOURCES: u16 = 10_000;
