//! Effective priority: the configured one, changed by the things that are tracked.
//!
//! Weights are keepalived's: a positive one is added while the thing is up, a negative one while it
//! is down. A thing without weight must be up: its failure releases the VIPs.

use std::fmt;

/// What kind of thing is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackKind {
    /// Up while its link is.
    Interface,
    /// Up while it has its quorum of backends.
    Service,
    /// Up while its dampened exit status says so.
    Script,
    /// Holds a number that is multiplied by the weight.
    File,
}

impl TrackKind {
    /// The metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Service => "service",
            Self::Script => "script",
            Self::File => "file",
        }
    }
}

/// What is known of a tracked thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing yet: changes nothing.
    Unknown,
    /// It works.
    Up,
    /// It does not.
    Down,
    /// A file's number.
    Value(i32),
}

/// One tracked thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Its kind.
    pub kind: TrackKind,
    /// Its name, for status output.
    pub name: String,
    /// -253–253, not 0. `None`: it must be up (a file: 0 or more).
    pub weight: Option<i16>,
    /// What is known of it.
    pub reading: Reading,
}

/// What one tracked thing does to the priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is added.
    Add(i32),
    /// The VIPs are released.
    Release,
}

impl Tracked {
    /// What it does now.
    pub fn effect(&self) -> Effect {
        let weight = self.weight.map(i32::from);
        match (self.reading, weight) {
            (Reading::Unknown, _) => Effect::Add(0),
            (Reading::Up, weight) => Effect::Add(weight.map_or(0, |w| w.max(0))),
            (Reading::Down, Some(weight)) => Effect::Add(weight.min(0)),
            (Reading::Value(value), Some(weight)) => {
                // keepalived: a file may force a release, whatever the configured priority.
                match value.saturating_mul(weight) {
                    ..=RELEASING_VALUE => Effect::Release,
                    add => Effect::Add(add),
                }
            }
            (Reading::Value(0..), None) => Effect::Add(0),
            (Reading::Down | Reading::Value(_), None) => Effect::Release,
        }
    }
}

/// All things that one instance tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracker {
    configured: u8,
    tracked: Vec<Tracked>,
}

impl Tracker {
    /// With the configured priority, 1–255.
    pub const fn new(configured: u8, tracked: Vec<Tracked>) -> Self {
        Self { configured, tracked }
    }

    /// Takes another configured priority, 1–255.
    pub const fn set_priority(&mut self, configured: u8) {
        self.configured = configured;
    }

    /// What is tracked, in the order of the indices.
    pub fn tracked(&self) -> &[Tracked] {
        &self.tracked
    }

    /// Takes a reading; returns the effective priority if it changed by it.
    pub fn read(&mut self, at: usize, reading: Reading) -> Option<u8> {
        let before = self.effective();
        self.tracked.get_mut(at)?.reading = reading;
        let after = self.effective();
        (after != before).then_some(after)
    }

    /// 1–254, 255 for an owner (whom weights do not touch), or 0: release.
    pub fn effective(&self) -> u8 {
        let mut sum = i32::from(self.configured);
        for tracked in &self.tracked {
            match tracked.effect() {
                Effect::Release => return 0,
                Effect::Add(add) => sum = sum.saturating_add(add),
            }
        }
        if self.configured == OWNER {
            return OWNER;
        }
        u8::try_from(sum.clamp(1, 254)).unwrap_or(1)
    }
}

impl fmt::Display for Tracker {
    /// `100 = 150 -50 (interface eth1 is down)`; only what changes something is named, so it may be
    /// `150, as configured`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tracked.iter().all(|tracked| tracked.effect() == Effect::Add(0)) {
            return write!(f, "{}, as configured", self.effective());
        }
        write!(f, "{} = {}", self.effective(), self.configured)?;
        for tracked in &self.tracked {
            match tracked.effect() {
                Effect::Add(0) => continue,
                Effect::Add(add) => write!(f, " {add:+}")?,
                Effect::Release => write!(f, " released")?,
            }
            write!(f, " ({} {} ", tracked.kind.name(), tracked.name)?;
            match tracked.reading {
                Reading::Unknown => write!(f, "is unknown)")?,
                Reading::Up => write!(f, "is up)")?,
                Reading::Down => write!(f, "is down)")?,
                Reading::Value(value) => write!(f, "holds {value})")?,
            }
        }
        Ok(())
    }
}

const OWNER: u8 = 255;
const RELEASING_VALUE: i32 = -254;

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(kind: TrackKind, weight: Option<i16>, reading: Reading) -> Tracked {
        Tracked { kind, name: "x".into(), weight, reading }
    }

    fn effective(configured: u8, weight: Option<i16>, reading: Reading) -> u8 {
        Tracker::new(configured, vec![thing(TrackKind::Script, weight, reading)]).effective()
    }

    #[test]
    fn weights_are_keepaliveds() {
        assert_eq!(effective(100, Some(20), Reading::Up), 120);
        assert_eq!(effective(100, Some(20), Reading::Down), 100);
        assert_eq!(effective(100, Some(-20), Reading::Up), 100);
        assert_eq!(effective(100, Some(-20), Reading::Down), 80);
        assert_eq!(effective(100, Some(-20), Reading::Unknown), 100);
        assert_eq!(effective(100, Some(2), Reading::Value(10)), 120);
    }

    #[test]
    fn without_weight_a_failure_releases() {
        assert_eq!(effective(100, None, Reading::Up), 100);
        assert_eq!(effective(100, None, Reading::Down), 0);
        assert_eq!(effective(255, None, Reading::Down), 0);
        assert_eq!(effective(100, None, Reading::Value(-1)), 0);
        assert_eq!(effective(100, Some(1), Reading::Value(-254)), 0);
        assert_eq!(effective(100, None, Reading::Unknown), 100);
    }

    #[test]
    fn the_sum_stays_between_1_and_254_and_an_owner_stays_owner() {
        assert_eq!(effective(250, Some(20), Reading::Up), 254);
        assert_eq!(effective(10, Some(-20), Reading::Down), 1);
        assert_eq!(effective(255, Some(-20), Reading::Down), 255);
        assert_eq!(effective(100, Some(253), Reading::Value(i32::MAX)), 254);
        assert_eq!(effective(100, Some(-253), Reading::Value(i32::MIN)), 254);
    }

    #[test]
    fn a_reading_reports_changes_only() {
        let eth1 = thing(TrackKind::Interface, Some(-50), Reading::Up);
        let web = thing(TrackKind::Service, None, Reading::Up);
        let mut tracker = Tracker::new(150, vec![eth1, web]);
        assert_eq!(tracker.read(0, Reading::Down), Some(100));
        assert_eq!(tracker.read(0, Reading::Down), None);
        assert_eq!(tracker.to_string(), "100 = 150 -50 (interface x is down)");
        assert_eq!(tracker.read(1, Reading::Down), Some(0));
        assert_eq!(
            tracker.to_string(),
            "0 = 150 -50 (interface x is down) released (service x is down)"
        );
        assert_eq!(tracker.read(1, Reading::Up), Some(100));
        assert_eq!(tracker.read(7, Reading::Up), None);
        assert_eq!(tracker.read(0, Reading::Up), Some(150));
        assert_eq!(tracker.to_string(), "150, as configured");
    }
}
