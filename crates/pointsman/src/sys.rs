//! System calls that have no safe wrapper. All of the binary's `unsafe` is here.
#![expect(unsafe_code, reason = "scheduler and socket calls without a safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Asks for real-time priority (SCHED_FIFO 1) for the calling thread.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE or an RLIMIT_RTPRIO.
pub fn real_time() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: pid 0 is the calling thread; `param` is a valid sched_param that outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has what the calling thread starts from now on, threads and programs, begin at the ordinary
/// scheduling policy, and not above the ordinary priority.
///
/// # Errors
/// What sched_setscheduler(2) returns.
pub fn reset_on_fork() -> io::Result<()> {
    // SAFETY: pid 0 is the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    let mut param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is a valid sched_param that outlives the call.
    if policy < 0 || unsafe { libc::sched_getparam(0, &raw mut param) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: likewise.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for huge pages behind memory that is accessed at random: with small ones nearly every access
/// to a large table misses the TLB. Where the kernel does not give them
/// (`/sys/kernel/mm/transparent_hugepage/enabled` is `never`, Linux before 6.1, memory is short) the
/// pages stay as they are.
pub fn prefer_huge_pages(memory: &Range<*const u8>) {
    let start = memory.start.map_addr(|address| address & !(PAGE - 1));
    let len = memory.end.addr().saturating_sub(start.addr());
    // The first is for pages that are not there yet or will be replaced, the second for the rest.
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE] {
        // SAFETY: neither advice changes what the memory holds or who may access it; of an address
        // that is not mapped the kernel says so.
        let _ = unsafe { libc::madvise(start.cast_mut().cast(), len, advice) };
    }
}

const PAGE: usize = 4096;

/// A received datagram: what the kernel said besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes in the buffer.
    pub len: usize,
    /// IPv6 source (IPv4 raw sockets deliver the IP header instead; likewise below).
    pub source: Option<Ipv6Addr>,
    /// IPv6 destination.
    pub destination: Option<Ipv6Addr>,
    /// NextHop limit.
    pub hop_limit: Option<u8>,
    /// Datagrams that this socket has dropped so far for want of room (`SO_RXQ_OVFL`); absent: none.
    pub overflowed: Option<u32>,
}

/// Receives one datagram with its control messages; never blocks.
///
/// # Errors
/// `EAGAIN` when there is none, and what recvmsg(2) returns.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut name = [0_u8; size_of::<libc::sockaddr_in6>()];
    let mut control = Control([0; 128]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is valid: null pointers with length 0.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = libc::socklen_t::try_from(name.len()).unwrap_or(0);
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: each pointer in `header` is to a live buffer of the length beside it, and nothing
    // else uses these buffers during the call.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut datagram = Datagram { len, source: address_of(&name), ..Datagram::default() };
    read_control(control.0.get(..header.msg_controllen).unwrap_or_default(), &mut datagram);
    Ok(datagram)
}

/// Switches an integer socket option on.
///
/// # Errors
/// What setsockopt(2) returns.
pub fn switch_on(socket: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<()> {
    set_option(socket, level, option, 1)
}

/// Sets an integer socket option.
///
/// # Errors
/// What setsockopt(2) returns.
pub fn set_option(
    socket: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: libc::c_int,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    let fd = socket.as_raw_fd();
    // SAFETY: the value is a live integer of the length given.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many datagrams a socket has dropped so far for want of room (`SO_MEMINFO`, Linux 4.12).
///
/// # Errors
/// What getsockopt(2) returns.
pub fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` (linux/sock_diag.h) is the last of nine.
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut len = libc::socklen_t::try_from(size_of_val(&values)).unwrap_or(0);
    let fd = socket.as_raw_fd();
    // SAFETY: `values` is a live buffer of `len` bytes, of which the kernel fills at most as many.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(values[DROPS]) } else { Err(io::Error::last_os_error()) }
}

/// Binds a packet socket to a device. From then on it receives frames of one EtherType (not those
/// that this node sends).
///
/// # Errors
/// What bind(2) returns.
pub fn bind_packet(socket: BorrowedFd<'_>, ifindex: u32, ethertype: u16) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is valid: it is integers.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_ifindex = ifindex.cast_signed();
    address.sll_protocol = ethertype.to_be();
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: `address` is a valid sockaddr_ll of the length given, and outlives the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Aligned as control messages must be.
#[repr(align(8))]
struct Control([u8; 128]);

/// The address of a `sockaddr_in6`.
fn address_of(name: &[u8; size_of::<libc::sockaddr_in6>()]) -> Option<Ipv6Addr> {
    let family = u16::from_ne_bytes([name[0], name[1]]);
    let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
    (i32::from(family) == libc::AF_INET6).then(|| Ipv6Addr::from(octets))
}

/// Walks `struct cmsghdr` by hand: length (of header and data), level, type, data, padding.
fn read_control(mut bytes: &[u8], datagram: &mut Datagram) {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    const WORD: usize = size_of::<usize>();
    while let Some((header, _)) = bytes.split_at_checked(HEADER) {
        let integer = |at: usize| {
            header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes)
        };
        let len =
            header.get(..WORD).and_then(|b| b.try_into().ok()).map_or(0, usize::from_ne_bytes);
        let Some(data) = bytes.get(HEADER..len) else { return };
        let word = || data.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
        match (integer(WORD), integer(WORD + 4)) {
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => datagram.overflowed = word(),
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                datagram.hop_limit = word().and_then(|next_hops| u8::try_from(next_hops).ok());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let octets: Option<[u8; 16]> = data.get(..16).and_then(|b| b.try_into().ok());
                datagram.destination = octets.map(Ipv6Addr::from);
            }
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(WORD)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_of_any_bytes_are_read_without_a_panic() {
        let message = |level: i32, kind: i32, data: &[u8]| {
            let len = size_of::<libc::cmsghdr>() + data.len();
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend(level.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(data);
            bytes.resize(len.next_multiple_of(8), 0);
            bytes
        };
        let mut info = Ipv6Addr::LOCALHOST.octets().to_vec();
        info.extend([0; 4]);
        let all = [
            message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7_u32.to_ne_bytes()),
            message(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &255_u32.to_ne_bytes()),
            message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info),
        ]
        .concat();
        let mut datagram = Datagram::default();
        read_control(&all, &mut datagram);
        assert_eq!((datagram.overflowed, datagram.hop_limit), (Some(7), Some(255)));
        assert_eq!(datagram.destination, Some(Ipv6Addr::LOCALHOST));
        for cut in 0..all.len() {
            for flip in 0..cut {
                let mut bytes = all[..cut].to_vec();
                bytes[flip] ^= 0xff;
                read_control(&bytes, &mut Datagram::default());
            }
        }
    }
}
