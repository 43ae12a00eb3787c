//! Announcements of the VIPs that belong to no instance: they are active whenever this node runs.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use control::vrrp::AnnounceTimes;
use dataplane::Mac;

use super::neighbour_socket::NeighbourSocket;

/// The VIPs on one interface, by one MAC.
#[derive(Debug)]
pub struct Standalone {
    socket: NeighbourSocket,
    /// When they are announced next: at once, and again after `delay` for hosts that missed it.
    next: Option<Instant>,
    again: Option<Duration>,
    count: u8,
}

impl Standalone {
    /// Opens the socket; the VIPs are announced as soon as the VRRP thread has it.
    ///
    /// # Errors
    /// What the kernel answers: no permission, no such interface.
    pub fn open(ifindex: u32, mac: Mac, vips: Vec<IpAddr>) -> io::Result<Self> {
        let AnnounceTimes { count, delay, .. } = AnnounceTimes::default();
        let socket = NeighbourSocket::sender(ifindex, mac, vips)?;
        Ok(Self { socket, next: Some(Instant::now()), again: Some(delay), count })
    }

    /// Announces what is due; returns when to call again.
    pub(super) fn on_time(&mut self, now: Instant) -> Option<Instant> {
        if self.next.is_some_and(|at| at <= now) {
            self.socket.announce(self.count);
            self.next = self.again.take().map(|delay| now + delay);
        }
        self.next
    }
}
