//! Another configuration while the node runs: all of it or, with a mistake, nothing.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use api::request::{Confirmed, Reload, Reloaded};
use api::status;
use config::{Desired, Diagnostic, Parsed, SpanIndex};
use control::Event;
use control::reload::{Fixed, Plan, Setting};
use dataplane::Tick;
use tracing::{error, info, warn};

use super::Node;
use super::machine::Machine;
use crate::clock;
use crate::configuration::Loaded;

/// The configuration in force, and how it came to be.
#[derive(Debug)]
pub(super) struct Configurations {
    current: Loaded,
    /// What `undo` goes back to.
    previous: Option<Loaded>,
    since: Tick,
    /// When it is rolled back.
    rollback: Option<Tick>,
    reloads: u64,
    refused: u64,
    last_refused: bool,
}

/// The longest time for a confirmation.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Configurations {
    pub(super) fn new(current: Loaded, now: Tick) -> Self {
        Self {
            current,
            previous: None,
            since: now,
            rollback: None,
            reloads: 0,
            refused: 0,
            last_refused: false,
        }
    }

    pub(super) fn status(&self, now: Tick) -> status::Configuration {
        status::Configuration {
            hash: format!("{:016x}", self.current.hash),
            age_seconds: now.saturating_since(self.since).as_secs_f64(),
            reloads: self.reloads,
            refused: self.refused,
            last_refused: self.last_refused,
            rollback_seconds: self.rollback.map(|at| at.saturating_since(now).as_secs_f64()),
        }
    }

    /// As in the file.
    pub(super) fn desired(&self) -> &Desired {
        &self.current.parsed.desired
    }

    /// Makes `next` the current one.
    fn replace(&mut self, next: Loaded, now: Tick) {
        self.previous = Some(std::mem::replace(&mut self.current, next));
        self.since = now;
        self.rollback = None;
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
            // What waits for its confirmation is not what a further roll-back goes to.
            let waiting = self.configurations.rollback;
            let before = self.configurations.previous.take().filter(|_| waiting.is_some());
            self.take_over(loaded, &plan).await;
            if let Some(time) = reload.confirm_within_ms {
                let time = Duration::from_millis(time).min(LONGEST_WAIT);
                self.configurations.rollback = Some(clock::now() + time);
                self.configurations.previous =
                    before.or_else(|| self.configurations.previous.take());
            }
        }
        Ok(Reloaded { changes, applied, warnings })
    }

    /// Goes back to the configuration before the last one.
    pub(super) async fn undo(&mut self) -> Result<Reloaded, String> {
        let Some(previous) = self.configurations.previous.clone() else {
            return Err("error: there is no configuration before this one".to_owned());
        };
        self.reload(previous, Reload::default()).await
    }

    pub(super) fn confirm(&mut self) -> Confirmed {
        let confirmed = self.configurations.rollback.take().is_some();
        if confirmed {
            info!("the configuration is confirmed");
        }
        Confirmed { confirmed }
    }

    /// Goes back when no confirmation came in time.
    pub(super) async fn roll_back_if_due(&mut self, now: Tick) {
        if self.configurations.rollback.is_none_or(|at| at > now) {
            return;
        }
        self.configurations.rollback = None;
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
    async fn take_over(&mut self, loaded: Loaded, plan: &Plan) {
        let now = clock::now();
        for change in &plan.changes {
            info!("reload: {change}");
        }
        if plan.changes.is_empty() {
            info!("reload: nothing changes");
        }
        self.overrides.retain(&loaded.parsed.desired);
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
        if let Some(vrrp) = &mut self.vrrp {
            vrrp.reconfigure(self.controller.desired(), now);
        }
        self.configurations.replace(loaded, now);
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
            (spans.vrrp_setting(name, "name"), format!("VRRP instance {name}"))
        }
        Setting::Vrrp(name, key) => {
            (spans.vrrp_setting(name, key), format!("`{key}` of VRRP instance {name}"))
        }
        Setting::VrrpGone(name) => {
            (spans.file(), format!("the list of VRRP instances ({name} is missing)"))
        }
        Setting::MetricsListen => (spans.metrics_listen(), "`listen` of [metrics]".to_owned()),
        Setting::ControlSocket => (spans.control_socket(), "`socket` of [control]".to_owned()),
    };
    Diagnostic::error(&place, format!("{what} cannot change while the node runs: {why}"))
        .with_label("needs a restart")
        .with_help("write the former value, or restart: `systemctl restart pointsman`")
}
