//! What this router was configured with until lately: nodes get a new configuration one after the
//! other, and in between a peer has another list of addresses or another interval.
//!
//! An advert with another list is a foreign router's ([`Reject::Addresses`]). Two cases are not, as
//! long as one address is in both lists: the list was ours until an hour ago, so its sender has not
//! been reloaded yet; or the sender was accepted before, so it has been reloaded already. What
//! follows from each is in `election`. All others with a common address are discarded, but none of their
//! leases is overlapped: a node that was reloaded before one that never heard of it is such a sender.
//!
//! Limits: a node that *starts* with another list than the others' is a stranger to them, so all are to be
//! reloaded before one is restarted. A longer interval than ours is believed of listed peers only.
//!
//! [`Reject::Addresses`]: super::Reject::Addresses

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::config::Config;
use super::packet::Addresses;

/// How an advert's list of addresses compares with the configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AddressList {
    /// The same addresses.
    #[default]
    Same,
    /// What was configured here until lately: the sender has the former configuration and may discard
    /// adverts with ours.
    Former,
    /// Another one, of a sender that was accepted before.
    Other,
}

/// Configurations that were replaced while the router ran.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Rollout {
    former: [Option<Former>; PLACES],
    /// The Active that was followed when the list of addresses changed last: it may not know the new
    /// one.
    pub(super) followed: Option<IpAddr>,
    /// The Active that was followed last, and when its lease is over for certain: it may have a longer
    /// interval than this router.
    pub(super) lease: Option<(IpAddr, Instant)>,
    /// When the lease is over of a sender that was discarded although it has addresses of ours.
    pub(super) stranger_until: Option<Instant>,
}

/// What others may still be configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Former {
    vips: Vec<IpAddr>,
    interval: Duration,
    until: Instant,
}

const PLACES: usize = 4;
/// For how long a former configuration counts. The nodes of one virtual router are reloaded within it.
const LONGEST_ROLLOUT: Duration = Duration::from_secs(3600);

impl Rollout {
    /// `config` is replaced.
    pub(super) fn replaced(&mut self, config: &Config, now: Instant) {
        // `None` sorts first: a free place is taken before one is forgotten.
        let oldest = self.former.iter_mut().min_by_key(|place| place.as_ref().map(|f| f.until));
        if let Some(place) = oldest {
            *place = Some(Former {
                vips: config.vips.clone(),
                interval: config.interval,
                until: now + LONGEST_ROLLOUT,
            });
        }
    }

    /// Whether a list was the configured one until lately.
    pub(super) fn had(&self, list: &Addresses<'_>, now: Instant) -> bool {
        self.current(now).any(|former| list.same_as(&former.vips))
    }

    /// The longest interval that a peer may have, which has `interval` or a former one.
    pub(super) fn longest_interval(&self, interval: Duration, now: Instant) -> Duration {
        self.current(now).map(|former| former.interval).fold(interval, Duration::max)
    }

    fn current(&self, now: Instant) -> impl Iterator<Item = &Former> {
        self.former.iter().flatten().filter(move |former| now < former.until)
    }
}

/// Whether two lists have an address in common.
pub(super) fn overlaps(list: &Addresses<'_>, vips: &[IpAddr]) -> bool {
    vips.iter().any(|&vip| list.contains(vip))
}
