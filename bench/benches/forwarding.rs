//! Forwarding, whole bursts over rings in plain memory, beside a null loop; and its parts alone.
//!
//! `cargo bench -p bench`, or `cargo bench -p bench -- PART-OF-A-NAME …` for some of them. The
//! table goes to standard output and, with JSON beside it, to `target/forwarding.md`.
#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

use std::path::Path;

use bench::harness::{self, Contestant};
use bench::report::{self, Report};
use bench::rig::Shape;
use bench::subjects::{BytesPart, NewFlows, NullLoop, Parse, TemplateHits, Turns, TwoPorts};

fn main() -> std::io::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let before = report::load();
    let mut contestants = contestants(&wanted);
    let outcomes = harness::run(&mut contestants, ROUNDS);
    let load = [before, report::load()];
    let report = Report { processor: report::processor(), rounds: ROUNDS, load, outcomes };
    println!("{}", report.table());
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    report.save(temporary.parent().unwrap_or(temporary), "forwarding")
}

/// The null loop, and those whose names contain one of the words (all, if there are none).
fn contestants(wanted: &[String]) -> Vec<Contestant> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    let null = Contestant::new("null loop: rings and MAC rewrite", NullLoop::new());
    let others = OTHERS.iter().filter(|(name, _)| is_wanted(name)).map(|(name, make)| make(name));
    std::iter::once(null).chain(others).collect()
}

fn turns(name: &'static str, flows: u32, vips: u16, backends: u16) -> Contestant {
    Contestant::new(name, Turns::new(Shape { flows, vips, backends }))
}

fn bytes_part(name: &'static str, flows: u32) -> Contestant {
    Contestant::new(name, BytesPart::new(Shape { flows, vips: 1, backends: 10 }))
}

fn two_ports(name: &'static str, frame: usize) -> Contestant {
    Contestant::new(name, TwoPorts::new(Shape { flows: 1_000, vips: 1, backends: 10 }, frame))
}

type Make = fn(&'static str) -> Contestant;

/// Unless a name says otherwise: one VIP, ten backends.
const OTHERS: [(&str, Make); 14] = [
    ("turn, 1 flow", |name| turns(name, 1, 1, 10)),
    ("turn, 1 k flows", |name| turns(name, 1_000, 1, 10).goal(25.0)),
    ("turn, 100 k flows", |name| turns(name, 100_000, 1, 10)),
    ("turn, 1 M flows", |name| turns(name, 1_000_000, 1, 10).goal(50.0)),
    ("turn, 100 k flows, 1 backend", |name| turns(name, 100_000, 1, 1)),
    ("turn, 100 k flows, 1000 backends", |name| turns(name, 100_000, 1, 1_000)),
    ("turn, 100 k flows, 1000 VIPs, 1 backend each", |name| turns(name, 100_000, 1_000, 1)),
    ("turn to another port, 1 k flows", |name| two_ports(name, 60)),
    ("turn to another port, 1 k flows, 1514 bytes", |name| two_ports(name, 1514)),
    ("parse alone", |name| Contestant::new(name, Parse::new())),
    ("bytes part alone, 1 k flows", |name| bytes_part(name, 1_000)),
    ("bytes part alone, 1 M flows", |name| bytes_part(name, 1_000_000)),
    ("turn, template hits", |name| Contestant::new(name, TemplateHits::new()).short()),
    ("turn, new flows: SYN, ACK, request", |name| Contestant::new(name, NewFlows::new()).short()),
];

/// More than seven, so that quartiles mean something.
const ROUNDS: usize = 15;
