//! Log lines and hooks for what the controller reports.

use control::{BackendChange, BackendState, Notify, Report, ServiceChange};
use tracing::{info, warn};

use super::Node;
use super::hooks::Rank;

impl Node {
    /// Tells of a change, and whom it may concern.
    pub(super) fn report(&mut self, report: &Report) {
        match report {
            Report::Backend(change) => self.report_backend(change),
            Report::Service(change) => self.report_service(change),
            Report::Drained { service, backend, .. } => info!(%service, %backend, "{report}"),
        }
    }

    fn report_backend(&mut self, change: &BackendChange) {
        let BackendChange { service, backend, from, to, why, .. } = change;
        let (from, to) = (from.name(), to.name());
        match change.to {
            BackendState::Down | BackendState::Suspected => {
                warn!(%service, %backend, from, to, "{change}");
            }
            BackendState::Up | BackendState::Checking | BackendState::Draining => {
                info!(%service, %backend, from, to, "{change}");
            }
        }
        // A suspicion is no news for people: whoever can send two SYNs can raise one.
        let decided = matches!(change.to, BackendState::Up | BackendState::Down);
        if let Some(notify) = self.notify_of(service).filter(|_| decided) {
            self.hooks.run(Rank::Second, &notify, &["backend", service, backend, to, why]);
        }
    }

    fn report_service(&mut self, change: &ServiceChange) {
        let ServiceChange { service, up, healthy, total, .. } = change;
        if *up {
            info!(%service, healthy, total, "{change}");
        } else {
            warn!(%service, healthy, total, "{change}");
        }
        if let Some(notify) = self.notify_of(service) {
            let words = ["service", service, if *up { "up" } else { "down" }];
            self.hooks.run(Rank::First, &notify, &words);
        }
    }

    fn notify_of(&self, service: &str) -> Option<Notify> {
        let services = &self.controller.desired().services;
        let service = services.iter().find(|wanted| wanted.name == *service)?;
        service.failure.notify.clone()
    }
}
