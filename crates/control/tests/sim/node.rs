//! One node: a router, its clock, its lease, and what has befallen it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::vrrp::{Config, Envelope, Event, Handover, Router, StateName, Version, Vrid};

use super::clock::Clock;
use super::rng::Rng;
use super::{MAX_NODES, Sabotage};

/// A message on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packet {
    pub(crate) from: usize,
    pub(crate) len: usize,
    pub(crate) bytes: [u8; LONGEST_MESSAGE],
    pub(crate) setup: Setup,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Up,
    /// Not scheduled; packets wait in its socket.
    Frozen,
    /// Gone, with its lease.
    Down,
}

pub(crate) struct Node {
    pub(crate) router: Router,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) condition: Condition,
    pub(crate) inbox: VecDeque<Packet>,
    /// When the driver wakes next, in real time.
    pub(crate) wake: u64,
    /// Deadline that `wake` is for.
    pub(crate) armed: Option<Instant>,
    /// Real time; the VIPs are active here until then.
    pub(crate) lease_end: u64,
    /// Frozen between reading the clock and sending.
    pub(crate) in_send: Option<(Instant, u8)>,
    pub(crate) freeze_in_next_send: Option<u64>,
    pub(crate) sends_fail: bool,
    /// Since when it cannot forward although its driver ran.
    pub(crate) unable_since: Option<u64>,
    /// It takes the configuration in its file over when it runs again.
    pub(crate) reload_waits: bool,
    /// What it runs with.
    pub(crate) setup: Setup,
    file: Setup,
}

impl Node {
    pub(crate) fn new(config: Config, clock: Clock) -> Self {
        Self {
            router: Router::new(config.clone()).expect("valid configuration"),
            config,
            clock,
            condition: Condition::Down,
            inbox: VecDeque::with_capacity(SOCKET_BUFFER),
            wake: u64::MAX,
            armed: None,
            lease_end: 0,
            in_send: None,
            freeze_in_next_send: None,
            sends_fail: false,
            unable_since: None,
            reload_waits: false,
            setup: Setup::FIRST,
            file: Setup::FIRST,
        }
    }

    pub(crate) fn crash(&mut self) {
        self.condition = Condition::Down;
        self.inbox.clear();
        self.wake = u64::MAX;
        self.armed = None;
        self.lease_end = 0;
        self.in_send = None;
        self.freeze_in_next_send = None;
        self.reload_waits = false;
        self.setup = self.file;
        self.router = Router::new(self.config.clone()).expect("valid configuration");
    }

    /// Takes the configuration over, or will when it can.
    pub(crate) fn reload(&mut self, setup: &Setup, now: u64) {
        self.config = setup.apply(&self.config);
        self.file = *setup;
        match self.condition {
            Condition::Up => self.take_over(now),
            Condition::Frozen => self.reload_waits = true,
            Condition::Down => {
                self.setup = self.file;
                self.router = Router::new(self.config.clone()).expect("valid configuration");
            }
        }
    }

    pub(crate) fn take_over(&mut self, now: u64) {
        self.reload_waits = false;
        self.setup = self.file;
        let now = self.clock.local(now);
        self.router.reconfigure(self.config.clone(), now).expect("valid configuration");
    }

    pub(crate) fn is_up(&self) -> bool {
        self.condition == Condition::Up
    }

    /// Running, and able to be Active.
    pub(crate) fn is_healthy(&self) -> bool {
        self.is_up() && self.unable_since.is_none()
    }

    pub(crate) fn is_active(&self) -> bool {
        self.is_up() && self.router.state() == StateName::Active
    }

    pub(crate) fn holds_lease(&self, now: u64) -> bool {
        self.lease_end > now
    }

    /// Into the socket's buffer, which is not endless.
    pub(crate) fn enqueue(&mut self, packet: Packet) {
        if self.condition != Condition::Down && self.inbox.len() < SOCKET_BUFFER {
            self.inbox.push_back(packet);
        }
    }

    pub(crate) fn handle(&mut self, event: Event, now: u64) {
        self.router.handle(event, self.clock.local(now));
    }

    pub(crate) fn envelope(&self, source: IpAddr) -> Envelope {
        Envelope { source, destination: self.config.group(), ttl: 255 }
    }
}

/// What changes during a run, on one node after the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Setup {
    /// Bits of a set of addresses.
    addresses: u8,
    interval: Duration,
}

impl Setup {
    pub(crate) const FIRST: Self = Self { addresses: 1, interval: Duration::from_secs(1) };

    /// Any other; the first address is in all lists.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        let addresses = rng.pick(&[1, 3, 5, 7]);
        Self { addresses, interval: Duration::from_millis(rng.pick(&[250, 500, 1000, 1000])) }
    }

    fn apply(self, config: &Config) -> Config {
        let v6 = config.primary.is_ipv6();
        let vips = (0..3).filter(|bit| self.addresses >> bit & 1 == 1);
        let vips = vips.map(|bit| address(100 + bit, v6)).collect();
        // A longer interval is believed of listed peers only.
        let fixed = config.version == Version::V2 || config.peers.is_empty();
        let interval = if fixed { config.interval } else { self.interval };
        Config { vips, interval, ..config.clone() }
    }
}

/// Two or three nodes that may be configured in any sensible way, with clocks within 5 %.
pub(crate) fn fleet(origin: Instant, rng: &mut Rng, sabotage: Sabotage) -> Vec<Node> {
    let count = 2 + rng.index(MAX_NODES - 1);
    let v6 = rng.chance(200);
    let version = if !v6 && rng.chance(200) { Version::V2 } else { Version::V3 };
    let preempt = rng.chance(700);
    let preempt_delay = Duration::from_secs(rng.pick(&[0, 0, 0, 5]));
    let addresses: Vec<IpAddr> = (1..=3).take(count).map(|last| address(last, v6)).collect();
    // Without a list any sender on the link is heard.
    let listed = rng.chance(500);
    let hasty = sabotage == Sabotage::HastyHandover;
    let handover = if hasty { Handover::AtOnce } else { Handover::Lease };
    let mut nodes = Vec::new();
    for &own in &addresses {
        let peers = addresses.iter().copied().filter(|&peer| listed && peer != own).collect();
        let config = Config {
            version,
            priority: rng.pick(&[50, 100, 100, 150, 200, 254]),
            preempt,
            preempt_delay,
            peers,
            handover,
            ..Config::new(Vrid::MIN, own, vec![address(100, v6)])
        };
        let drift = rng.range(0, 100_001).cast_signed() - 50_000;
        let clock = Clock::new(origin, rng.range(0, 1_000_000_000_000), drift);
        nodes.push(Node::new(config, clock));
    }
    nodes
}

pub(crate) fn address(last: u8, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, u16::from(last)])
    } else {
        IpAddr::from([192, 0, 2, last])
    }
}

const SOCKET_BUFFER: usize = 64;
/// Three IPv6 addresses.
pub(crate) const LONGEST_MESSAGE: usize = 56;
