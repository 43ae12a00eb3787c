//! Drivers that do not do what they say, by measurement.

use tracing::info;

/// Whether XDP in the driver must be left alone on this interface: vmxnet3 runs an attached program no
/// more, though it shows it, after `ip link set down` and `up` or `ethtool -G` (Linux 6.12; attaching
/// it anew helps, but no event says when).
pub(super) fn spoil_native(interface: &str) -> bool {
    xsk::driver(interface).is_some_and(|driver| driver == "vmxnet3")
}

/// Says once why `mode = "auto"` is not what the driver offers.
pub(super) fn log_spoiled(interface: &str) {
    info!(interface, "XDP in the driver is not tried: {SPOILED}");
}

pub(super) const SPOILED: &str =
    "this one (vmxnet3) stops running the program when the device was down or its rings changed";
