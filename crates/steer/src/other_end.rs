//! Whether the other end of a veth receives what an XDP program sends at this end.

use std::os::fd::BorrowedFd;

use libbpf_rs::{Xdp, XdpFlags};

/// The other end of a veth, which may be in another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherEnd {
    /// It has an XDP program, or GRO.
    Receives,
    /// It has neither: the kernel loses what this end sends.
    Loses,
    /// The kernel does not say: before Linux 6.3.
    Unknown,
}

/// Asks for the device's XDP features (`Documentation/netlink/specs/netdev.yaml`): a veth says that
/// frames can be sent to it by XDP only while its other end is ready to. `any_fd` is not looked at.
pub(crate) fn ask(any_fd: BorrowedFd<'_>, ifindex: u32) -> OtherEnd {
    let index = i32::try_from(ifindex).unwrap_or_default();
    match Xdp::new(any_fd).query(index, XdpFlags::NONE).map(|query| query.feature_flags) {
        Ok(0) | Err(_) => OtherEnd::Unknown,
        Ok(flags) if flags & NDO_XMIT != 0 => OtherEnd::Receives,
        Ok(_) => OtherEnd::Loses,
    }
}

/// `NETDEV_XDP_ACT_NDO_XMIT`.
const NDO_XMIT: u64 = 1 << 2;
