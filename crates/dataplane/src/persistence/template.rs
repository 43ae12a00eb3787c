//! One template and the rules of its life.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::addr::Addr;
use crate::slots::{BackendSlot, ServiceSlot};
use crate::tick::Tick;

/// What a template is for: a source prefix of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateKey {
    /// The service, or the [group](crate::Group) of services.
    pub service: ServiceSlot,
    /// The client's address with all but the service's persistence prefix cleared.
    pub source: Addr,
}

impl TemplateKey {
    /// The key of a client; `prefix_len` counts from the 128-bit form (an IPv4 /24 is 120).
    pub const fn new(service: ServiceSlot, client: Addr, prefix_len: u8) -> Self {
        Self { service, source: client.masked(prefix_len) }
    }
}

/// Tells a template from earlier and later ones of the same key; unique in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(NonZeroU32);

impl Epoch {
    pub(crate) const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, for dumps.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

/// A template as its member flows name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateRef {
    /// What it is for.
    pub key: TemplateKey,
    /// Which of that key.
    pub epoch: Epoch,
}

/// What a returning client is to know of its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Where the source goes.
    pub backend: BackendSlot,
    /// Which template of that key.
    pub epoch: Epoch,
}

/// What became of a completed handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// There was no template: the flow is the first member of this one.
    Created(Epoch),
    /// The flow is one more member, and the timeout begins anew.
    Refreshed(Epoch),
    /// The template named another backend: the flow is the first member of a new one.
    Replaced(Epoch),
    /// The template names another backend and stays as it is: the flow is a member of none.
    Kept(Template),
    /// The table is full: the flow is a member of none.
    Full,
}

impl Joined {
    /// The epoch that the flow is a member of.
    pub const fn epoch(self) -> Option<Epoch> {
        match self {
            Self::Created(epoch) | Self::Refreshed(epoch) | Self::Replaced(epoch) => Some(epoch),
            Self::Kept(_) | Self::Full => None,
        }
    }
}

/// A template in a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateEntry {
    /// What it is for.
    pub key: TemplateKey,
    /// Where the source goes.
    pub backend: BackendSlot,
    /// Which template of that key.
    pub epoch: Epoch,
    /// Member flows that live: while there are any, the template does not expire.
    pub live_flows: u32,
    /// When it expires if no member lives and nothing refreshes it.
    pub deadline: Tick,
}

/// A template at rest.
///
/// It is refreshed by a handshake, by a member's end and by the packets that trail it. It is there
/// while a member lives, and for `timeout` after the last of these.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// The last refresh, the one thing that makes the deadline together with `timeout_ms`.
    refreshed: Tick,
    timeout_ms: u32,
    epoch: Epoch,
    live: u32,
    pub(super) backend: BackendSlot,
}

impl Record {
    /// The template of a first member.
    pub(super) fn new(backend: BackendSlot, epoch: Epoch, timeout: Duration, now: Tick) -> Self {
        Self { refreshed: now, timeout_ms: millis(timeout), epoch, live: 1, backend }
    }

    pub(super) fn is_expired(&self, now: Tick) -> bool {
        self.live == 0 && now >= self.deadline()
    }

    /// A member more, by a handshake at `now`; the timeout may be another one from now on.
    pub(super) fn refresh(&mut self, timeout: Duration, now: Tick) -> Epoch {
        self.timeout_ms = millis(timeout);
        self.attach();
        self.touch(now);
        self.epoch
    }

    /// A member more that is no new connection.
    pub(super) const fn attach(&mut self) -> Epoch {
        self.live = self.live.saturating_add(1);
        self.epoch
    }

    /// A member less, at `at`, which may be past.
    pub(super) fn end(&mut self, at: Tick) {
        self.live = self.live.saturating_sub(1);
        self.touch(at);
    }

    pub(super) fn touch(&mut self, at: Tick) {
        self.refreshed = self.refreshed.max(at);
    }

    pub(super) fn is(&self, epoch: Epoch) -> bool {
        self.epoch == epoch
    }

    pub(super) const fn template(&self) -> Template {
        Template { backend: self.backend, epoch: self.epoch }
    }

    pub(super) fn entry(&self, key: TemplateKey) -> TemplateEntry {
        TemplateEntry {
            key,
            backend: self.backend,
            epoch: self.epoch,
            live_flows: self.live,
            deadline: self.deadline(),
        }
    }

    fn deadline(&self) -> Tick {
        self.refreshed + Duration::from_millis(u64::from(self.timeout_ms))
    }
}

/// Longer than 49 days is as good as 49 days.
fn millis(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)
}

const _: () = assert!(size_of::<Record>() == 24);
