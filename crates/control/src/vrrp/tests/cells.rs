//! One line per (state, event): RFC 9568 §6.4.1–§6.4.3 for priority 100, 1 s, address .5.

use super::*;

/// Name, bench, event (`None`: the timer), expected actions, state and ms to the next deadline.
type Cell = (&'static str, fn() -> Bench, Option<Event>, &'static str);

const LOW: u8 = 4;
const HIGH: u8 = 6;

fn from(last: u8, priority: u8) -> Option<Event> {
    Some(heard(ip(last), priority, 1000))
}

fn init() -> Bench {
    let mut bench = Bench::new(config());
    bench.wait(500);
    bench
}

fn backup() -> Bench {
    let mut bench = Bench::backup(config());
    bench.wait(500);
    bench
}

fn nopreempt() -> Bench {
    let mut bench = Bench::backup(Config { preempt: false, ..config() });
    bench.wait(500);
    bench
}

/// Heard priority 200 every 10 s from .9, half a second ago.
fn following() -> Bench {
    let mut bench = Bench::backup(config());
    bench.event(heard(ip(9), 200, 10_000));
    bench.wait(500);
    bench
}

fn settling() -> Bench {
    let mut bench = Bench::settling(config());
    bench.wait(10);
    bench
}

fn active() -> Bench {
    let mut bench = Bench::active(config());
    bench.wait(437);
    bench
}

fn owner_init() -> Bench {
    Bench::new(Config { priority: 255, ..config() })
}

fn owner_active() -> Bench {
    let mut bench = Bench::backup(Config { priority: 255, ..config() });
    bench.next();
    bench.wait(400);
    bench
}

fn late(ms: u64) -> Bench {
    let mut bench = Bench::backup(config());
    bench.now = bench.router.next_deadline().unwrap() + Duration::from_millis(ms);
    bench
}

fn due() -> Bench {
    late(0)
}

fn stalled() -> Bench {
    let mut bench = Bench::active(config());
    bench.wait(2438);
    bench
}

fn blocked() -> Bench {
    let mut bench = init();
    bench.event(Event::SetForwarding(Some(Block::Link)));
    bench.event(Event::Start);
    bench
}

fn v2() -> Bench {
    let seconds = Duration::from_secs(5);
    let mut bench = Bench::backup(Config { version: Version::V2, interval: seconds, ..config() });
    bench.wait(500);
    bench
}

fn v2_active() -> Bench {
    let seconds = Duration::from_secs(5);
    let mut bench = Bench::active(Config { version: Version::V2, interval: seconds, ..config() });
    bench.wait(500);
    bench
}

fn v6_active() -> Bench {
    let own = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0x7fff, 0]);
    let vip = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0x10]);
    Bench::active(Config::new(Vrid::MIN, own, vec![vip]))
}

fn v6_from(word: u16) -> Option<Event> {
    Some(heard(IpAddr::from([0xfe80, 0, 0, 0, 0, 0, word, 0]), 100, 1000))
}

fn forwarding(block: Option<Block>) -> Option<Event> {
    Some(Event::SetForwarding(block))
}

fn resign() -> Option<Event> {
    Some(Event::Resign(Duration::from_secs(60)))
}

#[rustfmt::skip]
fn initialize() -> Vec<Cell> {
    vec![
        ("init, startup",             init, Some(Event::Start), "(startup) backup 3609.375"),
        ("init, startup of an owner", owner_init, Some(Event::Start), "advert 255; (owner) active 62.5"),
        ("init, shutdown",            init, Some(Event::Shutdown), "initialize"),
        ("init, timer",               init, None, "initialize"),
        ("init, priority 0",          init, from(LOW, 0), "initialize"),
        ("init, lower",               init, from(LOW, 1), "initialize"),
        ("init, equal",               init, from(HIGH, 100), "initialize"),
        ("init, higher",              init, from(LOW, 200), "initialize"),
        ("init, owner heard",         init, from(LOW, 255), "initialize"),
        ("init, priority set",        init, Some(Event::SetPriority(7)), "initialize"),
        ("init, cannot forward",      init, forwarding(Some(Block::Worker)), "initialize"),
        ("init, resign",              init, resign(), "initialize"),
        ("init, announce",            init, Some(Event::Announce), "initialize"),
        ("blocked, startup",          blocked, Some(Event::Start), "initialize"),
        ("blocked, can forward",      blocked, forwarding(None), "(recovered) backup 3609.375"),
        ("blocked, timer",            blocked, None, "initialize"),
        ("blocked, shutdown",         blocked, Some(Event::Shutdown), "initialize"),
    ]
}

#[rustfmt::skip]
fn backups() -> Vec<Cell> {
    vec![
        ("backup, startup again",         backup, Some(Event::Start), "backup 3109.375"),
        ("backup, shutdown",              backup, Some(Event::Shutdown), "(shutdown) initialize"),
        ("backup, timer not due",         backup, None, "backup 3109.375"),
        ("backup, timer due",             due, None, "advert 100; (silent) active 62.5"),
        ("backup, timer a little late",   || late(900), None, "advert 100; (silent) active 62.5"),
        ("backup, timer very late",       || late(1001), None, "backup 3609.375"),
        ("backup, priority 0",            backup, from(LOW, 0), "backup 609.375"),
        ("backup, priority 1",            backup, from(LOW, 1), "backup 3109.375"),
        ("backup, priority 99",           backup, from(HIGH, 99), "backup 3109.375"),
        ("backup, equal, lower address",  backup, from(LOW, 100), "backup 3609.375"),
        ("backup, equal, higher address", backup, from(HIGH, 100), "backup 3609.375"),
        ("backup, priority 101",          backup, from(LOW, 101), "backup 3609.375"),
        ("backup, priority 255",          backup, from(LOW, 255), "backup 3609.375"),
        ("backup, another interval",      backup, Some(heard(ip(9), 200, 100)), "backup 360.937"),
        ("backup, longest interval",      backup, Some(heard(ip(9), 200, 40_950)), "backup 147803.906"),
        ("backup, lower, other interval", backup, Some(heard(ip(9), 50, 100)), "backup 3109.375"),
        ("following, priority 0 of it",   following, from(9, 0), "backup 6093.75"),
        ("following, priority 0 of another", following, from(8, 0), "backup 35593.75"),
        ("following, back to own interval", following, from(9, 200), "backup 3609.375"),
        ("backup, priority raised",       backup, Some(Event::SetPriority(200)), "backup 3109.375"),
        ("backup, priority 0 set",        backup, Some(Event::SetPriority(0)), "(tracking) initialize"),
        ("backup, cannot forward",        backup, forwarding(Some(Block::Queue)), "(queue) initialize"),
        ("backup, can forward",           backup, forwarding(None), "backup 3109.375"),
        ("backup, resign",                backup, resign(), "backup 3109.375"),
        ("backup, announce",              backup, Some(Event::Announce), "backup 3109.375"),
        ("nopreempt, priority 1",         nopreempt, from(LOW, 1), "backup 3609.375"),
        ("nopreempt, priority 99",        nopreempt, from(LOW, 99), "backup 3609.375"),
        ("nopreempt, equal",              nopreempt, from(LOW, 100), "backup 3609.375"),
        ("nopreempt, higher",             nopreempt, from(LOW, 200), "backup 3609.375"),
        ("nopreempt, priority 0",         nopreempt, from(LOW, 0), "backup 609.375"),
        ("nopreempt, lower, interval learnt", nopreempt, Some(heard(ip(9), 50, 100)), "backup 360.937"),
        ("v2 backup, priority 0: skew in seconds", v2, Some(heard(ip(9), 0, 5000)), "backup 609.375"),
        ("v2 backup, higher",             v2, Some(heard(ip(9), 200, 5000)), "backup 15609.375"),
    ]
}

#[rustfmt::skip]
fn actives() -> Vec<Cell> {
    vec![
        ("settling, timer not due",       settling, None, "active 52.5"),
        ("settling, higher",              settling, from(LOW, 200), "advert 0; (higher_priority) backup 3609.375"),
        ("settling, equal, higher",       settling, from(HIGH, 100), "advert 0; (higher_address) backup 3609.375"),
        ("settling, lower: its lease first", settling, from(LOW, 50), "active 52.5"),
        ("settling, priority 0",          settling, from(LOW, 0), "active 52.5"),
        ("settling, shutdown",            settling, Some(Event::Shutdown), "advert 0; (shutdown) initialize"),
        ("settling, cannot forward",      settling, forwarding(Some(Block::Link)), "advert 0; (link) initialize"),
        ("settling, announce",            settling, Some(Event::Announce), "active 52.5"),
        ("active, startup again",         active, Some(Event::Start), "active 500.5"),
        ("active, shutdown",              active, Some(Event::Shutdown), "off; advert 0; (shutdown) initialize"),
        ("active, timer not due",         active, None, "active 500.5"),
        ("active, priority 0",            active, from(LOW, 0), "advert 100; renew 2500; active 563"),
        ("active, priority 1",            active, from(HIGH, 1), "advert 100; renew 2500; active 563"),
        ("active, priority 99",           active, from(HIGH, 99), "advert 100; renew 2500; active 563"),
        ("active, equal, lower address",  active, from(LOW, 100), "advert 100; renew 2500; active 563"),
        ("active, equal, higher address", active, from(HIGH, 100), "off; advert 0; (higher_address) backup 3609.375"),
        ("active, priority 101",          active, from(LOW, 101), "off; advert 0; (higher_priority) backup 3609.375"),
        ("active, priority 255",          active, from(LOW, 255), "off; advert 0; (higher_priority) backup 3609.375"),
        ("active, higher, other interval", active, Some(heard(ip(9), 200, 100)), "off; advert 0; (higher_priority) backup 360.937"),
        ("active, priority raised",       active, Some(Event::SetPriority(200)), "advert 200; renew 2500; active 1000"),
        ("active, same priority set",     active, Some(Event::SetPriority(100)), "active 500.5"),
        ("active, priority 0 set",        active, Some(Event::SetPriority(0)), "off; advert 0; (tracking) initialize"),
        ("active, cannot forward",        active, forwarding(Some(Block::Worker)), "off; advert 0; (worker) initialize"),
        ("active, can forward",           active, forwarding(None), "active 500.5"),
        ("active, resign",                active, resign(), "off; advert 0; (resigned) backup 3609.375"),
        ("active, announce",              active, Some(Event::Announce), "active 500.5"),
        ("owner active, higher is impossible", owner_active, from(LOW, 254), "advert 255; renew 2500; active 600"),
        ("owner active, two owners: higher address", owner_active, from(HIGH, 255), "off; advert 0; (higher_address) backup 3003.906"),
        ("stalled, timer",                stalled, None, "off; (stalled) backup 3609.375"),
        ("stalled, higher",               stalled, from(LOW, 200), "off; (stalled) backup 3609.375"),
        ("stalled, shutdown: no goodbye", stalled, Some(Event::Shutdown), "off; (stalled) (shutdown) initialize"),
        ("stalled, cannot forward",       stalled, forwarding(Some(Block::Control)), "off; (stalled) (control) initialize"),
        ("v2 active, lower",              v2_active, Some(heard(ip(LOW), 50, 5000)), "advert 100; renew 12500; active 500"),
        ("v2 active, higher",             v2_active, Some(heard(ip(LOW), 200, 5000)), "off; advert 0; (higher_priority) backup 15609.375"),
        ("v6 active, equal, higher address", v6_active, v6_from(0x8000), "off; advert 0; (higher_address) backup 3609.375"),
        ("v6 active, equal, lower address", v6_active, v6_from(0x7ffe), "advert 100; renew 2500; active 1000"),
    ]
}

#[test]
fn every_cell_of_the_table() {
    let table = [initialize(), backups(), actives()].concat();
    assert!(table.len() >= 60, "{} cells", table.len());
    let mut wrong = String::new();
    for (name, bench, event, expected) in table {
        let mut bench = bench();
        let outcome = match event {
            Some(event) => bench.event(event),
            None => bench.timeout(),
        };
        if outcome != expected {
            writeln!(wrong, "{name}\n  want {expected}\n   got {outcome}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
