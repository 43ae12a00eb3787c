//! The sockets of one instance for adverts.
//!
//! Two of them: a raw socket that is bound to an address hears no multicast, and one that is not
//! sends from whatever address the kernel likes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};

use control::vrrp::{Config, Envelope, GROUP_V4, GROUP_V6, MAX_TTL, PROTOCOL};
use dataplane::Mac;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};

use super::advert_filter::{RETURN, Wanted, advert_filter};
use super::neighbour_socket::NeighbourSocket;
use crate::sys;

/// Where an instance lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Kernel name of the interface.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// The node's own address on it.
    pub primary: IpAddr,
}

impl LocalEndpoint {
    /// All that its sockets depend on.
    pub fn place(&self) -> (&str, u32, IpAddr) {
        (&self.interface, self.ifindex, self.primary)
    }
}

/// Opened by the control thread, used by the VRRP thread. Nothing here blocks.
#[derive(Debug)]
pub struct AdvertSocket {
    receive: Receiver,
    /// Messages that the election would discard for their hop limit or source.
    others: Receiver,
    send: Socket,
    link: NeighbourSocket,
    targets: Vec<(IpAddr, SockAddr)>,
}

/// A socket that messages come from.
#[derive(Debug)]
struct Receiver {
    socket: Socket,
    v4: bool,
    overflowed: u32,
}

impl AdvertSocket {
    /// Opens and configures everything.
    ///
    /// # Errors
    /// What the kernel answers: no permission, the interface or the address is not there (yet).
    pub fn open(config: &Config, endpoint: &LocalEndpoint) -> io::Result<Self> {
        let receive = Receiver::open(config, endpoint, Wanted::Candidates)?;
        let others = Receiver::open(config, endpoint, Wanted::Others)?;
        if !config.unicast {
            if endpoint.primary.is_ipv4() {
                let interface = InterfaceIndexOrAddress::Index(endpoint.ifindex);
                receive.socket.join_multicast_v4_n(&GROUP_V4, &interface)?;
            } else {
                receive.socket.join_multicast_v6(&GROUP_V6, endpoint.ifindex)?;
            }
        }
        let send = raw(endpoint)?;
        // It sends only: what arrives for the node's address must not fill its queue.
        send.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        prepare_sending(&send, endpoint)?;
        let group = [config.group()];
        let targets: &[IpAddr] = if config.unicast { &config.peers } else { &group };
        Ok(Self {
            receive,
            others,
            send,
            link: NeighbourSocket::open(config, endpoint)?,
            targets: targets
                .iter()
                .map(|to| (*to, address(*to, endpoint.ifindex).into()))
                .collect(),
        })
    }

    /// Where adverts go, by position.
    pub fn target(&self, index: usize) -> Option<IpAddr> {
        self.targets.get(index).map(|(to, _)| *to)
    }

    /// Sends a message to one of them.
    ///
    /// # Errors
    /// What sendto(2) returns.
    pub fn send(&self, index: usize, message: &[u8]) -> io::Result<()> {
        let Some((_, address)) = self.targets.get(index) else { return Ok(()) };
        self.send.send_to(message, address).map(drop)
    }

    /// The next message, if one waits, with the number of messages newly lost before it.
    ///
    /// # Errors
    /// `WouldBlock` when none waits.
    pub(super) fn next<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<Received<'b>>> {
        self.receive.next(buffer)
    }

    /// The same of messages that need not be looked at soon: they will be discarded.
    ///
    /// # Errors
    /// `WouldBlock` when none waits.
    pub(super) fn next_other<'b>(
        &mut self,
        buffer: &'b mut [u8],
    ) -> io::Result<Option<Received<'b>>> {
        self.others.next(buffer)
    }

    /// How many of those were newly lost, which a message tells of only if one comes after them.
    pub(super) fn others_lost(&mut self) -> u32 {
        let total = sys::dropped(self.others.socket.as_fd()).unwrap_or(self.others.overflowed);
        let lost = total.wrapping_sub(self.others.overflowed);
        self.others.overflowed = total;
        lost
    }

    /// The interface has another MAC.
    pub(super) fn follow_mac(&mut self, mac: Mac) {
        self.link.follow_mac(mac);
    }

    /// Where announcements go and claims come from.
    pub(super) const fn link(&self) -> &NeighbourSocket {
        &self.link
    }
}

/// A message, its envelope, and the number of messages lost before it.
pub(super) type Received<'b> = (&'b [u8], Envelope, u32);

impl Receiver {
    fn open(config: &Config, endpoint: &LocalEndpoint, wanted: Wanted) -> io::Result<Self> {
        let v4 = endpoint.primary.is_ipv4();
        let socket = raw(endpoint)?;
        socket.attach_filter(&advert_filter(config, wanted))?;
        if !v4 {
            socket.set_recv_hoplimit_v6(true)?;
            sys::switch_on(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        }
        sys::switch_on(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL)?;
        Ok(Self { socket, v4, overflowed: 0 })
    }

    fn next<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<Received<'b>>> {
        let datagram = sys::receive(self.socket.as_fd(), buffer)?;
        // A message that waited has the count of the time when it came.
        let total = datagram.overflowed.unwrap_or(self.overflowed).max(self.overflowed);
        let lost = total.wrapping_sub(self.overflowed);
        self.overflowed = total;
        let bytes = buffer.get(..datagram.len).unwrap_or_default();
        let message = if self.v4 {
            open_v4(bytes)
        } else {
            datagram.source.zip(datagram.destination).zip(datagram.hop_limit).map(
                |((source, destination), ttl)| {
                    let (source, destination) = (source.into(), destination.into());
                    (bytes, Envelope { source, destination, ttl })
                },
            )
        };
        Ok(message.map(|(message, from)| (message, from, lost)))
    }
}

impl AsFd for AdvertSocket {
    /// Readable when a message waits that may be accepted.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receive.socket.as_fd()
    }
}

fn raw(endpoint: &LocalEndpoint) -> io::Result<Socket> {
    let domain = if endpoint.primary.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(endpoint.interface.as_bytes()))?;
    Ok(socket)
}

fn prepare_sending(socket: &Socket, endpoint: &LocalEndpoint) -> io::Result<()> {
    let ttl = u32::from(MAX_TTL);
    if endpoint.primary.is_ipv4() {
        socket.set_ttl_v4(ttl)?;
        socket.set_multicast_ttl_v4(ttl)?;
        socket.set_multicast_loop_v4(false)?;
        sys::set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_TOS, NETWORK_CONTROL)?;
    } else {
        socket.set_unicast_hops_v6(ttl)?;
        socket.set_multicast_hops_v6(ttl)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_if_v6(endpoint.ifindex)?;
        sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_TCLASS, NETWORK_CONTROL)?;
    }
    // Behind the TOS, which sets it too.
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PRIORITY, PRIORITY_CONTROL)?;
    socket.bind(&address(endpoint.primary, endpoint.ifindex).into())
}

/// Link-local addresses mean something on their interface only.
fn address(ip: IpAddr, ifindex: u32) -> SocketAddr {
    match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, 0),
        IpAddr::V6(v6) => {
            let local = v6.is_unicast_link_local() || v6.is_multicast();
            SocketAddrV6::new(v6, 0, 0, if local { ifindex } else { 0 }).into()
        }
    }
}

/// Splits what an IPv4 raw socket delivers: the IP header and its content.
fn open_v4(packet: &[u8]) -> Option<(&[u8], Envelope)> {
    let (header, _) = packet.split_first_chunk::<20>()?;
    let ip = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let begin = usize::from(header[0] & 0x0f) * 4;
    let end = usize::from(u16::from_be_bytes([header[2], header[3]])).min(packet.len());
    let from = Envelope { source: ip(12)?.into(), destination: ip(16)?.into(), ttl: header[8] };
    Some((packet.get(begin..end)?, from))
}

/// DSCP CS6, network control: the value of TOS and traffic class.
const NETWORK_CONTROL: libc::c_int = 0xc0;
/// `TC_PRIO_CONTROL` (linux/pkt_sched.h): the first band of the queueing disciplines.
const PRIORITY_CONTROL: libc::c_int = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ip_header_is_taken_off_and_no_bytes_make_a_panic() {
        let mut packet = vec![0x46, 0xc0, 0, 26, 0, 0, 0, 0, 255, 112, 0, 0];
        packet.extend([192, 0, 2, 1, 224, 0, 0, 18, 0x94, 4, 0, 0, 0x31, 51, 9, 9]);
        let (message, from) = open_v4(&packet).unwrap();
        assert_eq!(message, [0x31, 51], "a header with an option, and padding after the packet");
        assert_eq!((from.ttl, from.destination), (255, IpAddr::V4(GROUP_V4)));
        assert_eq!(from.source, IpAddr::from([192, 0, 2, 1]));
        for first in 0..=255 {
            for len in 0..packet.len() {
                packet[0] = first;
                let _ = open_v4(&packet[..len]);
            }
        }
    }
}
