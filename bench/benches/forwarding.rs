//! Forwarding, whole bursts over rings in plain memory, beside a null loop and other tables; its parts
//! alone; and how it grows with what there may be more of.
//!
//! `cargo bench -p bench`, or `cargo bench -p bench -- PART-OF-A-NAME …` for some of them. The table
//! goes to standard output; of a run of all, it is also written to `bench/results/memory.md`, with JSON
//! beside it.
#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

use std::path::Path;

use bench::harness::{self, Contestant};
use bench::report::{self, Report};
use bench::rig::Shape;
use bench::subjects::{
    BytesPart, ConcurrentMap, Expiry, HashMap, Lines, Loop, Mix, NewFlows, Nothing, Opening, Parse,
    Reloads, TemplateHits, Turns, TwoPorts,
};

fn main() -> std::io::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let before = report::load();
    let mut contestants = contestants(&wanted);
    let outcomes = harness::run(&mut contestants, ROUNDS);
    let load = [before, report::load()];
    let report = Report { processor: report::processor(), rounds: ROUNDS, load, outcomes };
    println!("{}", report.table());
    if wanted.is_empty() {
        report.save(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results"), "memory")?;
    }
    Ok(())
}

/// The null loop, the turn that most are compared with, and those whose names contain one of the words
/// (all, if there are none).
fn contestants(wanted: &[String]) -> Vec<Contestant> {
    let is_wanted = |name: &str| {
        [NULL, HIT].contains(&name)
            || wanted.is_empty()
            || wanted.iter().any(|word| name.contains(word))
    };
    let all = ALL.iter().filter(|(name, _)| is_wanted(name));
    all.map(|(name, make)| make(name)).collect()
}

/// Turns over established flows whose packets are in no cache.
fn turns(name: &'static str, flows: u32, vips: u16, backends: u16) -> Contestant {
    let shape = Shape { flows, vips, backends };
    Contestant::new(name, Turns::new(shape, Mix::uniform(), Lines::Cold))
}

fn zipf(name: &'static str, flows: u32) -> Contestant {
    let shape = Shape { flows, vips: 1, backends: 10 };
    Contestant::new(name, Turns::new(shape, Mix::zipf(flows), Lines::Cold))
}

fn warm(name: &'static str, flows: u32) -> Contestant {
    let shape = Shape { flows, vips: 1, backends: 10 };
    Contestant::new(name, Turns::new(shape, Mix::uniform(), Lines::Warm)).versus(WARM)
}

fn reloads(name: &'static str) -> Contestant {
    let shape = Shape { flows: 100_000, vips: 1, backends: 10 };
    Contestant::new(name, Reloads::new(shape, 100)).at_most(1.01, MANY).in_the_mean()
}

fn hashbrown(name: &'static str, flows: u32) -> Contestant {
    Contestant::new(name, Loop::new(HashMap::new(flows), flows, Lines::Cold))
}

fn dashmap(name: &'static str, flows: u32) -> Contestant {
    Contestant::new(name, Loop::new(ConcurrentMap::new(flows), flows, Lines::Cold))
}

fn bytes_part(name: &'static str, flows: u32) -> Contestant {
    Contestant::new(name, BytesPart::new(Shape { flows, vips: 1, backends: 10 }))
}

fn two_ports(name: &'static str, frame: usize) -> Contestant {
    Contestant::new(name, TwoPorts::new(Shape { flows: 1_000, vips: 1, backends: 10 }, frame))
}

fn opening(name: &'static str, opening: Opening) -> Contestant {
    Contestant::new(name, NewFlows::new(opening)).short().at_most(4.0, MANY)
}

type Make = fn(&'static str) -> Contestant;

const NULL: &str = "null loop: rings and MAC rewrite";
const WARM: &str = "null loop, warm packets";
const HIT: &str = "turn, 1 k flows";
const MANY: &str = "turn, 100 k flows";
const MILLION: &str = "turn, 1 M flows";

/// Unless a name says otherwise: one VIP, ten backends, packets that are in no cache.
const ALL: [(&str, Make); 32] = [
    (NULL, |name| Contestant::new(name, Loop::new(Nothing, 1_000, Lines::Cold))),
    (WARM, |name| Contestant::new(name, Loop::new(Nothing, 1_000, Lines::Warm))),
    ("turn, 1 flow", |name| turns(name, 1, 1, 10).versus(NULL)),
    (HIT, |name| turns(name, 1_000, 1, 10).at_most(4.0, NULL)),
    (MANY, |name| turns(name, 100_000, 1, 10).versus(HIT)),
    (MILLION, |name| turns(name, 1_000_000, 1, 10).versus(HIT)),
    ("turn, 10 M flows", |name| turns(name, 10_000_000, 1, 10).at_most(5.0, HIT)),
    ("turn, 1 M flows, Zipf", |name| zipf(name, 1_000_000).versus(HIT)),
    ("turn, 10 M flows, Zipf", |name| zipf(name, 10_000_000).at_most(3.0, HIT)),
    ("turn, 1 k flows, warm packets", |name| warm(name, 1_000)),
    ("turn, 1 M flows, warm packets", |name| warm(name, 1_000_000)),
    ("turn, 100 k flows, 1 backend", |name| turns(name, 100_000, 1, 1).versus(MANY)),
    ("turn, 100 k flows, 1000 backends", |name| turns(name, 100_000, 1, 1_000).at_most(1.15, MANY)),
    ("turn, 100 k flows, 1000 services", |name| turns(name, 100_000, 1_000, 1).at_most(1.3, MANY)),
    ("turn, 100 k flows, 100 reloads/s (means)", reloads),
    ("turn to another port, 1 k flows", |name| two_ports(name, 60).versus(HIT)),
    ("turn to another port, 1 k flows, 1514 bytes", |name| two_ports(name, 1514).versus(HIT)),
    ("template hit", |name| Contestant::new(name, TemplateHits::new()).short().versus(MANY)),
    ("new flow: SYN", |name| opening(name, Opening::Syn)),
    ("new flow: SYN, ACK, request; per packet", |name| opening(name, Opening::All)),
    ("expiry, per flow", |name| Contestant::new(name, Expiry::new()).blocks(1).versus(MANY)),
    ("parse alone, warm", |name| Contestant::new(name, Parse::new())),
    ("forwarder alone, 1 k flows, warm", |name| bytes_part(name, 1_000)),
    ("forwarder alone, 1 M flows, warm", |name| bytes_part(name, 1_000_000)),
    ("hashbrown loop, 1 k flows", |name| hashbrown(name, 1_000).versus(HIT)),
    ("hashbrown loop, 100 k flows", |name| hashbrown(name, 100_000).versus(MANY)),
    ("hashbrown loop, 1 M flows", |name| hashbrown(name, 1_000_000).versus(MILLION)),
    ("hashbrown loop, 10 M flows", |name| hashbrown(name, 10_000_000).versus("turn, 10 M flows")),
    ("DashMap loop, 1 k flows", |name| dashmap(name, 1_000).versus(HIT)),
    ("DashMap loop, 100 k flows", |name| dashmap(name, 100_000).versus(MANY)),
    ("DashMap loop, 1 M flows", |name| dashmap(name, 1_000_000).versus(MILLION)),
    ("DashMap loop, 10 M flows", |name| dashmap(name, 10_000_000).versus("turn, 10 M flows")),
];

/// More than seven, so that quartiles mean something.
const ROUNDS: usize = 15;
