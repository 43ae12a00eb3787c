//! What can go wrong between this process and the kernel's BPF side, and what to do about it.

use std::io;
use std::time::Duration;

use crate::attach::AttachMode;
use crate::foreign::Foreign;
use crate::kernel::KernelVersion;

/// Why the steering program could not be loaded, attached or changed. Each message is complete: it
/// contains what the kernel said, so that there is no `source()` to print after it.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// A capability is missing. CAP_PERFMON is for arithmetic with packet pointers.
    #[error(
        "no permission to {action}: it takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON \
         (run as root, or with AmbientCapabilities= in the systemd unit)"
    )]
    NoPermission {
        /// What was refused.
        action: &'static str,
    },
    /// The kernel is older than any that is supported.
    #[error(
        "this is Linux {release}, and Pointsman needs Linux {} or later: boot a newer kernel \
         (distributions have them as backports or hardware enablement kernels)",
        KernelVersion::MINIMUM
    )]
    Kernel {
        /// The running kernel, as of `uname -r`.
        release: String,
    },
    /// The kernel's verifier refused a program.
    #[error(
        "the verifier of this kernel (Linux {release}) refuses the BPF program: {verdict}. Please \
         report this with the lines below; meanwhile another kernel may take it{}",
        indented(log)
    )]
    Verifier {
        /// The running kernel, as of `uname -r`.
        release: String,
        /// What the verifier objects to.
        verdict: String,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// The kernel refused programs or maps for another reason.
    #[error(
        "this kernel (Linux {release}) does not load the BPF programs: {reason} (it must be \
         built with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and CONFIG_XDP_SOCKETS: see \
         /boot/config-{release}){}",
        indented(log)
    )]
    Load {
        /// The running kernel, as of `uname -r`.
        release: String,
        /// The error itself.
        reason: String,
        /// The last lines of libbpf's log; empty if there was none.
        log: Vec<String>,
    },
    /// ENOMEM while maps were made.
    #[error(
        "the kernel has no memory for the BPF maps: raise the memory limit of the cgroup \
         (before Linux 5.11: RLIMIT_MEMLOCK, `ulimit -l unlimited` or LimitMEMLOCK=infinity)"
    )]
    Memlock,
    /// The clock of the leases is not the clock of this process.
    #[error(
        "CLOCK_MONOTONIC of this process and the clock of BPF programs differ by {} ms (limit: {} \
         ms): leases would be wrong. The process runs in a time namespace of its own \
         (`unshare --time`, a container runtime with time offsets): start it outside",
        difference.as_millis(),
        limit.as_millis()
    )]
    Clock {
        /// How far the two clocks are apart at least.
        difference: Duration,
        /// How far they may be apart.
        limit: Duration,
    },
    /// No interface has this name, or it has another index by now.
    #[error(
        "no interface {interface} with index {ifindex} in this network namespace (see `ip link`)"
    )]
    NoSuchInterface {
        /// Its name.
        interface: String,
        /// Its index.
        ifindex: u32,
    },
    /// Another program is attached; it was left as it is.
    #[error("{0}")]
    Foreign(Box<Foreign>),
    /// The driver cannot run XDP with frames as long as the MTU allows.
    #[error(
        "{interface}: the driver takes no XDP program in native mode at {}: lower it to {limit} \
         or less (`ip link set dev {interface} mtu 1500`; of a veth pair, the MTU of the peer \
         counts), or use mode = \"generic\"",
        match mtu {
            Some(mtu) => format!("an MTU of {mtu}"),
            None => "this MTU".to_owned(),
        }
    )]
    MtuTooLarge {
        /// Its name.
        interface: String,
        /// Its MTU in bytes, if it could be read.
        mtu: Option<u32>,
        /// What fits into a page with headroom and trailer, bytes. Drivers may allow less.
        limit: u32,
    },
    /// The kernel refused the attachment for another reason.
    #[error(
        "{interface}: cannot attach the steering program in {mode} mode: {error}{}",
        hint(error)
    )]
    Attach {
        /// Its name.
        interface: String,
        /// The mode that was asked for.
        mode: AttachMode,
        /// What the kernel said.
        error: io::Error,
    },
    /// The program that keeps VLAN tags could not be attached to a device below an interface.
    #[error(
        "{device}: cannot attach the program that keeps VLAN tags to its ingress hook: {reason} (before \
         Linux 6.6 that takes the modules sch_ingress and cls_bpf, and no filter of another kind with \
         priority 1: see `tc filter show dev {device} ingress`)"
    )]
    Ingress {
        /// Its name.
        device: String,
        /// What the kernel said.
        reason: String,
    },
    /// A map operation failed.
    #[error("cannot {action}: {error}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// What libbpf said.
        error: libbpf_rs::Error,
    },
    /// A VIP's instance or a socket's queue is beyond its array.
    #[error("{what} {index} is out of range: there is room for {room}")]
    OutOfRange {
        /// `"instance"` or `"queue"`.
        what: &'static str,
        /// What was asked for.
        index: u32,
        /// Valid are 0 up to this, exclusive.
        room: u32,
    },
    /// The VIP map is full.
    #[error("there is room for {room} VIPs and no more")]
    TooManyVips {
        /// Entries of the VIP map.
        room: u32,
    },
    /// Anything else that the system refused.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl SteerError {
    /// For `map_err`.
    pub(crate) fn map(action: &'static str) -> impl FnOnce(libbpf_rs::Error) -> Self {
        move |error| {
            if error.kind() == libbpf_rs::ErrorKind::PermissionDenied {
                return Self::NoPermission { action };
            }
            Self::Map { action, error }
        }
    }

    /// For `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System { action, error: error.into() }
    }
}

fn indented(log: &[String]) -> String {
    log.iter().map(|line| format!("\n    {line}")).collect()
}

/// What drivers mean by their bare error numbers.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            " (the driver has no native XDP, or an offload is in its way: try `ethtool -K … lro off \
             rx-gro-hw off`, or mode = \"generic\")"
        }
        Some(libc::ENOSPC) => {
            " (a veth needs as many RX queues as its peer has TX queues: see `ethtool -l`)"
        }
        Some(libc::ENOMEM) => {
            " (the driver has no memory or no queues left for XDP: use fewer queues with `ethtool -L` or \
             smaller rings with `ethtool -G`, or mode = \"generic\")"
        }
        _ => "",
    }
}
