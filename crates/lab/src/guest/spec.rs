//! Which machine a guest is: kernel, network card, processors. All of it is data, so that a test
//! can be a table of such values.

use std::fmt;

/// A Debian kernel, by the suite that it comes from and the beginning of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    /// Major and minor version, for example `6.1`. The newest one of the suite is taken.
    pub version: &'static str,
    /// Debian suite, for example `bookworm`.
    pub suite: &'static str,
}

impl Kernel {
    /// Debian 11's. Too old: for the message that says so.
    pub const V5_10: Self = Self { version: "5.10", suite: "bullseye" };
    /// Debian 12's: the reference.
    pub const V6_1: Self = Self { version: "6.1", suite: "bookworm" };
    /// Debian 12's from bookworm-backports.
    pub const V6_12_BACKPORTS: Self = Self { version: "6.12", suite: "bookworm-backports" };
    /// Debian 13's.
    pub const V6_12: Self = Self { version: "6.12", suite: "trixie" };
    /// The first with zero-copy for virtio-net over `iommu_platform=on`.
    pub const V6_16: Self = Self { version: "6.16", suite: "trixie-backports" };
    /// A long-term kernel from trixie-backports.
    pub const V6_18: Self = Self { version: "6.18", suite: "trixie-backports" };
    /// The newest from trixie-backports.
    pub const V7_3: Self = Self { version: "7.3", suite: "trixie-backports" };
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V5_10,
        Self::V6_1,
        Self::V6_12_BACKPORTS,
        Self::V6_12,
        Self::V6_16,
        Self::V6_18,
        Self::V7_3,
    ];
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version, self.suite)
    }
}

/// An emulated network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Card {
    /// virtio-net, as in KVM and most clouds.
    VirtioNet,
    /// Intel 82576, driver igb. QEMU has it from version 8 on: taken from bookworm-backports.
    Igb,
    /// Intel 82574L, driver e1000e. Its driver knows no XDP.
    E1000e,
    /// VMware's.
    Vmxnet3,
}

impl Card {
    /// Name of the kernel's driver, which is its module's.
    #[must_use]
    pub fn driver(self) -> &'static str {
        match self {
            Self::VirtioNet => "virtio_net",
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
            Self::Vmxnet3 => "vmxnet3",
        }
    }

    /// QEMU's name of the device.
    pub(super) fn device(self) -> &'static str {
        match self {
            Self::VirtioNet => "virtio-net-pci",
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
            Self::Vmxnet3 => "vmxnet3",
        }
    }

    /// The Debian suite whose QEMU has the card; none: the installed one.
    pub(super) fn qemu_suite(self) -> Option<&'static str> {
        (self == Self::Igb).then_some("bookworm-backports")
    }
}

/// How a guest is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSpec {
    pub(super) number: u8,
    pub(super) kernel: Kernel,
    pub(super) card: Card,
    pub(super) queues: u8,
    pub(super) cpus: u8,
    pub(super) options: &'static str,
    pub(super) memory_mb: u16,
    pub(super) systemd: bool,
}

impl GuestSpec {
    /// Balancer 1 with one CPU and a virtio-net card with one queue.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self {
            number: 1,
            kernel,
            card: Card::VirtioNet,
            queues: 1,
            cpus: 1,
            options: "",
            memory_mb: 512,
            systemd: false,
        }
    }

    /// Which balancer it is: it gets the name (`lb2`), the addresses (10.77.2.2) and the MAC of
    /// that balancer, so the lab must have been built without it.
    #[must_use]
    pub fn number(mut self, number: u8) -> Self {
        self.number = number;
        self
    }

    /// Another card.
    #[must_use]
    pub fn card(mut self, card: Card) -> Self {
        self.card = card;
        self
    }

    /// Queue pairs of a virtio-net card (default 1). The number of queues of the other cards
    /// follows from the CPUs.
    #[must_use]
    pub fn queues(mut self, count: u8) -> Self {
        self.queues = count;
        self
    }

    /// CPUs (default 1).
    #[must_use]
    pub fn cpus(mut self, count: u8) -> Self {
        self.cpus = count;
        self
    }

    /// More properties of the device as QEMU takes them, for example
    /// `iommu_platform=on,disable-legacy=on`.
    #[must_use]
    pub fn options(mut self, properties: &'static str) -> Self {
        self.options = properties;
        self
    }

    /// systemd of this machine as the first process, with its targets and no unit; `systemctl` works
    /// as soon as the guest is booted (default: no service manager).
    #[must_use]
    pub fn systemd(mut self) -> Self {
        self.systemd = true;
        self
    }

    /// Memory in MiB (default 512).
    #[must_use]
    pub fn memory_mb(mut self, megabytes: u16) -> Self {
        self.memory_mb = megabytes;
        self
    }
}
