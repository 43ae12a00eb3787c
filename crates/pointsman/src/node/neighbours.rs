//! Notifications of the kernel, and the neighbour entries of backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use control::{Event, Neighbour};
use dataplane::PortId;
use futures_util::{FutureExt, StreamExt};
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use tracing::{error, info, warn};

use super::Node;
use crate::clock;
use crate::netlink::{self, Ask, Entry, Notice, Notices, notice_of};

/// What has to be read anew.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stale {
    /// Links and addresses, and with them the routes.
    pub(super) links: bool,
    /// Routes.
    pub(super) routes: bool,
    /// Neighbours: messages about them were lost.
    pub(super) neighbours: bool,
}

/// Notifications taken at a time: a flood of them must not keep the loop from its other work.
const BATCH: usize = 1024;

impl Node {
    /// Takes a notification in and all that wait behind it. The stream ends when its socket fails, and
    /// is given up when it overran: then there is a new one, and everything is read.
    pub(super) async fn on_notices(
        &mut self,
        first: Option<NetlinkMessage<RouteNetlinkMessage>>,
        notices: &mut Notices,
    ) {
        let mut next = Some(first);
        let mut left = BATCH;
        while let Some(message) = next {
            let Some(message) = message else {
                warn!("the netlink socket failed; opening another one");
                self.subscribe_anew(notices);
                break;
            };
            match notice_of(&message.payload) {
                Some(Notice::Overrun) => {
                    self.count_overrun();
                    self.subscribe_anew(notices);
                    break;
                }
                Some(notice) => self.on_notice(notice),
                None => {}
            }
            left -= 1;
            next = if left > 0 { notices.next().now_or_never() } else { None };
        }
        self.carry_out_all().await;
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Links => self.stale.links = true,
            Notice::Routes => self.stale.routes = true,
            // The stream is replaced instead.
            Notice::Overrun => {}
            Notice::Neighbour(Entry { ifindex, address, neighbour, .. }) => {
                if self.watched_at(ifindex, address).is_some() {
                    self.controller.handle(Event::Neighbour(address, neighbour), clock::now());
                }
            }
            Notice::Forgotten(ifindex, address) => {
                if let Some(port) = self.watched_at(ifindex, address) {
                    let missing = Event::Neighbour(address, Neighbour::Missing);
                    self.controller.handle(missing, clock::now());
                    self.forgotten.insert((port, address));
                    // A link that goes down takes its neighbours along: look before asking again.
                    self.stale.links = true;
                }
            }
        }
    }

    fn count_overrun(&mut self) {
        self.overruns += 1;
        if let Some(held_back) = self.overrun_lines.admit(clock::now()) {
            warn!(
                overruns = self.overruns,
                held_back,
                "the kernel had more to say of links and neighbours than its netlink socket holds; \
                 reading everything anew"
            );
        }
    }

    fn subscribe_anew(&mut self, notices: &mut Notices) {
        self.stale = Stale { links: true, routes: true, neighbours: true };
        match netlink::subscribe() {
            Ok(anew) => *notices = anew,
            Err(error) => {
                // The periodic reading goes on; the stream stays ended until the next attempt.
                error!(error = format!("{error:#}"), "cannot follow changes of the network");
                *notices = futures_util::stream::pending().boxed();
                self.deaf = true;
            }
        }
    }

    /// Opens the stream again if that failed the last time.
    pub(super) fn listen_again(&mut self, notices: &mut Notices) {
        if std::mem::take(&mut self.deaf) {
            self.subscribe_anew(notices);
        }
    }

    /// Looks up by which interfaces the kernel reaches the backends.
    pub(super) async fn look_at_routes(&mut self) {
        match self.routes().await {
            Ok(routes) => {
                self.tell(Event::Routes(routes)).await;
                self.tell_health_of_ways();
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot look up routes; trying again");
                self.stale.routes = true;
            }
        }
    }

    /// The configured interface by which the kernel reaches each backend on-link.
    pub(super) async fn routes(&mut self) -> anyhow::Result<BTreeMap<IpAddr, Option<PortId>>> {
        let found = self.netlink.on_link(self.controller.addresses()).await?;
        let port = |ifindex: Option<u32>| {
            let here = |device: &&super::Device| device.link.map(|link| link.ifindex) == ifindex;
            ifindex.and_then(|_| self.devices.iter().find(here)).map(|device| device.id)
        };
        Ok(found.into_iter().map(|(address, ifindex)| (address, port(ifindex))).collect())
    }

    /// Reads the neighbour table: for what notifications may have missed, and for entries that
    /// nothing keeps resolved. With `lost`, notifications are known to be missing, so that nothing
    /// that was heard before counts.
    pub(super) async fn look_at_neighbours(&mut self, lost: bool) {
        let entries = match self.netlink.neighbours().await {
            Ok(entries) => entries,
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot read the neighbour table");
                self.stale.neighbours |= lost;
                return;
            }
        };
        let now = clock::now();
        let mut unmanaged: BTreeSet<(PortId, IpAddr)> = self.controller.watched().collect();
        if lost {
            for (_, address) in &unmanaged {
                self.controller.handle(Event::Neighbour(*address, Neighbour::Missing), now);
            }
        }
        for Entry { ifindex, address, neighbour, managed } in entries {
            let Some(port) = self.watched_at(ifindex, address) else { continue };
            self.controller.handle(Event::Neighbour(address, neighbour), now);
            if managed || matches!(neighbour, Neighbour::Static(_)) {
                unmanaged.remove(&(port, address));
            }
        }
        self.forgotten.extend(unmanaged);
        self.carry_out_all().await;
    }

    /// Has the kernel resolve what it does not keep resolved by itself.
    pub(super) async fn ask_forgotten(&mut self) {
        for (port, address) in std::mem::take(&mut self.forgotten) {
            self.watch(port, address, Ask::On).await;
        }
    }

    /// Asks for the backends of an interface, which can be asked for from now on.
    pub(super) async fn watch_all(&mut self, port: PortId) {
        let all: Vec<_> = self.controller.watched().filter(|(at, _)| *at == port).collect();
        for (port, address) in all {
            let unresolved = self.controller.is_unresolved(address);
            self.watch(port, address, if unresolved { Ask::Anew } else { Ask::On }).await;
        }
    }

    /// Not while the link is down: the kernel would give up, and then wait before it asks again.
    pub(super) async fn watch(&mut self, port: PortId, address: IpAddr, how: Ask) {
        let device = self.devices.get(port.index());
        let Some(link) = device.and_then(|device| device.link).filter(|link| link.up) else {
            return;
        };
        if self.controller.is_static(address) {
            return;
        }
        match self.netlink.resolve(link.ifindex, address, how).await {
            Ok(_) => {
                if std::mem::take(&mut self.ask_failing) {
                    info!("backends' MAC addresses can be asked for again");
                }
            }
            // It is asked again at the next look at the table.
            Err(error) if !self.ask_failing => {
                self.ask_failing = true;
                let error = format!("{error:#}");
                warn!(%address, error, "cannot ask for a backend's MAC address; trying again");
            }
            Err(_) => {}
        }
    }

    /// The interface by which a backend is reached, if this is its index.
    fn watched_at(&self, ifindex: u32, address: IpAddr) -> Option<PortId> {
        let here = |device: &&super::Device| device.link.is_some_and(|l| l.ifindex == ifindex);
        let port = self.devices.iter().find(here)?.id;
        self.controller.is_reached_by(address, port).then_some(port)
    }
}
