//! The way of a probe to the VIP *at one backend* (`target = "vip"`).
//!
//! The VIP is on every backend, and this host's routes lead to none of them in particular. So each
//! backend has a number n, and by it, for marked packets to the VIP only,
//!
//! ```text
//! ip rule add priority 5046 to VIP fwmark 0x5000_0000+n lookup 0x5000_0000+n protocol 80
//! ip route add VIP via BACKEND dev INTERFACE onlink table 0x5000_0000+n protocol 80
//! ip route add unreachable VIP metric 4294967294 table 0x5000_0000+n protocol 80
//! ```
//!
//! Nothing but this process' probes has such a mark, so nothing else is routed differently. The
//! last route stays when the interface goes, so that a probe never takes a way of its own choice.
//! The rule is made first and removed last: a process that finds one, left by one that was killed,
//! knows by it what else to remove.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use control::health::Failure;
use dataplane::Tick;
use futures_util::TryStreamExt;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Error, Handle, IpVersion, RouteMessageBuilder, new_connection};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::text::printable;

/// Mark and table of number 0; those of the others follow.
pub const FIRST_MARK: u32 = 0x5000_0000;
/// How many numbers there are.
pub const MARKS: u32 = 0x1_0000;
/// Priority of all rules.
pub const PRIORITY: u32 = 5046;
/// Says whose rules and routes they are, as `proto` in ip-route(8).
pub const PROTOCOL: u8 = 80;

/// Above every other route of its table.
const LAST_METRIC: u32 = u32::MAX - 1;

/// All detours of this host.
#[derive(Clone, Debug, Default)]
pub(super) struct Detours(Arc<Mutex<Table>>);

/// What is needed to go by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Detour {
    pub(super) vip: IpAddr,
    pub(super) backend: IpAddr,
    pub(super) ifindex: u32,
    /// Since when the interface leads there: a link that went down took its routes along.
    pub(super) found: Tick,
}

#[derive(Debug, Default)]
struct Table {
    /// Opened when it is first needed.
    handle: Option<Handle>,
    /// By mark. `None`: perhaps there, in part.
    made: BTreeMap<u32, Option<Detour>>,
    /// Whether the leftovers are gone.
    clean: bool,
}

impl Detours {
    /// Sees to it that the detour is there.
    pub(super) async fn make(&self, mark: u32, detour: Detour) -> Result<(), Failure> {
        let mut table = self.0.lock().await;
        if table.made.get(&mark) == Some(&Some(detour)) {
            return Ok(());
        }
        let made = table.make(mark, detour).await;
        made.map_err(|error| Failure::Local(printable(format!("no way to the VIP: {error:#}"))))
    }

    /// Removes one.
    pub(super) async fn remove(&self, mark: u32) {
        let mut table = self.0.lock().await;
        if table.made.remove(&mark).is_some()
            && let Err(error) = table.sweep(|found| found == mark).await
        {
            warn!(error = format!("{error:#}"), "cannot remove the route to a VIP");
        }
    }

    /// Removes what an earlier process left that was killed. Made before the first one is.
    pub(super) async fn remove_leftovers(&self) {
        self.0.lock().await.remove_leftovers().await;
    }

    /// Removes all.
    pub(super) async fn remove_all(&self) {
        let mut table = self.0.lock().await;
        table.made.clear();
        table.remove_all().await;
    }
}

impl Table {
    fn handle(&mut self) -> Result<Handle> {
        if let Some(handle) = &self.handle {
            return Ok(handle.clone());
        }
        let (connection, handle, _) = new_connection().context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        self.handle = Some(handle.clone());
        Ok(handle)
    }

    async fn make(&mut self, mark: u32, detour: Detour) -> Result<()> {
        self.remove_leftovers().await;
        let handle = self.handle()?;
        self.made.insert(mark, None);
        let mut request = handle
            .rule()
            .add()
            .priority(PRIORITY)
            .fw_mark(mark)
            .table_id(mark)
            .action(RuleAction::ToTable);
        request.message_mut().attributes.push(RuleAttribute::Protocol(ours()));
        let made = match detour.vip {
            IpAddr::V4(vip) => request.v4().destination_prefix(vip, 32).execute().await,
            IpAddr::V6(vip) => request.v6().destination_prefix(vip, 128).execute().await,
        };
        made.or_else(|error| unless(libc::EEXIST, error)).context("rule")?;
        let barrier = handle.route().add(barrier(mark, detour.vip)).replace();
        barrier.execute().await.context("barrier")?;
        let route = handle.route().add(route(mark, detour)).replace();
        route.execute().await.context("route")?;
        self.made.insert(mark, Some(detour));
        Ok(())
    }

    async fn remove_leftovers(&mut self) {
        if !self.clean {
            self.remove_all().await;
            self.clean = true;
        }
    }

    async fn remove_all(&mut self) {
        match self.sweep(|_| true).await {
            Ok(0) => {}
            Ok(count) => info!(count, "removed routes for checks of VIPs"),
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot remove routes for checks of VIPs");
            }
        }
    }

    /// Removes what rules of ours lead to, and then these; returns their number.
    async fn sweep(&mut self, wanted: impl Fn(u32) -> bool) -> Result<usize> {
        let handle = self.handle()?;
        let mut count = 0;
        for version in [IpVersion::V4, IpVersion::V6] {
            let rules: Vec<RuleMessage> =
                handle.rule().get(version).execute().try_collect().await.context("rules")?;
            for rule in rules {
                let Some((mark, vip)) = owned(&rule).filter(|(mark, _)| wanted(*mark)) else {
                    continue;
                };
                // One of them is gone when its interface is.
                for message in [bare(mark, vip), barrier(mark, vip)] {
                    let removed = handle.route().del(message).execute().await;
                    removed.or_else(|error| unless(libc::ESRCH, error)).context("route")?;
                }
                handle.rule().del(rule).execute().await.context("rule")?;
                count += 1;
            }
        }
        Ok(count)
    }
}

const fn ours() -> RouteProtocol {
    RouteProtocol::Other(PROTOCOL)
}

/// Mark and VIP of a rule that this program made.
fn owned(rule: &RuleMessage) -> Option<(u32, IpAddr)> {
    let mut found = (None, None, false);
    for attribute in &rule.attributes {
        if let RuleAttribute::FwMark(mark) = attribute {
            found.0 = Some(*mark);
        } else if let RuleAttribute::Destination(vip) = attribute {
            found.1 = Some(*vip);
        } else if let RuleAttribute::Protocol(protocol) = attribute {
            found.2 = *protocol == ours();
        }
    }
    let (mark, vip, protocol) = found;
    let mark = mark.filter(|mark| (FIRST_MARK..FIRST_MARK + MARKS).contains(mark))?;
    protocol.then_some((mark, vip?))
}

/// Any route to the VIP in the table.
fn bare(mark: u32, vip: IpAddr) -> RouteMessage {
    match vip {
        IpAddr::V4(vip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(vip, 32)
            .table_id(mark)
            .protocol(ours())
            .build(),
        IpAddr::V6(vip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(vip, 128)
            .table_id(mark)
            .protocol(ours())
            .build(),
    }
}

fn route(mark: u32, detour: Detour) -> RouteMessage {
    use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteFlags};
    let mut message = bare(mark, detour.vip);
    message.header.flags |= RouteFlags::Onlink;
    let gateway = match detour.backend {
        IpAddr::V4(backend) => RouteAddress::Inet(backend),
        IpAddr::V6(backend) => RouteAddress::Inet6(backend),
    };
    message.attributes.push(RouteAttribute::Gateway(gateway));
    message.attributes.push(RouteAttribute::Oif(detour.ifindex));
    message
}

fn barrier(mark: u32, vip: IpAddr) -> RouteMessage {
    use rtnetlink::packet_route::route::RouteAttribute;
    let mut message = bare(mark, vip);
    message.header.kind = RouteType::Unreachable;
    message.attributes.push(RouteAttribute::Priority(LAST_METRIC));
    message
}

/// An error of netlink is none if it is this one.
fn unless(errno: i32, error: Error) -> Result<(), Error> {
    let is_it = matches!(&error, Error::NetlinkError(ErrorMessage { code: Some(code), .. })
        if code.get() == -errno);
    if is_it { Ok(()) } else { Err(error) }
}
