//! The control thread's half of health: verdicts become snapshots, links and handshakes become
//! reasons to look.

use std::sync::Arc;
use std::time::Duration;

use control::Event;
use control::health::unanswered;
use dataplane::Tick;
use futures_util::FutureExt;

use super::Node;
use crate::clock;
use crate::health::{Egress, Health, HealthChange};
use crate::worker::pool::seed;

/// So many verdicts at once make one snapshot: when a node starts, or loses a link, there are many.
const MOST_VERDICTS: usize = 1024;

/// How long after its link came up connections through it may go unanswered without blame.
const SETTLE: Duration = Duration::from_secs(1);

impl Node {
    /// Begins to check.
    pub(super) fn start_health(&mut self) {
        self.health = Some(Health::new(self.controller.desired(), seed(), clock::now()));
        self.tell_health_of_ways();
    }

    /// Publishes what changed, with everything else that did by now.
    pub(super) async fn on_verdict(&mut self, first: HealthChange) {
        let mut verdict = Some(first);
        let mut left = MOST_VERDICTS;
        while let Some(HealthChange { service, address, transition, .. }) = verdict {
            let event = Event::Health(service, address, transition);
            self.controller.handle(event, clock::now());
            left -= 1;
            let health = self.health.as_mut().filter(|_| left > 0);
            verdict = health.and_then(|health| health.next().now_or_never());
        }
        self.carry_out_all().await;
    }

    /// Called when links or networks changed.
    pub(super) fn tell_health_of_ways(&mut self) {
        let Some(health) = &mut self.health else { return };
        let now = clock::now();
        for service in self.controller.desired().services.iter() {
            for backend in &service.backends {
                let link = self.controller.link_towards(backend.address);
                let way =
                    link.map(|(name, ifindex)| Egress { interface: Arc::from(name), ifindex });
                health.set_egress(backend.address, way, now);
            }
        }
    }

    /// Where no backend is left, one that is only held down is better than none.
    pub(super) fn release_held(&mut self, now: Tick) {
        let Some(health) = &mut self.health else { return };
        for (service, address) in self.controller.unreferenced_addresses() {
            health.release(service, address, now);
        }
    }

    /// Looks for backends whose new connections go unanswered.
    pub(super) fn look_at_handshakes(&mut self, now: Tick) {
        let Some(health) = &mut self.health else { return };
        for (service, address, slot) in self.controller.checked() {
            let workers = || self.pool.iter().map(|(_, handle)| handle.counters.handshakes(slot));
            // Hardly any client waits for long: only then is it worth looking up since when it is up.
            if !unanswered(workers(), Tick::default(), now) {
                continue;
            }
            // A SYN that this node's own link lost says nothing of the backend.
            let Some(up_since) = self.controller.link_up_since(address) else { continue };
            let since = health.since(service, address).map(|s| s.max(up_since + SETTLE));
            if since.is_some_and(|since| unanswered(workers(), since, now)) {
                health.suspect(service, address, now);
            }
        }
    }
}

/// The next verdict; none for ever before checks have begun.
pub(super) async fn verdict(health: Option<&mut Health>) -> HealthChange {
    match health {
        Some(health) => health.next().await,
        None => std::future::pending().await,
    }
}
