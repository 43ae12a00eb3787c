//! System calls that have no safe wrapper. All of the binary's `unsafe` is here.
#![expect(unsafe_code, reason = "ioctl and scheduler calls without a safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// RX queues that a device uses now (`ethtool -l`): those with combined channels plus those with
/// RX-only channels. Devices that do not tell have one.
///
/// # Errors
/// `ENODEV` when there is no such device, and what socket(2) returns.
pub fn rx_queues(interface: &str) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut channels = EthtoolChannels { cmd: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
    match ethtool(&socket, interface, &mut channels) {
        Ok(()) => Ok((channels.combined_count + channels.rx_count).max(1)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        Err(error) => Err(error),
    }
}

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

fn ethtool(socket: &OwnedFd, interface: &str, data: &mut EthtoolChannels) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid: it is integers and a union of integers and pointers.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    let name = interface.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut *data).cast();
    // SAFETY: SIOCETHTOOL reads and writes `request`, and through ifru_data an ethtool_channels,
    // which `data` is; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct ethtool_channels` of `include/uapi/linux/ethtool.h`.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

const ETHTOOL_GCHANNELS: u32 = 0x3c;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_one_queue_and_a_missing_device_an_error() {
        assert_eq!(rx_queues("lo").unwrap(), 1);
        assert_eq!(rx_queues("no-such-dev").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert_eq!(rx_queues(&"x".repeat(40)).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
