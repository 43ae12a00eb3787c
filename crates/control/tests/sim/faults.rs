//! What goes wrong, and when.

use std::time::Duration;

use control::vrrp::Event;

use super::link::Weather;
use super::node::{Condition, Setup};
use super::{Due, MS, SECOND, Sabotage, World};

/// What kind of bad luck a run has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Nodes crash, freeze, fail and are commanded; the network delivers in order within 10 ms.
    HonestNetwork,
    /// All that in a network that loses, delays, duplicates, reorders and partitions; then calm.
    Storms,
}

impl World {
    pub(super) fn fault(&mut self) {
        self.stats.faults += 1;
        let pause = match self.profile {
            Profile::HonestNetwork => {
                self.strike();
                // Often a second fault hits before the first one is over.
                if self.rng.chance(300) { 500 * MS } else { 40 * SECOND }
            }
            Profile::Storms => self.weather_change(),
        };
        let delay = self.rng.range(pause / 10, pause);
        self.at(self.now + delay, Due::Fault);
    }

    /// Storms of about half a minute, then calm for as long.
    fn weather_change(&mut self) -> u64 {
        let calm = self.weather == Weather::FAIR;
        if calm {
            self.troubles += 1;
            self.weather = Weather::foul(&mut self.rng);
            return 5 * SECOND;
        }
        if self.rng.chance(850) {
            self.weather = Weather::foul(&mut self.rng);
            self.strike();
            return 5 * SECOND;
        }
        self.weather = Weather::FAIR;
        self.troubles -= 1;
        self.quiet_since = self.now;
        60 * SECOND
    }

    /// One fault to one node.
    fn strike(&mut self) {
        let at = self.rng.index(self.nodes.len());
        match self.rng.range(0, 9) {
            8 => self.roll_out(),
            0 => self.crash(at),
            1 | 2 => {
                let length = self.rng.range(50 * MS, 10 * SECOND);
                self.freeze(at, length);
            }
            3 => {
                let length = self.rng.range(50 * MS, 10 * SECOND);
                if self.nodes[at].is_up() {
                    self.nodes[at].freeze_in_next_send = Some(length);
                }
            }
            4 => self.disable(at),
            5 => self.fail_sends(at),
            6 => self.command(at),
            _ => self.crash_the_active(),
        }
    }

    /// Another configuration, for one node after the other.
    fn roll_out(&mut self) {
        if !self.unreloaded.is_empty() {
            return;
        }
        self.setup = Setup::any(&mut self.rng);
        self.unreloaded = (0..self.nodes.len()).collect();
        for at in 0..self.nodes.len() {
            let delay = self.rng.range(0, 20 * SECOND);
            self.trouble(delay, Due::Reload(at));
        }
    }

    fn crash(&mut self, at: usize) {
        if self.nodes[at].condition != Condition::Down {
            self.log(at, || "crashes".into());
            self.nodes[at].crash();
            let away = self.rng.range(50 * MS, 20 * SECOND);
            self.trouble(away, Due::Start(at));
        }
    }

    fn crash_the_active(&mut self) {
        let active = self.nodes.iter().position(super::node::Node::is_active);
        if let Some(at) = active {
            self.crash(at);
        }
    }

    pub(super) fn freeze(&mut self, at: usize, length: u64) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.is_up() {
            node.condition = Condition::Frozen;
            node.wake = u64::MAX;
            node.armed = None;
            if self.sabotage == Sabotage::StoppedClock && node.holds_lease(now) {
                node.lease_end += length;
            }
            self.log(at, || format!("freezes for {} ms", length / MS));
            self.trouble(length, Due::Thaw(at));
        }
    }

    /// Its workers stop; the driver notices within 0.75 s.
    fn disable(&mut self, at: usize) {
        if self.nodes[at].unable_since.is_none() {
            self.log(at, || "cannot forward".into());
            self.nodes[at].unable_since = Some(self.now);
            let noticed = self.rng.range(0, 750 * MS);
            self.trouble(noticed, Due::TellUnable(at));
            let recovered = noticed + self.rng.range(MS, 20 * SECOND);
            self.trouble(recovered, Due::Able(at));
        }
    }

    fn fail_sends(&mut self, at: usize) {
        if !self.nodes[at].sends_fail {
            self.log(at, || "cannot send".into());
            self.nodes[at].sends_fail = true;
            let length = self.rng.range(500 * MS, 8 * SECOND);
            self.trouble(length, Due::SendsWork(at));
        }
    }

    fn command(&mut self, at: usize) {
        if !self.nodes[at].is_up() {
            return;
        }
        let event = match self.rng.range(0, 4) {
            0 => Event::Resign(Duration::from_secs(self.rng.range(0, 30))),
            1 => Event::SetPriority(self.rng.pick(&[1, 60, 100, 101, 180, 254])),
            2 => Event::SetPriority(self.nodes[at].config.priority),
            _ => Event::Announce,
        };
        self.quiet_since = self.now;
        self.tell(at, event);
    }
}
