//! Backends drained, enabled and weighed by command.

use api::request::Changed;
use control::Event;
use control::operator::Override;
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
            Some(Override::Drained) => "drained".to_owned(),
            Some(Override::Weight(weight)) => format!("weight {weight}"),
            None => "as in the configuration".to_owned(),
        };
        for backend in &backends {
            info!("backend {backend}: {what}, by an operator");
        }
        let desired = self.overrides.apply(file);
        self.controller.handle(Event::Desired(Box::new(desired)), clock::now());
        self.carry_out_all().await;
        Ok(Changed { backends })
    }
}
