//! Socket options of a bound socket. All are best effort: what the kernel lacks is left out.
#![expect(unsafe_code, reason = "setsockopt for options that rustix does not have")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::XdpOptionsFlags;

use super::interface::last_errno;

/// Whether the socket was bound in zero-copy mode.
pub(super) fn zero_copy(socket: impl AsFd) -> Result<bool, Errno> {
    let options = sockopt::xdp_options(socket)?;
    Ok(options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
}

/// Lets one kick send up to `descriptors` packets in copy mode (Linux 6.17; the default is 32).
/// None if the kernel has no such option.
pub(super) fn set_tx_budget(socket: impl AsFd, descriptors: u32) -> Option<u32> {
    match set(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, descriptors) {
        Ok(()) => Some(descriptors),
        Err(Errno::NOPROTOOPT) => None,
        Err(errno) => {
            tracing::warn!(%errno, descriptors, "XDP_MAX_TX_SKB_BUDGET refused");
            None
        }
    }
}

/// Raises the send buffer, which in copy mode bounds the packets on their way, and returns what it
/// is then, in bytes.
pub(super) fn raise_send_buffer(socket: impl AsFd, bytes: usize) -> usize {
    let socket = socket.as_fd();
    // Past net.core.wmem_max only with CAP_NET_ADMIN; else up to it.
    let raised = sockopt::set_socket_send_buffer_size_force(socket, bytes)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, bytes));
    if let Err(errno) = raised {
        tracing::warn!(%errno, bytes, "send buffer not raised");
    }
    sockopt::socket_send_buffer_size(socket).unwrap_or(0)
}

/// Makes the socket poll the device itself instead of waiting for its interrupts; false if the
/// kernel or the capabilities do not allow it.
pub(super) fn prefer_busy_poll(socket: impl AsFd) -> bool {
    let socket = socket.as_fd();
    let wanted = [
        (SO_PREFER_BUSY_POLL, 1),
        (SO_BUSY_POLL, BUSY_POLL_MICROSECONDS),
        (SO_BUSY_POLL_BUDGET, BUSY_POLL_PACKETS),
    ];
    for (option, value) in wanted {
        if let Err(errno) = set(socket, libc::SOL_SOCKET, option, value) {
            tracing::warn!(%errno, option, "busy polling not available");
            return false;
        }
    }
    true
}

/// Has a packet socket hand its packets to the driver at once.
pub(super) fn bypass_queueing(socket: impl AsFd) -> Result<(), Errno> {
    set(socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)
}

fn set(socket: impl AsFd, level: i32, option: i32, value: u32) -> Result<(), Errno> {
    let value = libc::c_int::try_from(value).map_err(|_| Errno::RANGE)?;
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::RANGE)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `fd` is open for the call, and pointer and length describe `value`, which all options
    // set here read as a C int.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// `linux/if_xdp.h`, since Linux 6.17.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

/// `asm-generic/socket.h`.
const SO_BUSY_POLL: i32 = 46;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;

const BUSY_POLL_MICROSECONDS: u32 = 20;
const BUSY_POLL_PACKETS: u32 = 64;
