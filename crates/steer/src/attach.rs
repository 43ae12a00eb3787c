//! One interface's steering program: how it is attached, its sockets and its counters.
//!
//! Never replaces another program, and never leaves its own behind: the attachment is an unpinned
//! `bpf_link`, closed at the latest by the kernel when the process ends.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenMapMut};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::abi::{Mac, Port};
use crate::error::SteerError;
use crate::fast_path::{FlowMap, Traffic};
use crate::foreign;
use crate::link;
use crate::outcome::{Counters, Outcome};

/// The steering program on one interface. Detached when this, or the `Steer` that it came from, is
/// dropped.
#[derive(Debug)]
pub struct Attached {
    mode: AttachedMode,
    ifindex: u32,
    reads_tags: bool,
    link: Arc<LinkSlot>,
    maps: Arc<OwnMaps>,
    traffic: Option<Traffic>,
    /// What the port map holds.
    port: Mutex<Port>,
}

/// The interface to attach to.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// How many RX queues it has.
    pub queues: u32,
    /// Where it leaves VLAN tags.
    pub tags: TagPlace,
}

/// Which mode to attach in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// Native, or generic where the driver refuses native.
    Auto,
    /// In the driver.
    Native,
    /// In the network stack: any interface, slower.
    Generic,
}

/// Where a device leaves the VLAN tag of a frame that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagPlace {
    /// In the frame: cards, with their VLAN offload off.
    Frame,
    /// Beside it where the sender left it there: veth.
    Beside,
}

/// Which mode it became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

/// The link's only owner; empty once detached.
#[derive(Debug)]
pub(crate) struct LinkSlot(Mutex<Option<OwnedFd>>);

/// A loaded program and its own maps, about to be attached.
#[derive(Clone)]
pub(crate) struct Loaded<'p> {
    pub(crate) program: BorrowedFd<'p>,
    pub(crate) reads_tags: bool,
    pub(crate) maps: Arc<OwnMaps>,
    /// What it forwards itself; `None` if it does not.
    pub(crate) traffic: Option<Traffic>,
}

/// The maps that each interface has of its own.
#[derive(Debug)]
pub(crate) struct OwnMaps {
    pub(crate) port: MapHandle,
    pub(crate) xsks: MapHandle,
    pub(crate) counters: MapHandle,
    pub(crate) flows: MapHandle,
    pub(crate) traffic: MapHandle,
    pub(crate) queue_packets: MapHandle,
}

impl Attached {
    /// Attaches to an interface that has no XDP program.
    pub(crate) fn new(
        interface: Interface<'_>,
        mode: AttachMode,
        loaded: &Loaded<'_>,
    ) -> Result<Self, SteerError> {
        let Interface { name, ifindex, mac, .. } = interface;
        let port = Port::of(mac);
        set_port(&loaded.maps.port, port)?;
        let site = Site { interface: name, ifindex, program: loaded.program };
        let (link, mode) = match mode {
            AttachMode::Native => site.attach(AttachedMode::Native)?,
            AttachMode::Generic => site.attach(AttachedMode::Generic)?,
            AttachMode::Auto => site.attach_any()?,
        };
        let link = Arc::new(LinkSlot(Mutex::new(Some(link))));
        let Loaded { program: _, reads_tags, maps, traffic } = loaded.clone();
        Ok(Self { mode, ifindex, reads_tags, link, maps, traffic, port: Mutex::new(port) })
    }

    /// Takes frames to this MAC for the interface's own from now on, and those to the former one
    /// for another host's. To be called when the interface has got another MAC.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn set_mac(&self, mac: Mac) -> Result<(), SteerError> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.mac = mac;
        set_port(&self.maps.port, *port)
    }

    /// Says that senders may be on this very host, and the length of their longest frame: then frames
    /// that are longer, and those whose checksum is not finished, are left to user space, also of known
    /// flows. 0: no sender is.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn set_local_senders(&self, longest: u16) -> Result<(), SteerError> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.local_longest = longest;
        set_port(&self.maps.port, *port)
    }

    /// Says by what way frames leave by this very interface: as by any other one
    /// ([`Steer::set_egress`](crate::Steer::set_egress)), or by `XDP_TX`, as at first.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn set_redirects(&self, redirects: bool) -> Result<(), SteerError> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.redirects = redirects;
        set_port(&self.maps.port, *port)
    }

    /// Redirects the frames of RX queue `queue` to the AF_XDP socket `fd`, which must be bound to
    /// this queue of this interface. Replaces the queue's former socket.
    ///
    /// # Errors
    /// [`SteerError::OutOfRange`] for a queue beyond [`Self::queues`], [`SteerError::Map`] for a
    /// descriptor that is no AF_XDP socket.
    pub fn set_socket(&self, queue: u32, fd: BorrowedFd<'_>) -> Result<(), SteerError> {
        self.in_range(queue)?;
        self.maps
            .xsks
            .update(&queue.to_ne_bytes(), &fd.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(SteerError::map("hand the queue's frames to the socket"))
    }

    /// Leaves the frames of RX queue `queue` to the kernel again; fine if it had no socket. The
    /// kernel does the same by itself when the socket is closed.
    ///
    /// # Errors
    /// [`SteerError::OutOfRange`] for a queue beyond [`Self::queues`].
    pub fn clear_socket(&self, queue: u32) -> Result<(), SteerError> {
        self.in_range(queue)?;
        match self.maps.xsks.delete(&queue.to_ne_bytes()) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            result => result.map_err(SteerError::map("take the queue's frames from the socket")),
        }
    }

    /// Has the program forward the next packets of the flows in `flows` itself when they come in on RX
    /// queue `queue`, if it can. Replaces the queue's former flows.
    ///
    /// # Errors
    /// [`SteerError::OutOfRange`] for a queue beyond [`Self::queues`], [`SteerError::Map`].
    pub fn show_flows(&self, queue: u32, flows: &FlowMap) -> Result<(), SteerError> {
        self.in_range(queue)?;
        flows.show(&self.maps.flows, queue)
    }

    /// Leaves all packets of RX queue `queue` to its socket again; fine if it had no flows.
    ///
    /// # Errors
    /// [`SteerError::OutOfRange`] for a queue beyond [`Self::queues`], [`SteerError::Map`].
    pub fn hide_flows(&self, queue: u32) -> Result<(), SteerError> {
        self.in_range(queue)?;
        match self.maps.flows.delete(&queue.to_ne_bytes()) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            result => result.map_err(SteerError::map("hide flows from the program")),
        }
    }

    /// What the program itself sent to backends; `None` if it forwards no flows itself.
    pub const fn traffic(&self) -> Option<&Traffic> {
        self.traffic.as_ref()
    }

    /// How many queues can have a socket: at least [`crate::abi::XSKS`], more than the interface
    /// had when it was attached.
    pub fn queues(&self) -> u32 {
        self.maps.xsks.max_entries()
    }

    /// The mode that it was attached in.
    pub const fn mode(&self) -> AttachedMode {
        self.mode
    }

    /// Whether VLAN tags that come beside the frame are put into it: always asked for with
    /// [`TagPlace::Beside`], possible in native mode from Linux 6.8 on. Without it such a frame loses
    /// its tag and would leave in the native VLAN.
    pub const fn reads_tags(&self) -> bool {
        self.reads_tags
    }

    /// Whether the kernel says that the program is attached no more: somebody detached its link, or
    /// the interface is gone, even if another one has its name and index. No notification tells.
    pub fn is_severed(&self) -> bool {
        let link = self.link.0.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().is_some_and(|link| link::target(link.as_fd()).is_ok_and(|index| index == 0))
    }

    /// The index of the interface.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// What became of the frames since it was attached.
    ///
    /// # Errors
    /// [`SteerError::Map`] if the kernel does not give the counters.
    pub fn counters(&self) -> Result<Counters, SteerError> {
        read_counters(&self.maps.counters)
    }

    /// Puts another copy of the program, over the same maps, in the place of this one.
    pub(crate) fn replace(&self, program: BorrowedFd<'_>) -> Result<(), SteerError> {
        let link = self.link.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(link) = link.as_ref() else { return Ok(()) };
        link::update(link.as_fd(), program)
            .map_err(SteerError::system("renew the steering program"))
    }

    pub(crate) const fn maps(&self) -> &Arc<OwnMaps> {
        &self.maps
    }

    pub(crate) fn link(&self) -> &Arc<LinkSlot> {
        &self.link
    }

    fn in_range(&self, queue: u32) -> Result<(), SteerError> {
        let room = self.queues();
        if queue < room {
            return Ok(());
        }
        Err(SteerError::OutOfRange { what: "queue", index: queue, room })
    }
}

impl OwnMaps {
    /// Makes another copy of the program use the maps of the first.
    pub(crate) fn share(
        &self,
        [port, xsks, counters, flows, traffic, queue_packets]: [&mut OpenMapMut<'_>; 6],
    ) -> libbpf_rs::Result<()> {
        port.reuse_fd(self.port.as_fd())?;
        xsks.reuse_fd(self.xsks.as_fd())?;
        counters.reuse_fd(self.counters.as_fd())?;
        flows.reuse_fd(self.flows.as_fd())?;
        traffic.reuse_fd(self.traffic.as_fd())?;
        queue_packets.reuse_fd(self.queue_packets.as_fd())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.link.detach();
    }
}

impl LinkSlot {
    pub(crate) fn detach(&self) {
        if let Some(link) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            link::detach(link.as_fd());
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

impl fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AttachMode::from(*self).fmt(f)
    }
}

impl From<AttachedMode> for AttachMode {
    fn from(mode: AttachedMode) -> Self {
        match mode {
            AttachedMode::Native => Self::Native,
            AttachedMode::Generic => Self::Generic,
        }
    }
}

/// Where which program is to be attached.
struct Site<'a> {
    interface: &'a str,
    ifindex: u32,
    program: BorrowedFd<'a>,
}

impl Site<'_> {
    fn attach_any(&self) -> Result<(OwnedFd, AttachedMode), SteerError> {
        match self.attach(AttachedMode::Native) {
            Err(error @ (SteerError::Attach { .. } | SteerError::MtuTooLarge { .. })) => {
                tracing::warn!(
                    interface = self.interface,
                    "no native XDP, trying generic (slower): {error}"
                );
                self.attach(AttachedMode::Generic)
            }
            result => result,
        }
    }

    fn attach(&self, mode: AttachedMode) -> Result<(OwnedFd, AttachedMode), SteerError> {
        match link::create(self.program, self.ifindex, mode) {
            Ok(link) => Ok((link, mode)),
            Err(error) => Err(self.explain(mode, error)),
        }
    }

    /// The kernel's reasons go to its own log at best; these are the ones worth telling apart.
    fn explain(&self, mode: AttachedMode, error: io::Error) -> SteerError {
        let interface = self.interface.to_owned();
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                return SteerError::NoPermission { action: "attach an XDP program" };
            }
            Some(libc::EBUSY | libc::EEXIST) => {
                if let Ok(Some(foreign)) = foreign::find(&interface, self.ifindex, self.program) {
                    return SteerError::Foreign(Box::new(foreign));
                }
            }
            _ => {}
        }
        if let Err(gone) = check_interface(&interface, self.ifindex) {
            return gone;
        }
        let mtu = mtu(&interface, self.ifindex);
        if mode == AttachedMode::Native && is_mtu_error(&error, mtu) {
            return SteerError::MtuTooLarge { interface, mtu, limit: native_mtu_limit() };
        }
        SteerError::Attach { interface, mode: mode.into(), error }
    }
}

/// Fails with [`SteerError::NoSuchInterface`] unless the interface has this name and this index in
/// the network namespace of this thread.
pub(crate) fn check_interface(interface: &str, ifindex: u32) -> Result<(), SteerError> {
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)
        .map_err(SteerError::system("open a socket"))?;
    match netdevice::name_to_index(any.as_fd(), interface) {
        Ok(index) if index == ifindex && index != 0 => Ok(()),
        _ => Err(SteerError::NoSuchInterface { interface: interface.to_owned(), ifindex }),
    }
}

/// Best effort: `/sys` may show another network namespace.
fn mtu(interface: &str, ifindex: u32) -> Option<u32> {
    let number = |file: &str| -> Option<u32> {
        fs::read_to_string(format!("/sys/class/net/{interface}/{file}")).ok()?.trim().parse().ok()
    };
    (number("ifindex") == Some(ifindex)).then(|| number("mtu")).flatten()
}

/// veth says ERANGE and means nothing else by it; the numbers of the others mean many things.
fn is_mtu_error(error: &io::Error, mtu: Option<u32>) -> bool {
    match error.raw_os_error() {
        Some(libc::ERANGE | libc::E2BIG) => true,
        Some(libc::EINVAL | libc::EOPNOTSUPP) => mtu.is_some_and(|mtu| mtu > native_mtu_limit()),
        _ => false,
    }
}

/// The longest MTU whose frames fit into one page beside XDP's headroom and the kernel's trailer.
fn native_mtu_limit() -> u32 {
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
    page.saturating_sub(PAGE_OVERHEAD)
}

pub(crate) fn set_port(map: &MapHandle, port: Port) -> Result<(), SteerError> {
    map.update(&0u32.to_ne_bytes(), &port.to_bytes(), MapFlags::ANY)
        .map_err(SteerError::map("tell the program about the interface"))
}

pub(crate) fn read_counters(map: &MapHandle) -> Result<Counters, SteerError> {
    let mut counters = Counters::default();
    for outcome in Outcome::ALL {
        let cpus = map
            .lookup_percpu(&outcome.key(), MapFlags::ANY)
            .map_err(SteerError::map("read the counters"))?;
        counters.add(outcome, &cpus.unwrap_or_default());
    }
    Ok(counters)
}

/// XDP_PACKET_HEADROOM (256) + `skb_shared_info` (320) + Ethernet header with one VLAN tag (18).
const PAGE_OVERHEAD: u32 = 256 + 320 + 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_numbers_are_the_mtu_only_if_it_is_large() {
        let error = io::Error::from_raw_os_error;
        assert!(is_mtu_error(&error(libc::ERANGE), None));
        assert!(is_mtu_error(&error(libc::EINVAL), Some(9000)));
        assert!(!is_mtu_error(&error(libc::EINVAL), Some(1500)));
        assert!(!is_mtu_error(&error(libc::EINVAL), None));
        assert!(!is_mtu_error(&error(libc::ENOMEM), Some(9000)));
    }

    #[test]
    fn an_interface_is_its_name_and_its_index() {
        assert!(check_interface("lo", 1).is_ok());
        for (name, index) in [("lo", 2), ("no-such-if", 1), ("", 0)] {
            let error = check_interface(name, index);
            assert!(matches!(error, Err(SteerError::NoSuchInterface { .. })), "{name} {index}");
        }
    }
}
