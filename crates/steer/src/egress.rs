//! Whether a device takes frames that an XDP program of another device, or its own, redirects to it.

use std::os::fd::BorrowedFd;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Xdp, XdpFlags};

use crate::error::SteerError;

/// What the kernel says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// It takes them. A veth does while its other end has an XDP program or GRO.
    Takes,
    /// It does not: what is redirected to it is lost.
    Refuses,
    /// The kernel does not say: before Linux 6.3.
    Unknown,
}

/// Asks for the device's XDP features (`Documentation/netlink/specs/netdev.yaml`).
pub(crate) fn ask(any_fd: BorrowedFd<'_>, ifindex: u32) -> Egress {
    let index = i32::try_from(ifindex).unwrap_or_default();
    match Xdp::new(any_fd).query(index, XdpFlags::NONE).map(|query| query.feature_flags) {
        Ok(0) | Err(_) => Egress::Unknown,
        Ok(flags) if flags & NDO_XMIT != 0 => Egress::Takes,
        Ok(_) => Egress::Refuses,
    }
}

/// Has programs redirect frames to the device, or not any more. The kernel takes a device that goes
/// out of the map by itself.
pub(crate) fn set(map: &MapHandle, ifindex: u32, takes: bool) -> Result<(), SteerError> {
    let key = ifindex.to_ne_bytes();
    let result = if takes { map.update(&key, &key, MapFlags::ANY) } else { map.delete(&key) };
    match result {
        Err(error) if !takes && error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
        result => result.map_err(SteerError::map("change the interfaces that take frames")),
    }
}

/// `NETDEV_XDP_ACT_NDO_XMIT`.
const NDO_XMIT: u64 = 1 << 2;
