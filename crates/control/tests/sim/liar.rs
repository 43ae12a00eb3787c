//! A station that advertises with the lowest priority and any interval, and never yields.

use std::time::Duration;

use control::vrrp::{Heard, Outgoing, StateName, Version, encode};

use super::node::{Node, address};
use super::{Broken, Due, SECOND, World};

/// When it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liar {
    /// Never.
    None,
    /// To a Backup, right behind adverts of the Active that it follows.
    BehindAdverts,
    /// To any node, at any time.
    AnyTime,
}

impl World {
    /// Perhaps lies to a node that has just heard a true advert.
    pub(super) fn lie(&mut self, at: usize, heard: &Heard) {
        let node = &self.nodes[at];
        let deaf = !node.config.peers.is_empty() || !node.is_up();
        if deaf || self.liar == Liar::None || !self.lies.chance(200) {
            return;
        }
        let status = node.router.status();
        let followed = status.state == StateName::Backup
            && (2..heard.priority).contains(&status.effective_priority);
        match self.liar {
            Liar::None => {}
            Liar::BehindAdverts if followed => self.say(at),
            Liar::BehindAdverts => {}
            Liar::AnyTime => {
                let delay = self.lies.range(0, 3 * SECOND);
                self.push(self.now + delay, Due::Lie(at));
            }
        }
    }

    /// A lie at a random time: a node that may follow a lower priority would have to follow it.
    pub(super) fn lie_now(&mut self, at: usize) {
        self.turn(at);
        let node = &self.nodes[at];
        let status = node.router.status();
        let preempts = node.config.preempt && node.config.preempt_delay.is_zero();
        let free = preempts && status.resigned_until.is_none() && status.effective_priority > 1;
        if node.is_up() && (free || status.state == StateName::Active) {
            self.say(at);
            self.arm(at);
        }
    }

    fn say(&mut self, at: usize) {
        self.stats.lies += 1;
        let before = Situation::of(&self.nodes[at]);
        let centis = self.lies.pick(&[1, 100, 4095]);
        let node = &mut self.nodes[at];
        let config = node.router.config().clone();
        let (source, destination) = (address(0, config.primary.is_ipv6()), config.group());
        let interval = match config.version {
            Version::V2 => config.interval,
            Version::V3 => Duration::from_millis(10) * centis,
        };
        let lie = Outgoing {
            version: config.version,
            vrid: config.vrid,
            priority: 1,
            interval,
            vips: &config.vips,
            checksum: node.router.status().checksum,
            source,
            destination,
            auth: None,
        };
        let mut bytes = [0; 64];
        let len = encode(&lie, &mut bytes).expect("fits");
        let (envelope, now) = (node.envelope(source), node.clock.local(self.now));
        let result = node.router.receive(&bytes[..len], &envelope, now);
        assert!(result.is_ok(), "{result:?}");
        self.log(at, || format!("is lied to, interval {interval:?}"));
        self.drain(at);
        let after = Situation::of(&self.nodes[at]);
        if after.state != before.state || after.lease < before.lease || after.next > before.next {
            let detail = format!("a liar: {before:?}, then {after:?}");
            self.break_promise(Broken::LiarMoved, detail);
        }
    }
}

/// What a liar must not make worse.
#[derive(Debug)]
struct Situation {
    state: StateName,
    lease: Option<std::time::Instant>,
    /// An Active answers at once, and may announce; no deadline comes later but those that are met.
    next: Option<std::time::Instant>,
}

impl Situation {
    fn of(node: &Node) -> Self {
        let status = node.router.status();
        let next = node.router.next_deadline().filter(|_| status.state == StateName::Backup);
        Self { state: status.state, lease: status.lease_until, next }
    }
}
