//! Drivers that do not do what they say, by measurement.

use tracing::info;

/// Whether `mode = "auto"` has to leave XDP in the driver alone on this interface: vmxnet3 runs an
/// attached program no more, though it shows it, after `ip link set down` and `up` or `ethtool -G`
/// (Linux 6.12; attaching it anew helps, but no event says when).
pub(super) fn spoil_native(interface: &str) -> bool {
    let spoiled = xsk::driver(interface).is_some_and(|driver| driver == "vmxnet3");
    if spoiled {
        info!(
            interface,
            "XDP in the driver is not tried: this one (vmxnet3) stops running the program when the \
             device was down or its rings changed; mode = \"native\" takes it all the same"
        );
    }
    spoiled
}
