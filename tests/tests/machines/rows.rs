//! The machines, as data: one row, one guest.

use std::fmt;

use lab::{Card, GuestSpec, Kernel};

use super::above::Above;

/// A machine, the configuration of its interface, and what must come of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) kernel: Kernel,
    pub(crate) card: Card,
    /// Queue pairs (virtio-net only).
    pub(crate) queues: u8,
    pub(crate) cpus: u8,
    /// QEMU's properties of the device.
    pub(crate) options: &'static str,
    /// What stands on the card and is configured in its place.
    pub(crate) above: Option<Above>,
    /// Lines of `[[interface]]`.
    pub(crate) interface: &'static str,
    pub(crate) expected: Expected,
}

/// What must come of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It forwards, with this attach mode and this way of moving frames: `native, zero-copy`.
    Forwards(&'static str),
    /// It refuses to start, and the message has all of these words.
    Refuses(&'static [&'static str]),
}

const fn row(kernel: Kernel, card: Card) -> Row {
    Row {
        kernel,
        card,
        queues: 1,
        cpus: 1,
        options: "",
        above: None,
        interface: "",
        expected: Expected::Forwards(NATIVE),
    }
}

impl Row {
    const fn size(self, queues: u8, cpus: u8) -> Self {
        Self { queues, cpus, ..self }
    }

    const fn options(self, options: &'static str) -> Self {
        Self { options, ..self }
    }

    const fn above(self, above: Above) -> Self {
        Self { above: Some(above), ..self }
    }

    const fn interface(self, interface: &'static str) -> Self {
        Self { interface, ..self }
    }

    const fn got(self, got: &'static str) -> Self {
        Self { expected: Expected::Forwards(got), ..self }
    }

    const fn refused(self, words: &'static [&'static str]) -> Self {
        Self { expected: Expected::Refuses(words), ..self }
    }

    /// The interface that is configured.
    pub(crate) fn device(&self) -> &'static str {
        self.above.map_or("eth0", Above::name)
    }

    /// The guest.
    pub(crate) fn spec(&self) -> GuestSpec {
        GuestSpec::new(self.kernel)
            .card(self.card)
            .queues(self.queues)
            .cpus(self.cpus)
            .options(self.options)
    }

    /// Queues and CPUs in words, and the device's properties.
    pub(crate) fn machine(&self) -> String {
        let cpus = format!("{} CPU{}", self.cpus, if self.cpus == 1 { "" } else { "s" });
        let queues = match (self.card, self.queues) {
            (Card::VirtioNet, 1) => "1 queue, ".to_owned(),
            (Card::VirtioNet, queues) => format!("{queues} queues, "),
            (Card::Igb | Card::E1000e | Card::Vmxnet3, _) => String::new(),
        };
        let options = match self.options {
            "" => String::new(),
            options => format!(", `{options}`"),
        };
        let above = match self.above {
            None => String::new(),
            Some(above) => format!(", {above}"),
        };
        format!("{queues}{cpus}{options}{above}")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (driver, kernel, machine) = (self.card.driver(), self.kernel, self.machine());
        write!(f, "{driver} {kernel} {machine} {}", self.interface.replace('\n', " "))
    }
}

/// Every kernel with the card that is everywhere.
pub(crate) const KERNELS: &[Row] = &[
    row(Kernel::V5_10, VIRTIO).refused(&["5.10", "needs Linux", "boot a newer kernel"]),
    row(Kernel::V6_1, VIRTIO),
    row(Kernel::V6_12_BACKPORTS, VIRTIO),
    row(Kernel::V6_12, VIRTIO),
    row(Kernel::V6_16, VIRTIO),
    row(Kernel::V6_18, VIRTIO),
    row(Kernel::V7_3, VIRTIO),
];

/// Every card, by kernel, size and mode.
pub(crate) const CARDS: &[Row] = &[
    row(Kernel::V6_1, VIRTIO),
    row(Kernel::V6_1, VIRTIO).size(2, 2),
    row(Kernel::V6_1, VIRTIO).size(4, 2),
    row(Kernel::V6_1, VIRTIO).interface(GENERIC_MODE).got(GENERIC),
    row(Kernel::V6_1, VIRTIO)
        .interface(ZERO_COPY_ON)
        .refused(&["zero-copy", "set zero_copy to \"auto\""]),
    row(Kernel::V6_12, VIRTIO).size(1, 2),
    row(Kernel::V6_12, VIRTIO).size(1, 4),
    row(Kernel::V6_12, VIRTIO).size(2, 1),
    row(Kernel::V6_12, VIRTIO).size(2, 2),
    row(Kernel::V6_12, VIRTIO).size(2, 4),
    row(Kernel::V6_12, VIRTIO).size(4, 1),
    row(Kernel::V6_12, VIRTIO).size(4, 2),
    row(Kernel::V6_12, VIRTIO).size(4, 4),
    row(Kernel::V6_12, VIRTIO).interface(GENERIC_MODE).got(GENERIC),
    row(Kernel::V6_12, VIRTIO).options(IOMMU),
    row(Kernel::V6_12, VIRTIO)
        .options("ctrl_guest_offloads=off")
        .refused(&["ctrl_guest_offloads=on"]),
    row(Kernel::V6_12, VIRTIO).options("mrg_rxbuf=off").got(GENERIC),
    row(Kernel::V6_16, VIRTIO).options(IOMMU).got(ZERO_COPY),
    row(Kernel::V7_3, VIRTIO).size(4, 2),
    row(Kernel::V7_3, VIRTIO).options(IOMMU).got(ZERO_COPY),
    row(Kernel::V7_3, VIRTIO).options(IOMMU).size(2, 2).got(ZERO_COPY),
    row(Kernel::V7_3, VIRTIO).interface(ZERO_COPY_ON).refused(&["iommu_platform=on"]),
    row(Kernel::V6_1, Card::Igb),
    row(Kernel::V6_12, Card::Igb),
    row(Kernel::V6_18, Card::Igb),
    row(Kernel::V7_3, Card::Igb).got(ZERO_COPY),
    row(Kernel::V7_3, Card::Igb).size(1, 2).got(ZERO_COPY),
    row(Kernel::V7_3, Card::Igb).interface(ZERO_COPY_OFF),
    row(Kernel::V7_3, Card::Igb).interface(GENERIC_MODE).got(GENERIC),
    row(Kernel::V6_1, Card::E1000e).got(GENERIC),
    row(Kernel::V6_12, Card::E1000e).got(GENERIC),
    row(Kernel::V7_3, Card::E1000e).got(GENERIC),
    row(Kernel::V7_3, Card::E1000e).interface(NATIVE_MODE).refused(&["mode = \"generic\""]),
    row(Kernel::V6_1, Card::Vmxnet3).got(GENERIC),
    row(Kernel::V6_12, Card::Vmxnet3).got(GENERIC),
    row(Kernel::V6_12, Card::Vmxnet3).size(1, 2).got(GENERIC),
    row(Kernel::V6_12, Card::Vmxnet3)
        .interface(NATIVE_MODE)
        .refused(&["vmxnet3", "mode = \"generic\""]),
    row(Kernel::V7_3, Card::Vmxnet3).got(GENERIC),
];

/// What stands on a card.
pub(crate) const STACKS: &[Row] = &[
    row(Kernel::V6_1, VIRTIO).above(Above::Vlan).got(GENERIC),
    row(Kernel::V6_1, VIRTIO).above(Above::Macvlan).got(GENERIC),
    row(Kernel::V6_1, VIRTIO).above(Above::Bridge).got(GENERIC),
    row(Kernel::V6_1, VIRTIO).above(Above::Bond).got(GENERIC),
    row(Kernel::V6_1, VIRTIO).above(Above::Team).got(GENERIC),
    row(Kernel::V6_12, Card::E1000e).above(Above::Vlan).got(GENERIC),
    row(Kernel::V6_12, Card::E1000e).above(Above::Bond).got(GENERIC),
    row(Kernel::V7_3, VIRTIO).above(Above::Vlan).got(GENERIC),
    row(Kernel::V7_3, VIRTIO).above(Above::Bond).got(GENERIC),
    row(Kernel::V7_3, VIRTIO).above(Above::Bridge).got(GENERIC),
];

/// One of each card and mode, for what happens to a card in its life.
pub(crate) const LIVES: &[Row] = &[
    row(Kernel::V6_1, VIRTIO).size(2, 2),
    row(Kernel::V6_12, VIRTIO).size(4, 4),
    row(Kernel::V7_3, VIRTIO).options(IOMMU).got(ZERO_COPY),
    row(Kernel::V6_1, Card::Igb),
    row(Kernel::V7_3, Card::Igb).got(ZERO_COPY),
    row(Kernel::V6_12, Card::E1000e).got(GENERIC),
    row(Kernel::V6_12, Card::Vmxnet3).got(GENERIC),
];

/// Pairs of guests for a take-over.
pub(crate) const PAIRS: &[Row] =
    &[row(Kernel::V6_1, VIRTIO), row(Kernel::V6_12, VIRTIO), row(Kernel::V7_3, VIRTIO)];

/// A kernel that sends at most 32 frames a system call. Alone: it measures a rate.
pub(crate) const OVERLOADED: &[Row] = &[row(Kernel::V6_1, VIRTIO).size(1, 2)];

/// With systemd.
pub(crate) const SERVICES: &[Row] = &[row(Kernel::V6_1, VIRTIO)];

const VIRTIO: Card = Card::VirtioNet;

pub(crate) const NATIVE: &str = "native, copy";
pub(crate) const GENERIC: &str = "generic, copy";
pub(crate) const ZERO_COPY: &str = "native, zero-copy";

const GENERIC_MODE: &str = "mode = \"generic\"";
const NATIVE_MODE: &str = "mode = \"native\"";
const ZERO_COPY_ON: &str = "zero_copy = \"on\"";
const ZERO_COPY_OFF: &str = "zero_copy = \"off\"";
const IOMMU: &str = "iommu_platform=on,disable-legacy=on";
