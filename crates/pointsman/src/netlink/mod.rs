//! What the kernel knows of links, addresses, routes and neighbours.
//!
//! A message about a link, an address or a route is only a hint that something changed: the state is
//! then read anew, so that a lost message costs time but never leaves a wrong picture. Neighbour
//! messages are used as they come, for a new MAC must be in use at once. When the socket overruns
//! ([`Notice::Overrun`]), there must be another one before everything is read anew: what waits in the
//! first is older than what is read, and the kernel puts nothing more into it until it is empty, without
//! saying so again (`NETLINK_S_CONGESTED`).
//!
//! Notifications are read from their socket when the control loop asks for one: its buffer is all that
//! waits, whatever the loop is busy with.
//!
//! Requests have a socket of their own, so that notifications cannot push out their answers, and a
//! time limit; after a request that was not answered the next one uses a new socket.

mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use control::{Link, Neighbour, Network};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use rtnetlink::packet_core::{ErrorMessage, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::{NetlinkCodec, NetlinkFramed};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rtnetlink::{Error, Handle, MulticastGroup, RouteMessageBuilder};
use tracing::{debug, warn};

use crate::layers::Layers;

pub use message::{Entry, Notice, notice_of};

/// A socket for requests.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
}

/// Notifications, in order; they end when their socket fails.
pub type Notices = stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// All links by name, and the networks on each by interface index.
#[derive(Debug, Default)]
pub struct Picture {
    /// By kernel name.
    pub links: BTreeMap<String, Link>,
    /// By interface index.
    pub networks: BTreeMap<u32, Vec<Network>>,
    /// What is made of what, by interface index.
    pub layers: Layers,
    /// Addresses that are not usable yet, because they are being checked for duplicates; by interface
    /// index.
    pub tentative: BTreeMap<u32, Vec<IpAddr>>,
    /// Names of links that were not set up (`ip link set … up`).
    pub down: BTreeSet<String>,
}

/// What became of asking the kernel to resolve a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It resolves it.
    Resolving,
    /// An administrator entered the MAC; the entry was left alone.
    Static,
}

/// How the kernel is asked to resolve a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A resolution that is under way goes on.
    On,
    /// A resolution that is under way began when nothing could answer: it begins anew.
    Anew,
}

/// The kernel answers at once; this is for answers that got lost.
const ANSWER: Duration = Duration::from_secs(2);
/// Requests under way at a time.
const AT_A_TIME: usize = 32;
/// For notifications. A flood of ARP requests makes tens of thousands of neighbour messages a second,
/// each of which takes about 1 KiB of the socket's buffer.
const RECEIVE_BUFFER: usize = 8 << 20;

/// All below 32, so that their bits fit into the address of the socket.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

impl Netlink {
    /// Opens the socket for requests; must run inside the control runtime.
    ///
    /// # Errors
    /// What the kernel answers to socket(2).
    pub fn open() -> Result<Self> {
        Ok(Self { handle: connect()? })
    }

    /// Reads all links and addresses.
    ///
    /// # Errors
    /// What the kernel answers, or that it does not.
    pub async fn picture(&mut self) -> Result<Picture> {
        let handle = self.handle.clone();
        self.limited("list interfaces and addresses", read_picture(handle)).await
    }

    /// Reads all neighbours.
    ///
    /// # Errors
    /// What the kernel answers, or that it does not.
    pub async fn neighbours(&mut self) -> Result<Vec<Entry>> {
        let handle = self.handle.clone();
        self.limited("list neighbours", read_neighbours(handle)).await
    }

    /// Asks the kernel's routing for the interface by which it reaches each address without a
    /// gateway: interface indices; `None` where it uses a gateway, or none.
    ///
    /// # Errors
    /// What the kernel answers, or that it does not; not that it has no route.
    pub async fn on_link(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<BTreeMap<IpAddr, Option<u32>>> {
        let handle = self.handle.clone();
        let lookups = addresses.into_iter().map(move |address| {
            let handle = handle.clone();
            async move { Ok((address, lookup(handle, address).await?)) }
        });
        let lookups: Vec<_> = lookups.collect();
        let routes = stream::iter(lookups).buffer_unordered(AT_A_TIME).try_collect();
        self.limited("look up routes", routes).await
    }

    /// Has the kernel resolve a neighbour and keep it resolved. Before Linux 5.16 it does not keep it:
    /// then the call must be repeated every few seconds, see [`Entry::managed`]. An administrator's
    /// entry is left alone.
    ///
    /// # Errors
    /// What the kernel answers, or that it does not.
    pub async fn resolve(&mut self, ifindex: u32, address: IpAddr, how: Ask) -> Result<Asked> {
        let handle = self.handle.clone();
        let resolve = async {
            // `NTF_MANAGED` and `NTF_USE` on an administrator's entry would take its permanence.
            let found = entry_of(handle.clone(), ifindex, address).await?;
            if let Some(Entry { neighbour: Neighbour::Static(_), .. }) = found {
                return Ok(Asked::Static);
            }
            if how == Ask::Anew && found.is_some_and(|entry| entry.neighbour.mac().is_none()) {
                handle.neighbours().del(named(ifindex, address)).execute().await?;
            }
            let mut request = handle.neighbours().add(ifindex, address).replace();
            let message = request.message_mut();
            message.header.state = NeighbourState::None;
            // `NTF_EXT_LEARNED`: a table that is full of others does not push it out.
            message.header.flags = NeighbourFlags::Use | NeighbourFlags::ExtLearned;
            let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
            message.attributes.push(managed);
            request.execute().await?;
            Ok(Asked::Resolving)
        };
        self.limited("resolve a neighbour", resolve).await
    }

    /// Stops keeping a neighbour resolved: the entry goes, the kernel makes a new one on demand. An
    /// administrator's entry stays.
    pub async fn release(&mut self, ifindex: u32, address: IpAddr) {
        let handle = self.handle.clone();
        let release = async {
            let found = entry_of(handle.clone(), ifindex, address).await?;
            match found {
                None | Some(Entry { neighbour: Neighbour::Static(_), .. }) => Ok(()),
                Some(_) => handle.neighbours().del(named(ifindex, address)).execute().await,
            }
        };
        if let Err(error) = self.limited("release a neighbour", release).await {
            debug!(%address, %error, "neighbour entry was gone already");
        }
    }

    /// Waits for an answer, but not for ever.
    async fn limited<T>(
        &mut self,
        what: &'static str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T> {
        if let Ok(answer) = tokio::time::timeout(ANSWER, request).await {
            return answer.map_err(|error| anyhow!("cannot {what}: {}", text(&error)));
        }
        self.handle = connect()?;
        Err(anyhow!("cannot {what}: the kernel did not answer within {ANSWER:?}"))
    }
}

/// Subscribes to changes of links, addresses, routes and neighbours; must run inside the control
/// runtime. Dropping the stream closes its socket.
///
/// # Errors
/// What the kernel answers to socket(2) and bind(2).
pub fn subscribe() -> Result<Notices> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
    let groups = GROUPS.iter().fold(0, |all, group| all | 1 << (*group as u32 - 1));
    let address = SocketAddr::new(0, groups);
    socket.socket_mut().bind(&address).context("cannot subscribe to changes of the network")?;
    if let Err(error) = enlarge(&socket) {
        warn!(%error, "cannot enlarge the receive buffer of a netlink socket");
    }
    let messages = NetlinkFramed::<_, _, NetlinkCodec>::new(socket);
    Ok(messages.map(|(message, _)| message).boxed())
}

fn connect() -> Result<Handle> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

fn enlarge(socket: &TokioSocket) -> io::Result<()> {
    use rustix::net::sockopt::set_socket_recv_buffer_size_force;
    Ok(set_socket_recv_buffer_size_force(socket.socket_ref(), RECEIVE_BUFFER)?)
}

async fn read_picture(handle: Handle) -> Result<Picture, Error> {
    let mut picture = Picture::default();
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await? {
        if let Some((name, link, admin_up)) = message::link_of(&message) {
            picture.layers.0.insert(link.ifindex, message::layer_of(&name, &message));
            if !admin_up {
                picture.down.insert(name.clone());
            }
            picture.links.insert(name, link);
        }
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let Some(network) = message::network_of(&message) else { continue };
        let ifindex = message.header.index;
        picture.networks.entry(ifindex).or_default().push(network);
        if message::is_tentative(&message) {
            picture.tentative.entry(ifindex).or_default().push(network.address);
        }
    }
    Ok(picture)
}

async fn read_neighbours(handle: Handle) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut entries = handle.neighbours().get().set_address_family(family).execute();
        while let Some(message) = entries.try_next().await? {
            found.extend(message::entry_of(&message));
        }
    }
    Ok(found)
}

/// One neighbour; `None` where the kernel has no entry.
async fn entry_of(
    mut handle: Handle,
    ifindex: u32,
    address: IpAddr,
) -> Result<Option<Entry>, Error> {
    let request = RouteNetlinkMessage::GetNeighbour(named(ifindex, address));
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST;
    let mut answers = handle.request(request)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) =
            &answer.payload
        {
            return Ok(message::entry_of(message));
        }
        if let NetlinkPayload::Error(error) = answer.payload {
            let none = is_one_of(&error, &[libc::ENOENT]);
            return if none { Ok(None) } else { Err(Error::NetlinkError(error)) };
        }
    }
    Ok(None)
}

/// The interface by which the kernel reaches an address without a gateway.
async fn lookup(handle: Handle, address: IpAddr) -> Result<Option<u32>, Error> {
    let route = match address {
        IpAddr::V4(v4) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(v4, 32).build()
        }
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(v6, 128).build()
        }
    };
    match handle.route().get(route).execute().try_next().await {
        Ok(answer) => Ok(answer.and_then(|message| message::on_link(&message))),
        Err(Error::NetlinkError(error)) if is_one_of(&error, NO_ROUTE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the kernel answers where it has no route, or one that forbids or swallows.
const NO_ROUTE: &[i32] =
    &[libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::EAGAIN];

fn is_one_of(error: &ErrorMessage, errnos: &[i32]) -> bool {
    let errno = error.to_io().raw_os_error();
    errno.is_some_and(|errno| errnos.contains(&errno))
}

/// A neighbour message that names an entry and says nothing of it.
fn named(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

/// What the kernel said, and what to do about it.
fn text(error: &Error) -> String {
    let Error::NetlinkError(message) = error else { return error.to_string() };
    let error = message.to_io();
    match error.raw_os_error() {
        Some(libc::ENOBUFS) => format!(
            "{error} (the neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3 and \
             net.ipv6.neigh.default.gc_thresh3)"
        ),
        _ => error.to_string(),
    }
}
