//! Another configuration while a router runs: no transition, no second owner.
//!
//! A Backup waits as long as the last interval that it heard asks for. So an Active whose interval
//! becomes shorter first shortens its lease, then says so. One whose interval becomes longer says so
//! at once and keeps to the former rhythm and lease until `down_adverts` adverts are out: a Backup that
//! heard none of these is Active by then in any case.

use std::time::{Duration, Instant};

use super::action::Action;
use super::config::{ChecksumMode, Config, ConfigError};
use super::packet::ChecksumStyle;
use super::router::Router;
use super::state::State;
use super::timers;

/// An Active that advertises a longer interval than it keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Easing {
    /// The former interval.
    interval: Duration,
    /// Adverts that are to be sent before the new one is kept to.
    adverts: u8,
}

impl Router {
    /// Goes on with another configuration. The effective priority stays until
    /// [`Event::SetPriority`](super::Event::SetPriority).
    ///
    /// # Errors
    /// What [`Config::validate`] says, and [`ConfigError::Fixed`] where peers would not know it for the
    /// same router any more. Nothing changes then.
    pub fn reconfigure(&mut self, config: Config, now: Instant) -> Result<(), ConfigError> {
        config.validate()?;
        if let Some(key) = self.config.fixed_difference(&config) {
            return Err(ConfigError::Fixed(key));
        }
        self.lapse(now);
        let pace = self.pace();
        let (other_list, other_interval) =
            (self.config.vips != config.vips, self.config.interval != config.interval);
        if other_list || other_interval {
            self.rollout.replaced(&self.config, now);
        }
        if other_list {
            self.rollout.followed = self.followed();
        }
        if config.checksum != self.config.checksum {
            self.style = match config.checksum {
                ChecksumMode::Auto => ChecksumStyle::Plain,
                ChecksumMode::Fixed(style) => style,
            };
        }
        let other_delay = config.preempt_delay != self.config.preempt_delay;
        self.config = config;
        match &mut self.state {
            State::Initialize => self.active_interval = self.config.interval,
            State::Backup(backup) if other_delay => backup.preempt_at = None,
            State::Backup(_) => {}
            State::Active(_) => self.go_on_as_active(pace, other_list || other_interval, now),
        }
        Ok(())
    }

    /// What an Active advertises is different.
    fn go_on_as_active(&mut self, pace: Duration, advertise: bool, now: Instant) {
        let Config { interval, down_adverts, .. } = self.config;
        self.active_interval = interval;
        self.easing = (interval > pace).then_some(Easing { interval: pace, adverts: down_adverts });
        let lease = timers::lease(self.pace(), down_adverts);
        let State::Active(active) = &mut self.state else { return };
        if now + lease < active.lease_until {
            active.lease_until = now + lease;
            if active.activated {
                self.actions.push(Action::Renew { until: now + lease });
            }
        }
        if advertise {
            active.advert_at = now;
            self.advertise_if_due(now);
        }
        self.plan_activation(now);
    }

    /// How often an Active advertises, and what its lease is made of.
    pub(super) fn pace(&self) -> Duration {
        self.easing.map_or(self.config.interval, |easing| easing.interval)
    }

    /// An advert is out.
    pub(super) fn ease(&mut self) {
        self.easing = self.easing.and_then(|easing| {
            let adverts = easing.adverts.saturating_sub(1);
            (adverts > 0).then_some(Easing { adverts, ..easing })
        });
    }
}

impl Config {
    /// The first key in which a running router may not change: what peers know it by, and what they
    /// must have in common with it for its lease to be shorter than their patience.
    pub fn fixed_difference(&self, other: &Self) -> Option<&'static str> {
        let v2 = self.version == super::Version::V2;
        let differences = [
            (self.vrid != other.vrid, "vrid"),
            (self.version != other.version, "version"),
            (self.primary != other.primary, "source"),
            (self.auth_pass != other.auth_pass, "auth_pass"),
            (self.down_adverts != other.down_adverts, "down_adverts"),
            // RFC 3768 §7.1: a receiver discards another interval than its own.
            (v2 && self.interval != other.interval, "advert_interval"),
        ];
        differences.into_iter().find_map(|(differs, key)| differs.then_some(key))
    }
}
