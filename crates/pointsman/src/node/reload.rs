//! Another configuration while the node runs: all of it or, with a mistake, nothing.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use api::request::{Confirmed, Reload, Reloaded};
use api::status;
use config::{Desired, Diagnostic, Parsed, SpanIndex};
use control::Event;
use control::reload::{Fixed, History, Plan, Setting};
use dataplane::Tick;
use tracing::{error, info, warn};

use super::Node;
use super::machine::Machine;
use crate::clock;
use crate::configuration::Loaded;

/// The configuration in force, and how it came to be.
#[derive(Debug)]
pub(super) struct Configurations {
    history: History<Loaded>,
    since: Tick,
    reloads: u64,
    refused: u64,
    last_refused: bool,
}

impl Configurations {
    pub(super) fn new(current: Loaded, now: Tick) -> Self {
        Self {
            history: History::new(current),
            since: now,
            reloads: 0,
            refused: 0,
            last_refused: false,
        }
    }

    pub(super) fn status(&self, now: Tick) -> status::Configuration {
        status::Configuration {
            hash: format!("{:016x}", self.history.current().hash),
            age_seconds: now.saturating_since(self.since).as_secs_f64(),
            reloads: self.reloads,
            refused: self.refused,
            last_refused: self.last_refused,
            rollback_seconds: self
                .history
                .rollback()
                .map(|at| at.saturating_since(now).as_secs_f64()),
        }
    }

    /// As in the file.
    pub(super) fn desired(&self) -> &Desired {
        &self.history.current().parsed.desired
    }

    /// Makes `next` the current one.
    fn replace(&mut self, next: Loaded, confirm_within: Option<Duration>, now: Tick) {
        self.history.replace(next, confirm_within, now);
        self.since = now;
        self.reloads += 1;
        self.last_refused = false;
    }
}

impl Node {
    /// Takes a configuration over.
    pub(super) async fn reload(
        &mut self,
        loaded: Loaded,
        reload: Reload,
    ) -> Result<Reloaded, String> {
        let warnings = loaded.parsed.warnings.render(false).trim_end().to_owned();
        let plan = match self.plan(&loaded.parsed).await {
            Ok(plan) => plan,
            Err(error) => {
                let text = format!("{error:#}");
                if !reload.dry_run {
                    self.refuse(&text);
                }
                return Err(text);
            }
        };
        let changes = plan.changes.iter().map(ToString::to_string).collect();
        let applied = !reload.dry_run;
        if applied {
            let confirm_within = reload.confirm_within_ms.map(Duration::from_millis);
            self.take_over(loaded, &plan, confirm_within).await;
        }
        Ok(Reloaded { changes, applied, warnings })
    }

    /// Goes back to the configuration before the last one.
    pub(super) async fn undo(&mut self) -> Result<Reloaded, String> {
        let Some(previous) = self.configurations.history.previous().cloned() else {
            return Err("error: there is no configuration before this one".to_owned());
        };
        self.reload(previous, Reload::default()).await
    }

    pub(super) fn confirm(&mut self) -> Confirmed {
        let confirmed = self.configurations.history.confirm();
        if confirmed {
            info!("the configuration is confirmed");
        }
        Confirmed { confirmed }
    }

    /// Goes back when no confirmation came in time.
    pub(super) async fn roll_back_if_due(&mut self, now: Tick) {
        if !self.configurations.history.roll_back_if_due(now) {
            return;
        }
        warn!("the configuration was not confirmed in time: going back to the one before");
        // Why it could not is in the log; there is nothing else to go back to.
        let _ = self.undo().await;
    }

    /// A configuration could not be taken over.
    pub(super) fn refuse(&mut self, why: &str) {
        self.configurations.refused += 1;
        self.configurations.last_refused = true;
        error!("the configuration was not taken over, the former one stays in force:\n{why}");
    }

    /// What a configuration would change.
    ///
    /// # Errors
    /// What this machine does not have, and what cannot change while the node runs, rendered.
    async fn plan(&mut self, parsed: &Parsed) -> Result<Plan> {
        let Parsed { desired, spans, .. } = parsed;
        let picture = self.netlink.picture().await.context("cannot read the network")?;
        let backends = desired.services.iter().flat_map(control::Service::hosts);
        let routes = self.netlink.on_link(backends.map(|backend| backend.address)).await?;
        let mut mistakes = Machine { picture: &picture, routes: &routes }.check(desired, spans);
        let plan = Plan::between(self.configurations.desired(), desired);
        mistakes.extend(plan.fixed.iter().map(|fixed| needs_restart(fixed, spans)));
        if mistakes.has_errors() {
            let (text, count) = (mistakes.render(false), mistakes.summary());
            return Err(anyhow!("{}\n{count}", text.trim_end()));
        }
        Ok(plan)
    }

    /// Nothing can go wrong any more.
    async fn take_over(&mut self, loaded: Loaded, plan: &Plan, confirm_within: Option<Duration>) {
        let now = clock::now();
        for change in &plan.changes {
            info!("reload: {change}");
        }
        if plan.changes.is_empty() {
            info!("reload: nothing changes");
        }
        self.overrides.retain(&loaded.parsed.desired);
        self.kept_overrides.save(&self.overrides, now);
        let desired = self.overrides.apply(&loaded.parsed.desired);
        self.controller.handle(Event::Desired(Box::new(desired)), now);
        match self.routes().await {
            Ok(routes) => self.controller.handle(Event::Routes(routes), now),
            // They are read again every few seconds.
            Err(error) => warn!(error = format!("{error:#}"), "cannot read the routes"),
        }
        self.carry_out_all().await;
        if let Some(health) = &mut self.health {
            health.reconfigure(self.controller.desired(), now);
        }
        self.tell_health_of_ways();
        self.reconfigure_vrrp(now);
        self.configurations.replace(loaded, confirm_within, now);
    }
}

fn needs_restart(fixed: &Fixed, spans: &SpanIndex) -> Diagnostic {
    let Fixed { setting, why } = fixed;
    let (place, what) = match setting {
        Setting::NodeName => (spans.node_name(), "`name` of [node]".to_owned()),
        Setting::Dataplane(key) => (spans.dataplane(key), format!("`{key}` of [dataplane]")),
        Setting::Interface(name, "name") => {
            (spans.interface(name), format!("the list of interfaces ({name})"))
        }
        Setting::Interface(name, key) => {
            (spans.interface_setting(name, key), format!("`{key}` of interface {name}"))
        }
        Setting::InterfaceGone(name) => {
            (spans.file(), format!("the list of interfaces ({name} is missing)"))
        }
        Setting::Vrrp(name, "name") => {
            (spans.vrrp_setting(name, "name"), format!("the VIPs of VRRP instance {name}"))
        }
        Setting::Vrrp(name, key) => {
            (spans.vrrp_setting(name, key), format!("`{key}` of VRRP instance {name}"))
        }
        Setting::MetricsListen => (spans.metrics_listen(), "`listen` of [metrics]".to_owned()),
        Setting::ControlSocket => (spans.control_socket(), "`socket` of [control]".to_owned()),
    };
    Diagnostic::error(&place, format!("{what} cannot change while the node runs: {why}"))
        .with_label("needs a restart")
        .with_help("write the former value, or restart: `systemctl restart pointsman`")
}
