//! Two nodes with a sync group on two links, each node preferred on one of them, which decide at
//! nearly the same moment: one of them must come to own both.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::vrrp::{
    Action, AddressList, ChecksumStyle, Config, Event, Group, Heard, Router, StateName, Vrid,
};

use crate::seeds::rng::Rng;

const LINKS: usize = 2;
/// Simulated time per run.
const TIME: Duration = Duration::from_secs(120);

struct Advert {
    at: Duration,
    to: usize,
    link: usize,
    heard: Heard,
}

struct World {
    origin: Instant,
    now: Duration,
    rng: Rng,
    /// Longest one-way delay in ns, and whether all are as long.
    delay: u64,
    even: bool,
    nodes: [Group; 2],
    leases: [[Duration; LINKS]; 2],
    adverts: Vec<Advert>,
    takeovers: u32,
    served: Duration,
    two_owners: bool,
}

fn address(node: usize, link: usize) -> IpAddr {
    IpAddr::from([192, 0, u8::try_from(link).unwrap(), u8::try_from(node).unwrap() + 1])
}

/// Any instant will do.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
fn origin() -> Instant {
    Instant::now()
}

impl World {
    fn new(seed: u64, interval: Duration, delay: u64) -> Self {
        let group = |node: usize| {
            let router = |link: usize| {
                let mut config =
                    Config::new(Vrid::MIN, address(node, link), vec![[10, 0, 0, 1].into()]);
                config.priority = if node == link { 200 } else { 100 };
                config.interval = interval;
                Router::new(config).expect("valid configuration")
            };
            let seed = seed.wrapping_mul(2) + u64::try_from(node).unwrap();
            Group::new((0..LINKS).map(router).collect(), seed)
        };
        Self {
            origin: origin(),
            now: Duration::ZERO,
            rng: Rng::new(seed),
            delay,
            even: seed.is_multiple_of(2),
            nodes: [group(0), group(1)],
            leases: Default::default(),
            adverts: Vec::new(),
            takeovers: 0,
            served: Duration::ZERO,
            two_owners: false,
        }
    }

    fn run(&mut self) {
        for node in 0..2 {
            self.nodes[node].handle_all(Event::Start, self.origin);
            self.drain(node);
        }
        while self.now < TIME {
            let timers = self.nodes.iter().filter_map(Group::next_deadline);
            let timers = timers.map(|at| at.saturating_duration_since(self.origin));
            let packets = self.adverts.iter().map(|advert| advert.at);
            let leases = self.leases.iter().flatten().copied().filter(|end| *end > self.now);
            let next =
                timers.chain(packets).chain(leases).min().unwrap_or(TIME).clamp(self.now, TIME);
            self.pass(next);
            let now = self.origin + self.now;
            while let Some(due) = self.adverts.iter().position(|advert| advert.at <= self.now) {
                let advert = self.adverts.swap_remove(due);
                self.nodes[advert.to].handle(advert.link, Event::Heard(advert.heard), now);
                self.drain(advert.to);
            }
            for node in 0..2 {
                if self.nodes[node].next_deadline().is_some_and(|at| at <= now) {
                    self.nodes[node].handle_timeout(now);
                    self.drain(node);
                }
            }
        }
    }

    fn pass(&mut self, next: Duration) {
        let holds = |node: usize, link: usize| self.leases[node][link] > self.now;
        let owner = (0..2).find(|node| (0..LINKS).all(|link| holds(*node, link)));
        if owner.is_some() {
            self.served += next - self.now;
        }
        self.two_owners |= (0..LINKS).any(|link| holds(0, link) && holds(1, link));
        self.now = next;
    }

    fn drain(&mut self, node: usize) {
        let now = self.origin + self.now;
        while let Some((link, action)) = self.nodes[node].poll_action() {
            match action {
                Action::SendAdvert { priority } => {
                    let heard = Heard {
                        source: address(node, link),
                        priority,
                        interval: self.nodes[node].members()[link].config().interval,
                        checksum: ChecksumStyle::Plain,
                        list: AddressList::Same,
                    };
                    let shortest = if self.even { self.delay } else { 1 };
                    let at =
                        self.now + Duration::from_nanos(self.rng.range(shortest, self.delay + 1));
                    self.adverts.push(Advert { at, to: 1 - node, link, heard });
                    self.nodes[node].advert_sent(link, now, now, true);
                }
                Action::Activate { until } | Action::Renew { until } => {
                    self.leases[node][link] = until - self.origin;
                }
                Action::Deactivate => self.leases[node][link] = Duration::ZERO,
                Action::AnnounceBurst { .. } => {}
                Action::Transition { to, .. } => {
                    self.takeovers += u32::from(to == StateName::Active);
                }
            }
        }
    }
}

#[test]
fn crossed_priorities_do_not_keep_two_nodes_from_deciding() {
    let mut longest = 0;
    for seed in 0..600_u64 {
        let interval = Duration::from_millis([1000, 100, 10][usize::try_from(seed % 3).unwrap()]);
        // From nearly nothing to what a settling Active waits for at the shortest interval.
        let delay = [100, 10_000, 100_000, 500_000][usize::try_from(seed / 3 % 4).unwrap()];
        let mut world = World::new(seed, interval, delay);
        world.run();
        assert!(!world.two_owners, "seed {seed}");
        let served = world.served.as_secs_f64() / TIME.as_secs_f64();
        assert!(served > 0.75, "seed {seed}: served {:.0} %", served * 100.0);
        longest = longest.max(world.takeovers);
    }
    assert!(longest >= 4, "the first decision was never contested");
}
