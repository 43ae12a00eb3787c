//! Sockets of probes, and what their errors mean.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use control::health::Failure;
use openssl::ssl;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::text::printable;
use super::tls;
use crate::sys;

/// Where a probe goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Address and port; port 0 where there are none.
    pub(super) address: SocketAddr,
    /// The address of this node that it comes from. `None`: the kernel chooses.
    pub(super) source: Option<IpAddr>,
    /// The interface that it leaves by.
    pub(super) device: Arc<str>,
    /// Mark that selects the routing table. `None`: routed like anything else.
    pub(super) mark: Option<u32>,
}

/// A socket that never blocks, bound to the interface towards the backend.
fn open(target: &Target, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    let domain = Domain::for_address(target.address);
    let socket = Socket::new(domain, kind.nonblocking(), protocol)?;
    socket.bind_device(Some(target.device.as_bytes()))?;
    if let Some(mark) = target.mark {
        socket.set_mark(mark)?;
    }
    if let Some(source) = target.source {
        bind(&socket, source, kind).map_err(|error| unbindable(source, &error))?;
    }
    Ok(socket)
}

/// Binds to an address. The port of a connection is chosen when it is made: else each would take
/// one for all destinations.
fn bind(socket: &Socket, source: IpAddr, kind: Type) -> io::Result<()> {
    if kind == Type::STREAM {
        sys::switch_on(socket.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
    }
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// An error that says whose fault it is: no system call's number would tell it from one of the
/// backend.
fn unbindable(source: IpAddr, error: &io::Error) -> io::Error {
    let text = match Errno::from_io_error(error) {
        Some(Errno::ADDRNOTAVAIL) => format!("this node does not have the source {source}"),
        _ => format!("cannot bind to the source {source}: {error}"),
    };
    io::Error::other(text)
}

/// Makes a connection.
pub(super) async fn connect(target: &Target) -> Result<TcpStream, Failure> {
    let stream = async {
        let socket = open(target, Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        TcpSocket::from_std_stream(socket.into()).connect(target.address).await
    };
    stream.await.map_err(|error| failure_of(&error))
}

/// A socket for datagrams to and from one address only: UDP, or raw.
#[derive(Debug)]
pub(super) struct Datagrams(UdpSocket);

impl Datagrams {
    /// Opens and connects it. ICMP errors are reported, also the ones that a connected socket usually does
    /// not hear of included.
    pub(super) fn connect(
        target: &Target,
        kind: Type,
        protocol: Option<Protocol>,
    ) -> io::Result<Self> {
        let socket = open(target, kind, protocol)?;
        match target.address {
            SocketAddr::V4(_) => {
                sys::switch_on(socket.as_fd(), libc::IPPROTO_IP, libc::IP_RECVERR)?;
            }
            SocketAddr::V6(_) => {
                sys::switch_on(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?;
            }
        }
        socket.connect(&target.address.into())?;
        UdpSocket::from_std(socket.into()).map(Self)
    }

    pub(super) async fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.0.send(payload).await.map(drop)
    }

    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::io::Read;
        self.0.async_io(READ, || (&*SockRef::from(&self.0)).read(buffer)).await
    }
}

/// An ICMP error makes a socket neither readable nor writable.
const READ: Interest = Interest::READABLE.add(Interest::ERROR);

/// What an error of a socket says of the backend.
pub(super) fn failure_of(error: &io::Error) -> Failure {
    failure_or(error, Failure::Local)
}

/// The same of a protocol over a socket: `broken` if it is not the system's error, so that it is
/// about what the server sent.
pub(super) fn failure_or(error: &io::Error, broken: fn(String) -> Failure) -> Failure {
    if let Some(error) = error.get_ref().and_then(|e| e.downcast_ref::<ssl::Error>()) {
        return tls::failure_of(error);
    }
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => Failure::Refused,
        Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => Failure::Reset,
        Some(Errno::TIMEDOUT) => Failure::Timeout,
        Some(
            Errno::HOSTUNREACH
            | Errno::HOSTDOWN
            // ICMPv6 "administratively prohibited".
            | Errno::ACCESS
            | Errno::NOPROTOOPT,
        ) => Failure::Unreachable,
        None if error.kind() == io::ErrorKind::UnexpectedEof => Failure::Closed,
        Some(_) => Failure::Local(printable(error)),
        None => broken(printable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_is_wrong() {
        let table = [
            (libc::ECONNREFUSED, "refused"),
            (libc::ECONNRESET, "reset"),
            (libc::EPIPE, "reset"),
            (libc::ETIMEDOUT, "timeout"),
            (libc::EHOSTUNREACH, "unreachable"),
            // This node has no route or no link.
            (libc::ENETUNREACH, "local"),
            (libc::ENETDOWN, "local"),
            (libc::ENODEV, "local"),
            (libc::EACCES, "unreachable"),
            (libc::EADDRNOTAVAIL, "local"),
            (libc::EMFILE, "local"),
        ];
        for (errno, name) in table {
            let failure = failure_of(&io::Error::from_raw_os_error(errno));
            assert_eq!(failure.name(), name, "errno {errno}");
        }
        assert_eq!(failure_of(&io::ErrorKind::UnexpectedEof.into()), Failure::Closed);
        let stack = openssl::x509::X509::from_der(b"\x1b[2J").expect_err("no certificate");
        let garbage = io::Error::other(ssl::Error::from(stack));
        assert_eq!(failure_of(&garbage).name(), "tls");
        assert!(!failure_of(&garbage).to_string().contains('\x1b'));
    }
}
