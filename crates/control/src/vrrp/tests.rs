//! The election, cell by cell.
//!
//! | rule | test |
//! |---|---|
//! | RFC 9568 §5.1.1.3, §5.2, §7.1: what a receiver discards | `tests/vrrp_codec.rs` |
//! | §5.2.8: IPv4 checksum without pseudo-header, both accepted | `tests/vrrp_codec.rs` `both_checksums_*` |
//! | §6.1 Skew_Time, Active_Down_Interval; RFC 3768 §6.1 | `timers::tests`, cells `v2 *` |
//! | §6.4.1 Initialize: Startup, owner, everything else ignored | cells `init *` |
//! | §6.4.2 Backup: Shutdown, timer, priority 0, learn, discard | cells `backup *` |
//! | §6.4.3 Active: Shutdown, timer, priority 0, higher, equal, lower | cells `active *` |
//! | equal priority: the higher primary address, as unsigned integers | cells `active, equal *`, `v6 *` |
//! | Preempt_Mode false; preempt_delay | cells `nopreempt *`, `tests/vrrp/preempt-delay.txt` |
//! | lease = t + (down_adverts - 0.5) intervals, of successful sends only | `the_lease_follows_*`, `failed_sends_*` |
//! | a stalled Active is a Backup first | `a_stalled_active_*`, `an_advert_that_was_sent_too_late_*`, cells `stalled *` |
//! | a late Active_Down_Timer proves nothing | cells `backup, timer * late` |
//! | deactivate, then priority 0 | cells `active, shutdown` and others that leave |
//! | advert, then activate, then announce; not before a predecessor's lease is over | cells `settling *`, `tests/vrrp/*.txt` |
//! | only a node that forwards advertises | cells `* cannot forward`, `* priority 0 set` |
//! | sync groups: all or none | `tests/vrrp/group-*.txt` |
//! | a goodbye is no news while another router is Active | cell `following, priority 0 of another` |
//! | a sender that is outranked moves nothing | `an_outranked_sender_*`, `tests/vrrp_sim.rs` |
//! | a claim is never longer than a lease after the own advert | `a_sender_that_never_yields_*` |
//! | nothing is activated before a lease was listened for | `tests/vrrp/goodbye-just-after-start.txt` |
//! | any events in any order: no panic, no spinning, contract kept | `tests/vrrp_events.rs` |
//! | rejected input changes nothing | `tests/vrrp_codec.rs`, `tests/vrrp_sim.rs` |
//! | never two owners by crash and freeze alone; liveness | `tests/vrrp_sim.rs` |

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::*;

mod cells;
mod reconfigured;

/// Any instant will do: tests only add to it.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
pub(super) fn origin() -> Instant {
    Instant::now()
}

/// Address of the router under test.
const OWN: u8 = 5;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn config() -> Config {
    Config::new(Vrid::MIN, ip(OWN), vec![ip(100)])
}

fn heard(source: IpAddr, priority: u8, interval_ms: u64) -> Event {
    let interval = Duration::from_millis(interval_ms);
    Event::Heard(Heard {
        source,
        priority,
        interval,
        checksum: ChecksumStyle::Plain,
        list: AddressList::Same,
    })
}

/// A router with a clock.
struct Bench {
    router: Router,
    now: Instant,
    sends_fail: bool,
}

impl Bench {
    fn new(config: Config) -> Self {
        let router = Router::new(config).expect("valid configuration");
        Self { router, now: origin(), sends_fail: false }
    }

    /// Started and listening.
    fn backup(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.event(Event::Start);
        bench
    }

    /// Has advertised, not yet activated.
    fn settling(config: Config) -> Self {
        let mut bench = Self::backup(config);
        bench.next();
        bench
    }

    /// Owns the VIPs; the announcement has just been made.
    fn active(config: Config) -> Self {
        let mut bench = Self::settling(config);
        bench.next();
        assert!(bench.router.lease_until().is_some());
        bench
    }

    fn wait(&mut self, ms: u64) -> &mut Self {
        self.now += Duration::from_millis(ms);
        self
    }

    fn event(&mut self, event: Event) -> String {
        self.router.handle(event, self.now);
        self.outcome()
    }

    fn timeout(&mut self) -> String {
        self.router.handle_timeout(self.now);
        self.outcome()
    }

    /// On to the next deadline.
    fn next(&mut self) -> String {
        self.now = self.router.next_deadline().expect("a deadline");
        self.timeout()
    }

    /// All actions, then the state, then the next deadline; times in ms from now.
    fn outcome(&mut self) -> String {
        let mut out = String::new();
        while let Some(action) = self.router.poll_action() {
            match action {
                Action::SendAdvert { priority } => {
                    write!(out, "advert {priority}; ").unwrap();
                    self.router.advert_sent(self.now, self.now, !self.sends_fail);
                }
                Action::Activate { until } => write!(out, "on {}; ", self.ms(until)).unwrap(),
                Action::Renew { until } => write!(out, "renew {}; ", self.ms(until)).unwrap(),
                Action::Deactivate => out.push_str("off; "),
                Action::AnnounceBurst { count, why } => {
                    write!(out, "announce {count} {}; ", why.name()).unwrap();
                }
                Action::Transition { reason, .. } => write!(out, "({}) ", reason.name()).unwrap(),
            }
        }
        out.push_str(self.router.state().name());
        if let Some(at) = self.router.next_deadline() {
            write!(out, " {}", self.ms(at)).unwrap();
        }
        out
    }

    fn ms(&self, at: Instant) -> String {
        let late = self.now.saturating_duration_since(at);
        if late.is_zero() {
            format!("{}", (at - self.now).as_micros() as f64 / 1000.0)
        } else {
            format!("-{}", late.as_micros() as f64 / 1000.0)
        }
    }
}

#[test]
fn the_lease_follows_the_time_read_before_the_send() {
    let mut bench = Bench::active(config());
    let lease = bench.router.lease_until().unwrap();
    bench.now = bench.router.next_deadline().unwrap();
    bench.router.handle_timeout(bench.now);
    assert_eq!(bench.router.poll_action(), Some(Action::SendAdvert { priority: 100 }));
    assert_eq!(bench.router.lease_until(), Some(lease), "not before the send");
    let t = bench.now + Duration::from_millis(3);
    bench.router.advert_sent(t, t, true);
    let until = t + Duration::from_millis(2500);
    assert_eq!(bench.router.poll_action(), Some(Action::Renew { until }));
    // A result that comes late shortens nothing.
    bench.router.advert_sent(lease - Duration::from_secs(9), t, true);
    assert_eq!(bench.router.lease_until(), Some(until));
}

#[test]
fn failed_sends_extend_no_lease_and_end_in_backup() {
    let mut bench = Bench::active(config());
    let lease = bench.router.lease_until().unwrap();
    bench.sends_fail = true;
    assert_eq!(bench.next(), "advert 100; active 1000");
    assert_eq!(bench.next(), "advert 100; active 500");
    assert_eq!(bench.router.lease_until(), Some(lease));
    assert_eq!(bench.next(), "off; (send_failed) backup 3609.375");
    assert_eq!(bench.next(), "advert 100; (silent) active 1000");
    assert_eq!(bench.router.lease_until(), None, "never activated without an advert");
    assert_eq!(bench.next(), "advert 100; active 1000");
    bench.sends_fail = false;
    assert_eq!(bench.next(), "advert 100; active 62.5");
    assert_eq!(bench.next(), "on 2437.5; announce 5 taken; active 937.5");
}

#[test]
fn a_stalled_active_is_a_backup_before_anything_else() {
    for event in [
        heard(ip(9), 50, 1000),
        heard(ip(9), 0, 1000),
        Event::SetPriority(200),
        Event::Announce,
        Event::Start,
        Event::Resign(Duration::from_secs(60)),
    ] {
        let mut bench = Bench::active(config());
        let outcome = bench.wait(5000).event(event);
        assert!(outcome.starts_with("off; (stalled) backup"), "{event:?}: {outcome}");
        assert_eq!(bench.router.status().stalls, 1);
    }
}

#[test]
fn an_advert_that_was_sent_too_late_extends_no_lease() {
    let mut bench = Bench::active(config());
    let lease = bench.router.lease_until().unwrap();
    let t = bench.router.next_deadline().unwrap();
    bench.router.handle_timeout(t);
    assert_eq!(bench.router.poll_action(), Some(Action::SendAdvert { priority: 100 }));
    bench.now = lease;
    bench.router.advert_sent(t, bench.now, true);
    assert_eq!(bench.outcome(), "off; (stalled) advert 0; backup 3609.375");
}

#[test]
fn a_queued_advert_after_stop_does_nothing() {
    let mut bench = Bench::active(config());
    bench.event(Event::Shutdown);
    for priority in [0, 1, 100, 255] {
        assert_eq!(bench.event(heard(ip(9), priority, 1000)), "initialize");
    }
    assert_eq!(bench.timeout(), "initialize");
    bench.router.advert_sent(bench.now, bench.now, true);
    assert_eq!(bench.outcome(), "initialize");
}

#[test]
fn checksum_auto_follows_the_peer() {
    let mut bench = Bench::backup(config());
    assert_eq!(bench.router.status().checksum, ChecksumStyle::Plain);
    let pseudo = Heard {
        source: ip(9),
        priority: 200,
        interval: Duration::from_secs(1),
        checksum: ChecksumStyle::PseudoHeader,
        list: AddressList::Same,
    };
    bench.event(Event::Heard(pseudo));
    assert_eq!(bench.router.status().checksum, ChecksumStyle::PseudoHeader);

    let fixed = ChecksumMode::Fixed(ChecksumStyle::Plain);
    let mut bench = Bench::backup(Config { checksum: fixed, ..config() });
    bench.event(Event::Heard(pseudo));
    assert_eq!(bench.router.status().checksum, ChecksumStyle::Plain);
}

#[test]
fn an_outranked_sender_moves_neither_timer_nor_take_over() {
    let mut with = Bench::backup(config());
    let mut without = Bench::backup(config());
    let seconds = [1, 2, 3];
    for bench in [&mut with, &mut without] {
        bench.event(heard(ip(9), 200, 1000));
    }
    for second in seconds {
        // Of any interval, a goodbye too, before and after the Active's own advert.
        for (priority, interval) in [(1, 40_950), (199, 10), (0, 40_950), (1, 40_950)] {
            with.wait(200).event(heard(ip(8), priority, interval));
        }
        with.wait(200);
        without.wait(1000);
        let outcomes = [&mut with, &mut without].map(|b| b.event(heard(ip(9), 200, 1000)));
        assert_eq!(outcomes, ["backup 3609.375"; 2], "{second}");
    }
    // The Active dies, and the liar goes on.
    for wait in [300, 3000] {
        with.wait(wait).event(heard(ip(8), 1, 40_950));
        without.wait(wait);
    }
    for step in ["advert 100; (silent) active 62.5", "on 2437.5; announce 5 taken; active 937.5"] {
        assert_eq!([with.next(), without.next()], [step; 2]);
    }
}

#[test]
fn a_sender_that_never_yields_delays_a_take_over_by_one_lease_at_most() {
    let mut bench = Bench::backup(config());
    let begin = bench.now;
    let mut heralded = None;
    while bench.router.lease_until().is_none() {
        assert!(bench.now < begin + Duration::from_secs(10), "never activated");
        bench.event(heard(ip(8), 1, 40_950));
        bench.wait(100);
        if bench.router.next_deadline().is_some_and(|at| at <= bench.now) {
            bench.timeout();
        }
        if bench.router.state() == StateName::Active {
            heralded = heralded.or(Some(bench.now));
        }
    }
    let waited = bench.now - heralded.expect("Active");
    assert!(waited <= Duration::from_millis(3100), "{waited:?}");
}

#[test]
fn a_resigned_node_follows_a_lower_priority_until_its_time_is_over() {
    let mut bench = Bench::active(config());
    let outcome = bench.event(Event::Resign(Duration::from_secs(60)));
    assert_eq!(outcome, "off; advert 0; (resigned) backup 3609.375");
    for _ in 1..60 {
        bench.wait(1000);
        assert_eq!(bench.event(heard(ip(9), 50, 1000)), "backup 3609.375");
    }
    bench.wait(1000);
    assert_eq!(bench.event(heard(ip(9), 50, 1000)), "backup 2609.375", "no longer followed");
}

#[test]
fn a_resigned_node_takes_over_when_nobody_else_is_there() {
    let mut bench = Bench::active(config());
    bench.event(Event::Resign(Duration::MAX));
    assert_eq!(bench.next(), "advert 100; (silent) active 62.5");
    assert_eq!(bench.router.status().resigned_until, None);
}

#[test]
fn second_burst_refresh_and_their_minimum_distance() {
    let announce = AnnounceTimes { refresh: Some(Duration::from_secs(60)), ..Default::default() };
    let mut bench = Bench::active(Config { announce, ..config() });
    let start = bench.now;
    let mut bursts = Vec::new();
    while bench.now < start + Duration::from_secs(130) {
        let outcome = bench.next();
        if outcome.contains("announce") {
            bursts.push(((bench.now - start).as_secs(), outcome.contains("refresh")));
        }
    }
    assert_eq!(bursts, [(5, false), (65, true), (125, true)]);
    // Two at once: the second one waits a second.
    let outcome = bench.event(Event::Announce);
    assert!(outcome.contains("announce 5 requested"), "{outcome}");
    let outcome = bench.event(Event::Announce);
    assert!(!outcome.contains("announce"), "{outcome}");
}
