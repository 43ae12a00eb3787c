//! Log lines and hooks for what the controller reports.

use control::{BackendChange, BackendState, Notify, Report, ServiceChange};
use tracing::{info, warn};

use super::Node;
use super::hooks::Rank;
use crate::process::Variable;

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
            BackendState::Up
            | BackendState::Resolving
            | BackendState::Checking
            | BackendState::Draining => {
                info!(%service, %backend, from, to, "{change}");
            }
        }
        // A suspicion is no news for people: any host that can send two SYNs can raise one.
        let decided = matches!(change.to, BackendState::Up | BackendState::Down);
        if let Some((notify, mut environment)) = self.notify_of(service, to).filter(|_| decided) {
            environment.extend([
                ("POINTSMAN_EVENT", "backend".to_owned()),
                ("POINTSMAN_BACKEND", backend.clone()),
                ("POINTSMAN_ADDRESS", self.address_of(service, backend)),
                ("POINTSMAN_REASON", why.clone()),
            ]);
            let words = ["backend", service, backend, to, why];
            self.hooks.run(Rank::Second, &notify, &words, environment);
        }
    }

    fn report_service(&mut self, change: &ServiceChange) {
        let ServiceChange { service, up, healthy, total, .. } = change;
        if *up {
            info!(%service, healthy, total, "{change}");
        } else {
            warn!(%service, healthy, total, "{change}");
        }
        let state = if *up { "up" } else { "down" };
        if let Some((notify, mut environment)) = self.notify_of(service, state) {
            environment.push(("POINTSMAN_EVENT", "service".to_owned()));
            self.hooks.run(Rank::First, &notify, &["service", service, state], environment);
        }
    }

    /// The hook of a service, and the environment that all of its hooks share.
    fn notify_of(&self, service: &str, state: &str) -> Option<(Notify, Vec<Variable>)> {
        let service = self.wanted(service)?;
        let environment = vec![
            ("POINTSMAN_SERVICE", service.name.clone()),
            ("POINTSMAN_VIP", service.vip.to_string()),
            ("POINTSMAN_STATE", state.to_owned()),
        ];
        Some((service.failure.notify.clone()?, environment))
    }

    /// Empty for a backend that the configuration does not name any more.
    fn address_of(&self, service: &str, backend: &str) -> String {
        let service = self.wanted(service);
        let host = service.and_then(|wanted| wanted.hosts().find(|host| host.name == backend));
        host.map(|host| host.address.to_string()).unwrap_or_default()
    }

    fn wanted(&self, service: &str) -> Option<&control::Service> {
        self.controller.desired().services.iter().find(|wanted| wanted.name == service)
    }
}
