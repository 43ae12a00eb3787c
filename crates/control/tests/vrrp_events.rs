//! Any events in any order: the machine never panics, never spins, and keeps its contract.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::vrrp::{
    Action, AddressList, Block, ChecksumStyle, Config, Event, Heard, Router, StateName, Version,
    Vrid,
};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(Duration),
    NextDeadline,
    Event(Event),
    SendsFail(bool),
    SendsTake(Duration),
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn any_event() -> impl Strategy<Value = Event> {
    let heard = (1..8u8, prop::sample::select(vec![0, 1, 99, 100, 101, 200, 255]), 1..=4095u32)
        .prop_filter("own address", |heard| heard.0 != 5)
        .prop_map(|(source, priority, centis)| {
            let interval = Duration::from_millis(10) * centis;
            let checksum = ChecksumStyle::Plain;
            Event::Heard(Heard {
                source: ip(source),
                priority,
                interval,
                checksum,
                list: AddressList::Same,
            })
        });
    prop_oneof![
        6 => heard,
        2 => Just(Event::Start),
        1 => Just(Event::Shutdown),
        1 => any::<u8>().prop_map(Event::SetPriority),
        1 => prop::sample::select(Block::ALL.to_vec()).prop_map(|b| Event::SetForwarding(Some(b))),
        2 => Just(Event::SetForwarding(None)),
        1 => any::<u64>().prop_map(|s| Event::Resign(Duration::from_secs(s))),
        1 => Just(Event::Announce),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..8000u64).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        6 => Just(Step::NextDeadline),
        6 => any_event().prop_map(Step::Event),
        1 => any::<bool>().prop_map(Step::SendsFail),
        1 => (0..4000u64).prop_map(|ms| Step::SendsTake(Duration::from_millis(ms))),
    ]
}

/// What the driver knows, checked against what the router says.
struct Driver {
    router: Router,
    now: Instant,
    sends_fail: bool,
    sends_take: Duration,
    lease: Option<Instant>,
    state: StateName,
}

impl Driver {
    fn drain(&mut self) {
        let mut actions = 0;
        while let Some(action) = self.router.poll_action() {
            actions += 1;
            assert!(actions <= 16, "no end of actions");
            match action {
                Action::SendAdvert { priority } => {
                    let allowed = self.router.status().effective_priority;
                    assert!(priority == 0 || priority == allowed, "{priority}, not {allowed}");
                    let t = self.now;
                    self.now += std::mem::take(&mut self.sends_take);
                    self.router.advert_sent(t, self.now, !self.sends_fail);
                }
                Action::Activate { until } => {
                    assert_eq!(self.lease, None, "active already");
                    self.lease = Some(until);
                }
                Action::Renew { until } => {
                    assert!(self.lease.is_some_and(|lease| lease <= until), "{:?}", self.lease);
                    self.lease = Some(until);
                }
                Action::Deactivate => assert!(self.lease.take().is_some(), "not active"),
                Action::AnnounceBurst { .. } => assert!(self.lease.is_some(), "not active"),
                Action::Transition { from, to, .. } => {
                    assert_eq!(from, self.state);
                    assert_ne!(from, to);
                    self.state = to;
                }
            }
        }
        assert_eq!(self.router.lease_until(), self.lease);
        assert_eq!(self.router.state(), self.state);
        assert!(self.lease.is_none() || self.state == StateName::Active);
        let able = self.router.status().effective_priority != 0;
        assert!(able || self.state == StateName::Initialize);
    }

    fn timeout(&mut self) {
        self.router.handle_timeout(self.now);
        self.drain();
        let next = self.router.next_deadline();
        // A send may take so long that the next thing is due already; the turn after is not.
        if next.is_some_and(|next| next <= self.now) {
            self.router.handle_timeout(self.now);
            self.drain();
            assert!(self.router.next_deadline().is_none_or(|next| next > self.now), "spins");
        }
    }
}

/// Any instant will do.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
fn origin() -> Instant {
    Instant::now()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_events_in_any_order(
        steps in prop::collection::vec(any_step(), 1..120),
        priority in prop::sample::select(vec![1u8, 100, 254, 255]),
        preempt in any::<bool>(),
        preempt_delay in 0..5u64,
        version in prop::sample::select(vec![Version::V2, Version::V3]),
    ) {
        let preempt_delay = Duration::from_secs(preempt_delay);
        let config = Config::new(Vrid::MIN, ip(5), vec![ip(100)]);
        let config = Config { priority, preempt, preempt_delay, version, ..config };
        let mut driver = Driver {
            router: Router::new(config).unwrap(),
            now: origin(),
            sends_fail: false,
            sends_take: Duration::ZERO,
            lease: None,
            state: StateName::Initialize,
        };
        for step in steps {
            match step {
                Step::Wait(time) => {
                    driver.now += time;
                    driver.timeout();
                }
                Step::NextDeadline => {
                    if let Some(next) = driver.router.next_deadline() {
                        driver.now = driver.now.max(next);
                        driver.timeout();
                    }
                }
                Step::Event(event) => {
                    driver.router.handle(event, driver.now);
                    driver.drain();
                }
                Step::SendsFail(fail) => driver.sends_fail = fail,
                Step::SendsTake(time) => driver.sends_take = time,
            }
        }
    }
}
