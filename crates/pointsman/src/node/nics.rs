//! Cards that do not do what they said: the program sees nothing of what they receive, or frames
//! come in on queues without a socket. What follows is decided by [`control::nic`].

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use control::nic::{Fallbacks, ReceiveAction, ReceiveMode, ReceiveReading};
use control::{XdpMode, ZeroCopy};
use dataplane::Tick;
use steer::{Attached, AttachedMode, Counters, Outcome};
use tracing::{error, info, warn};

use super::Node;
use super::devices::Device;

impl Node {
    /// Compares what the cards receive with what the programs see.
    pub(super) fn look_at_nics(&mut self, now: Tick) {
        let table = fs::read_to_string(COUNTERS).unwrap_or_default();
        for index in 0..self.devices.len() {
            let device = &self.devices[index];
            let counters = device.attached.as_ref().map(Attached::counters);
            let (Some(link), Some(Ok(counters))) = (device.link, counters) else { continue };
            let Some(received) = received(&table, &device.wanted.name) else { continue };
            let reading = ReceiveReading {
                serving: link.up && device.bound.len() == device.queues_wanted().len(),
                mode: self.receive_mode(device),
                received,
                since_attach: received.saturating_sub(device.received_before),
                seen: counters.total(),
            };
            self.follow_nic(index, now, reading, &counters);
        }
    }

    /// To be called when the program was attached.
    pub(super) fn note_received(&mut self, index: usize) {
        let table = fs::read_to_string(COUNTERS).unwrap_or_default();
        let device = &mut self.devices[index];
        device.received_before = received(&table, &device.wanted.name).unwrap_or(0);
    }

    fn follow_nic(
        &mut self,
        index: usize,
        now: Tick,
        reading: ReceiveReading,
        counters: &Counters,
    ) {
        let device = &mut self.devices[index];
        device.unbound.look(now, counters[Outcome::Unbound]);
        let action = device.receive.look(now, reading, fallbacks(device));
        let (name, mode) = (device.wanted.name.clone(), reading.mode.name());
        match action {
            Some(ReceiveAction::FallBack(to)) => {
                warn!(interface = %name, from = mode, to = to.name(),
                    "the card receives frames and the XDP program sees none: changing the mode");
                self.fall_back(index, to);
            }
            Some(ReceiveAction::Reattach) => {
                warn!(interface = %name, mode,
                    "the card receives frames and the XDP program sees none: attaching it anew");
                self.devices[index].fallbacks += 1;
                self.attach_anew(index);
            }
            Some(ReceiveAction::Blind) => error!(interface = %name, mode,
                "the card receives frames and the XDP program sees none, and there is no other mode \
                 to try: this node cannot be Active here. Update kernel or driver, or set the link \
                 down and up; see also `mode` and `zero_copy` of the interface"),
            Some(ReceiveAction::Seeing) => {
                info!(interface = %name, mode, "the XDP program sees frames again");
            }
            None => {}
        }
        let device = &self.devices[index];
        for (_, handle) in self.pool.iter().filter(|(id, _)| id.port == device.id) {
            handle.shared.blind.store(device.receive.is_blind(), Relaxed);
        }
    }

    fn fall_back(&mut self, index: usize, mode: ReceiveMode) {
        let device = &mut self.devices[index];
        device.fallbacks += 1;
        device.slowest = Some(mode);
        if mode == ReceiveMode::Generic {
            self.attach_anew(index);
        } else {
            self.reopen(index, None);
        }
    }

    fn attach_anew(&mut self, index: usize) {
        if let Err(error) = self.take_device(index) {
            self.devices[index].link = None;
            self.devices[index].refused = Some(format!("{error:#}"));
        }
    }

    fn receive_mode(&self, device: &Device) -> ReceiveMode {
        let mut workers = self.pool.iter().filter(|(id, _)| id.port == device.id);
        let generic = |attached: &Attached| attached.mode() == AttachedMode::Generic;
        if device.attached.as_ref().is_some_and(generic) {
            ReceiveMode::Generic
        } else if workers.any(|(_, handle)| handle.shared.report().how.is_some_and(|b| b.zero_copy))
        {
            ReceiveMode::ZeroCopy
        } else {
            ReceiveMode::Copy
        }
    }
}

/// What the configuration leaves open.
fn fallbacks(device: &Device) -> Fallbacks {
    let copy = device.wanted.zero_copy != ZeroCopy::On;
    Fallbacks { copy, generic: copy && device.wanted.mode == XdpMode::Auto }
}

/// Counters of all interfaces of this thread's network namespace, which /sys need not show.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// Frames that a card received or found no buffer for: those of a card that was given none count as
/// `drop` (missed) or `fifo`.
fn received(table: &str, interface: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.split_once(':'));
    let (_, counters) = lines.find(|(name, _)| name.trim() == interface)?;
    let counters: Vec<u64> =
        counters.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let [_bytes, packets, _errors, drop, fifo, ..] = counters[..] else { return None };
    Some(packets.saturating_add(drop).saturating_add(fifo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_card_received_is_read_from_the_table() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:     100       2    0    0    0     0          0         0      100       2    0    0
 eth0: 4711000     4711   10   20    3     1          0         7   999999    1234    0    0
eth10:  bad
";
        assert_eq!(received(table, "lo"), Some(2));
        assert_eq!(received(table, "eth0"), Some(4734));
        for name in ["eth", "eth1", "eth10", "face |bytes"] {
            assert_eq!(received(table, name), None, "{name}");
        }
        assert!(received(&fs::read_to_string(COUNTERS).unwrap(), "lo").is_some());
    }
}
