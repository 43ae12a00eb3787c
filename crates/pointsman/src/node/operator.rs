//! Backends drained, enabled and weighed by command.

use api::request::Changed;
use control::Event;
use control::operator::{Drain, Override};
use dataplane::Tick;
use tracing::info;

use super::Node;
use crate::clock;

impl Node {
    /// Changes the backends that `target` means; `None`: as in the file.
    ///
    /// # Errors
    /// There is no such backend or service.
    pub(super) async fn operate(
        &mut self,
        target: &str,
        change: Option<Override>,
    ) -> Result<Changed, String> {
        let file = self.configurations.desired();
        let backends = self.overrides.set(file, target, change);
        if backends.is_empty() {
            return Err(format!("there is no backend or service `{target}`"));
        }
        let what = match change {
            Some(Override::Drained(Drain { deadline: Some(_), .. })) => "drained, with a deadline",
            Some(Override::Drained(Drain { deadline: None, .. })) => "drained",
            Some(Override::Weight(_)) => "another weight",
            None => "as in the configuration",
        };
        for backend in &backends {
            info!("backend {backend}: {what}, by an operator");
        }
        self.apply_overrides().await;
        Ok(Changed { backends })
    }

    /// Resets the connections of drained backends whose deadline has come.
    pub(super) async fn end_drains(&mut self, now: Tick) {
        let ended = self.overrides.expire(now);
        if ended.is_empty() {
            return;
        }
        for backend in ended {
            info!("backend {backend}: the drain's deadline: its connections are reset");
        }
        self.apply_overrides().await;
    }

    async fn apply_overrides(&mut self) {
        let now = clock::now();
        self.kept_overrides.save(&self.overrides, now);
        let desired = self.overrides.apply(self.configurations.desired());
        self.controller.handle(Event::Desired(Box::new(desired)), now);
        self.carry_out_all().await;
    }
}
