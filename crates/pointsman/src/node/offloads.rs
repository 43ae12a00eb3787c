//! Offloads that hide from XDP what was on the wire: VLAN tags that the card takes out of the
//! frame, and frames that it or the kernel merges. They are off while an interface is served, and
//! on again afterwards if they were.

use anyhow::{Context, Result, bail};
use control::{Interface, TaggedFrames};
use tracing::{error, info, warn};
use xsk::{Feature, Features};

use super::Node;
use super::devices::Device;
use crate::layers::Kind;

/// Offloads of one interface, and of the devices that its frames come through.
#[derive(Debug, Default)]
pub(super) struct Offloads {
    /// Index of the interface that they are of.
    ifindex: u32,
    /// What was on before: device and offload.
    switched: Vec<(String, &'static str)>,
}

/// The card takes the tag out of the frame: frames would leave in another VLAN than they came in.
const TAGS: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
/// The card merges frames: what comes is longer than the MTU.
const MERGING: [&str; 2] = ["rx-lro", "rx-gro-hw"];
/// The kernel merges frames: generic XDP keeps it from doing so on its own device only.
const MERGING_BELOW: [&str; 3] = ["rx-lro", "rx-gro-hw", "rx-gro"];

impl Offloads {
    /// Switches off what is in the way, on the interface itself and on the devices `below` it.
    /// To be called before the program is attached, and again at any time; each change is logged.
    ///
    /// # Errors
    /// What takes tags out of frames, unless none arrive, or merges them below, is on and cannot be
    /// switched off.
    fn switch_off(
        &mut self,
        (interface, ifindex): (&str, u32),
        (kind, tagged): (Kind, TaggedFrames),
        below: &[String],
    ) -> Result<()> {
        // Of another device there is nothing to restore.
        if std::mem::replace(&mut self.ifindex, ifindex) != ifindex {
            self.switched.clear();
        }
        let tags = tags_of(kind);
        self.switch(interface, &[tags, &MERGING].concat())?;
        if tagged == TaggedFrames::Keep {
            refuse(interface, tags, "the card takes VLAN tags out of frames")?;
        }
        for device in below {
            self.switch(device, &MERGING_BELOW)?;
            refuse(device, &MERGING_BELOW, "frames are merged")?;
        }
        Ok(())
    }

    /// To be called when the program is attached in generic mode, for which no driver looks after
    /// its offloads.
    ///
    /// # Errors
    /// The card merges frames and cannot be kept from it.
    pub(super) fn check_generic(interface: &str) -> Result<()> {
        refuse(interface, &MERGING, "the card merges frames")
    }

    /// What is switched off now and will be on again: device and offload.
    pub(super) fn off(&self) -> impl Iterator<Item = &(String, &'static str)> {
        self.switched.iter()
    }

    fn switch(&mut self, device: &str, names: &[&'static str]) -> Result<()> {
        let features = read(device)?;
        let on = to_switch(names, |name| features.get(name));
        if on.is_empty() {
            return Ok(());
        }
        let off: Vec<(&str, bool)> = on.iter().map(|name| (*name, false)).collect();
        features
            .switch(device, &off)
            .with_context(|| format!("{device}: cannot switch off {}", on.join(" and ")))?;
        let after = read(device)?;
        for name in on {
            if after.get(name).is_some_and(|feature| feature.active) {
                continue;
            }
            info!(device, offload = name, "offload switched off while the interface is served");
            let entry = (device.to_owned(), name);
            if !self.switched.contains(&entry) {
                self.switched.push(entry);
            }
        }
        Ok(())
    }
}

impl Node {
    /// Offloads may be switched on at any time, and devices added below: looks again, and switches
    /// them off again.
    pub(super) fn look_at_offloads(&mut self) {
        for device in &mut self.devices {
            device.look_at_frames();
        }
    }
}

impl Device {
    /// Switches off what would hide what was on the wire.
    pub(super) fn switch_offloads(&mut self, ifindex: u32) -> Result<()> {
        let Interface { name, tagged_frames, .. } = &self.wanted;
        self.offloads.switch_off((name, ifindex), (self.kind, *tagged_frames), &self.below)
    }

    /// Whether its frames are seen as they were on the wire; what can be done for that is done.
    pub(super) fn look_at_frames(&mut self) {
        let Some(link) = self.link.filter(|_| self.attached.is_some()) else { return };
        let looked = self.switch_offloads(link.ifindex);
        let looked = looked.and_then(|()| Ok(self.keep_tags()?));
        let trouble = looked.err().map(|error| format!("{error:#}"));
        if let Some(error) = trouble.as_ref().filter(|_| self.trouble != trouble) {
            error!(interface = %self.wanted.name, error, "frames are not seen as they were on the wire");
        }
        self.trouble = trouble;
    }
}

impl Drop for Offloads {
    fn drop(&mut self) {
        for (device, name) in self.switched.drain(..) {
            // A device that is gone has nothing to be restored.
            let Ok(features) = Features::read(&device) else { continue };
            match features.switch(&device, &[(name, true)]) {
                Ok(()) => info!(device, offload = name, "offload switched on again"),
                Err(error) => warn!(device, offload = name, %error, "cannot switch it on again"),
            }
        }
    }
}

/// Those of an interface of this kind that take tags out of frames. The tags of a stacked device are
/// taken out by the kernel, whatever its offloads say.
const fn tags_of(kind: Kind) -> &'static [&'static str] {
    if kind.is_stacked() { &[] } else { &TAGS }
}

/// Offloads that are on and can be switched off.
fn to_switch(names: &[&'static str], state: impl Fn(&str) -> Option<Feature>) -> Vec<&'static str> {
    let on = |name: &&&str| state(name).is_some_and(|feature| feature.active && !feature.fixed);
    names.iter().filter(on).copied().collect()
}

/// Fails if one of the offloads is still on.
fn refuse(device: &str, names: &[&str], effect: &str) -> Result<()> {
    let features = read(device)?;
    let on = |name: &&&str| features.get(name).is_some_and(|feature| feature.active);
    let Some(name) = names.iter().find(on) else { return Ok(()) };
    bail!("{}", refusal(device, name, effect, xsk::driver(device).as_deref()));
}

fn refusal(device: &str, name: &str, effect: &str, driver: Option<&str>) -> String {
    let remedy = match (driver, name) {
        (Some("virtio_net"), "rx-gro-hw") => {
            "give the guest's card `guest_tso4=off,guest_tso6=off,guest_ufo=off` (libvirt: \
             `<driver><guest tso4='off' tso6='off' ufo='off'/></driver>`) or \
             `ctrl_guest_offloads=on`"
                .to_owned()
        }
        _ => format!("switch it off (`ethtool -K {device} {name} off`) or use another card"),
    };
    format!("{device}: {effect} ({name} is on, and the driver does not let it be off): {remedy}")
}

fn read(device: &str) -> Result<Features> {
    Features::read(device).with_context(|| format!("{device}: cannot read its offloads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_and_can_be_changed_is_switched() {
        let state = |name: &str| match name {
            "rx-lro" => Some(Feature { active: true, fixed: false }),
            "rx-gro-hw" => Some(Feature { active: true, fixed: true }),
            "rx-gro" => Some(Feature { active: false, fixed: false }),
            _ => None,
        };
        assert_eq!(to_switch(&MERGING_BELOW, state), ["rx-lro"]);
        assert_eq!(to_switch(&TAGS, state), [""; 0]);
    }

    /// A bond with `rx-vlan-hw-parse` fixed on is no reason to refuse, a card is.
    #[test]
    fn tags_are_a_matter_of_devices_that_receive_from_a_wire() {
        for kind in [Kind::Card, Kind::Veth, Kind::Tap] {
            assert_eq!(tags_of(kind), TAGS, "{kind:?}");
        }
        let bridge = Kind::Bridge { vlan_filtering: false };
        for kind in [Kind::Vlan, Kind::MacVlan, Kind::IpVlan, Kind::Bond, Kind::Team, bridge] {
            assert_eq!(tags_of(kind), [""; 0], "{kind:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let text = refusal("eth0", TAGS[0], "the card takes VLAN tags out of frames", None);
        assert!(text.contains("`ethtool -K eth0 rx-vlan-hw-parse off`"), "{text}");
        let text = refusal("ens3", "rx-gro-hw", "the card merges frames", Some("virtio_net"));
        assert!(text.contains("guest_tso4=off"), "{text}");
    }
}
