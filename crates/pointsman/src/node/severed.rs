//! What the kernel takes from its holder without a word: the program whose link somebody detached,
//! and sockets of a device that went away. If the device is there again before it is looked at, with
//! its name and index (it was in another network namespace, or another one took its place), nothing
//! else shows that it does not do anything for us any more.

use control::Event;
use steer::Attached;
use tracing::warn;

use super::Node;
use crate::clock;
use crate::worker::WorkerId;

impl Node {
    /// Asks the kernel whether the programs are attached.
    pub(super) async fn look_at_attachments(&mut self) {
        for index in 0..self.devices.len() {
            let device = &self.devices[index];
            if device.attached.as_ref().is_some_and(Attached::is_severed) {
                warn!(interface = %device.wanted.name,
                    "the XDP program is attached no more: attaching it anew");
                self.give_up_device(index).await;
            }
        }
    }

    /// The kernel took a worker's socket off its queue.
    pub(super) async fn on_lost_socket(&mut self, id: WorkerId) {
        let index = id.port.index();
        // Else it is known, and the queue perhaps bound anew.
        if self.devices.get(index).is_some_and(|device| device.bound.contains(&id.queue)) {
            warn!(interface = %self.devices[index].wanted.name, queue = id.queue,
                "the kernel took the socket off the queue: the device went away");
            self.give_up_device(index).await;
        }
    }

    /// Goes on as if the device was not there. If it is, the next look finds a new one: what went with
    /// it (neighbours, routes, addresses, multicast groups) is asked for anew.
    async fn give_up_device(&mut self, index: usize) {
        self.release_device(index);
        let device = &mut self.devices[index];
        device.link = None;
        let id = device.id;
        self.tell(Event::Link(id, None)).await;
        self.follow_groups();
        self.follow_vrrp(clock::now());
        self.tell_vrrp_of_workers();
        self.stale.links = true;
    }
}
