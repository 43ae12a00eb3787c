//! `pointsman_interface_*`, and what the XDP program counts.

use api::status::{Status, XdpMode};

use super::family::{Page, flag};
use super::labels::{OfInterface, OfMode, OfOutcome};

/// Adds the interfaces to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    let up = page.gauge("interface_up", "1 when the device exists and has a link.")?;
    let modes =
        page.gauge("interface_xdp_mode", "1 for the mode that the XDP program is attached in.")?;
    let blind = page.gauge(
        "interface_blind",
        "1 when the card receives frames, the XDP program sees none, and no other mode is left.",
    )?;
    let fallbacks = page.counter(
        "interface_fallbacks_total",
        "Faster modes given up, since the XDP program saw nothing in them.",
    )?;
    let queues = page.gauge("interface_queues", "RX queues of the device.")?;
    let offloads = page
        .gauge("interface_offloads_off", "Offloads that are off while the interface is served.")?;
    let altered = page.gauge(
        "interface_frames_altered",
        "1 while frames are not seen as they were on the wire: without VLAN tag, or merged.",
    )?;
    let restored = page.counter(
        "interface_tags_restored_total",
        "Frames whose VLAN tag was put back, which the kernel had taken out on a device below.",
    )?;
    let dropped = page.counter(
        "interface_tags_dropped_total",
        "Frames that were dropped, since there was no memory to put their VLAN tag back.",
    )?;
    let outcomes = page
        .counter("xdp_packets_total", "Frames seen by the XDP program, by what became of them.")?;
    let passed = page.counter("passed_total", "Frames that the XDP program left to the kernel.")?;
    let fast_path = page.gauge(
        "interface_fast_path",
        "1 while the XDP program forwards the packets of known flows itself.",
    )?;
    let fast_path_lost = page.counter(
        "fast_path_lost_total",
        "Frames that the XDP program forwarded itself and the driver dropped.",
    )?;
    for interface in &status.interfaces {
        let at = OfInterface { interface: &interface.name };
        fast_path.set(&at, flag(interface.fast_path));
        fast_path_lost.add(&at, interface.fast_path_lost);
        up.set(&at, flag(interface.up));
        for mode in XdpMode::ALL {
            modes.set(&OfMode { interface: at.interface, mode }, flag(interface.xdp == Some(mode)));
        }
        blind.set(&at, flag(interface.blind));
        fallbacks.add(&at, interface.fallbacks);
        queues.set(&at, f64::from(interface.queues));
        let off = u32::try_from(interface.offloads_off.len()).unwrap_or(u32::MAX);
        offloads.set(&at, f64::from(off));
        altered.set(&at, flag(interface.trouble.is_some()));
        restored.add(&at, interface.tags_restored);
        dropped.add(&at, interface.tags_dropped);
        passed.add(&at, interface.passed);
        for count in &interface.outcomes {
            outcomes.add(&OfOutcome { interface: at.interface, outcome: count.name }, count.value);
        }
    }
    Ok(())
}
