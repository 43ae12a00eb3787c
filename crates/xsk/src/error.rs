//! Why a socket could not be opened: what, where, why and how to fix it.

use std::time::Duration;

use rustix::io::Errno;

/// Why [`open`](crate::open) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// [`OpenConfig::frames`](crate::OpenConfig::frames) is out of range.
    #[error(
        "{frames} frames for {interface} queue {queue}: must be a power of two from {min} to {max}"
    )]
    Frames {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What was asked for.
        frames: u32,
        /// The smallest count allowed.
        min: u32,
        /// The largest count allowed.
        max: u32,
    },

    /// There is no such interface, or it went away meanwhile.
    #[error(
        "no interface {interface:?} in this network namespace: check the name with `ip link show`"
    )]
    NoInterface {
        /// The interface.
        interface: String,
    },

    /// The interface does not have this queue.
    #[error(
        "{interface} has no queue {queue}: it has {}; see `ethtool -l {interface}`",
        queues_text(*.queues)
    )]
    NoQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// How many the interface has.
        queues: u32,
    },

    /// A packet of the interface's MTU does not fit in a frame.
    #[error(
        "{interface} has MTU {mtu}: packets of up to {packet} bytes (with Ethernet and two VLAN \
         tags) do not fit in a frame, which holds {capacity}; set it to at most {max_mtu} \
         (`ip link set {interface} mtu {max_mtu}`)"
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU, bytes.
        mtu: u32,
        /// The longest packet, bytes.
        packet: u32,
        /// What the largest frame holds, bytes.
        capacity: u32,
        /// The largest MTU that fits, bytes.
        max_mtu: u32,
    },

    /// Zero-copy was demanded in generic mode, which has none.
    #[error(
        "{interface}: generic mode has no zero-copy; set zero_copy to \"auto\" or \"off\", or use \
         native mode"
    )]
    GenericZeroCopy {
        /// The interface.
        interface: String,
    },

    /// Zero-copy was demanded and the driver refused.
    #[error(
        "{interface} queue {queue}: the driver does not give zero-copy ({errno}); set zero_copy to \
         \"auto\" or \"off\", or {}",
        zero_copy_remedy(*.errno)
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What bind(2) said.
        errno: Errno,
    },

    /// The process lacks a capability.
    #[error(
        "{interface} queue {queue}: opening an AF_XDP socket is not permitted ({errno}): it needs \
         CAP_NET_RAW (and CAP_NET_ADMIN and CAP_BPF for what surrounds it); run as root or set \
         AmbientCapabilities= in the systemd unit"
    )]
    Permission {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        errno: Errno,
    },

    /// The frames' memory would exceed the limit of locked memory.
    #[error(
        "{interface} queue {queue}: {needed_kib} KiB of packet memory cannot be locked, the limit \
         is {limit_kib} KiB (for all queues together); set LimitMEMLOCK=infinity in the systemd \
         unit, `ulimit -l unlimited` in a shell, or grant CAP_IPC_LOCK"
    )]
    Memlock {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What this queue needs.
        needed_kib: u64,
        /// The present soft limit.
        limit_kib: u64,
    },

    /// Another socket holds the queue.
    #[error(
        "{interface} queue {queue} is busy and stayed so for {} ms: another AF_XDP socket holds \
         it, of another pointsman or a program such as xdpsock or Suricata; find it with \
         `ss --xdp --processes`",
        .waited.as_millis()
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// How long it was tried.
        waited: Duration,
    },

    /// The kernel has no AF_XDP.
    #[error(
        "this kernel has no AF_XDP sockets: it needs CONFIG_XDP_SOCKETS=y (Linux 5.4 or newer)"
    )]
    Unsupported,

    /// Anything else that the kernel said.
    #[error("{interface} queue {queue}: {step}: {errno}")]
    Os {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What to change where a driver refused zero-copy with this error.
pub fn zero_copy_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::OPNOTSUPP => {
            "use a driver that has it (virtio_net: Linux 6.16 or later, and `iommu_platform=on` for \
             the device)"
        }
        Errno::INVAL => {
            "change what the driver does not take: more RX ring entries (`ethtool -G`), a smaller \
             MTU, LRO off (`ethtool -K`); virtio_net takes it with `iommu_platform=on` for the device"
        }
        Errno::BUSY => "end what else uses the queue",
        Errno::NOMEM | Errno::NOBUFS => "give the host more memory or use fewer `frames`",
        _ => "look for the driver's reason in `dmesg`",
    }
}

fn queues_text(queues: u32) -> String {
    match queues {
        0 => "none".to_owned(),
        1 => "only queue 0".to_owned(),
        _ => format!("queues 0 to {}", queues - 1),
    }
}
