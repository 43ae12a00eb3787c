//! What the service manager learns of the node.

use std::time::Duration;

use control::BackendState;
use dataplane::Tick;

use super::{Node, due};

/// How often the state is put into words.
const STATUS_EVERY: Duration = Duration::from_secs(1);

impl Node {
    /// Called at each tick: from the first one on the loops run, which is what READY means. What is
    /// still waited for is a matter of the status, and of `/readyz`: a manager that waits would end a
    /// daemon that does.
    pub(super) fn tell_systemd(&mut self, now: Tick) {
        if !self.systemd.is_there() {
            return;
        }
        if due(&mut self.next.systemd, now, STATUS_EVERY) {
            let status = self.one_line_status();
            self.systemd.show(&status);
        }
        let workers = self.pool.iter().map(|(id, handle)| {
            let interface = self.devices.get(id.port.index());
            let interface = interface.map_or("", |device| &device.wanted.name);
            let name = format!("the worker of {interface}, queue {},", id.queue);
            (name, handle.shared.last_beat())
        });
        let vrrp =
            self.vrrp.iter().map(|vrrp| ("the VRRP thread".to_owned(), vrrp.thread.last_beat()));
        self.systemd.feed(workers.chain(vrrp), now);
    }

    /// What is waited for, or what is served.
    fn one_line_status(&self) -> String {
        let unready = self.unready();
        if !unready.is_empty() {
            let shown: Vec<String> = unready.iter().map(ToString::to_string).collect();
            return format!("waiting: {}", shown.join("; "));
        }
        let mut parts: Vec<String> = self
            .vrrp_status()
            .iter()
            .map(|instance| format!("{} {}", instance.name, instance.state.name().to_uppercase()))
            .collect();
        let services: Vec<_> = self.controller.services().collect();
        let backends = || services.iter().flat_map(|service| &service.backends);
        let up = backends().filter(|backend| backend.state == BackendState::Up).count();
        parts.push(format!("{up} of {} backends up", backends().count()));
        parts.join("; ")
    }
}
