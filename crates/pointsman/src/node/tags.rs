//! Frames never cross into another VLAN: the tag is in the frame when the worker sees it, or the
//! interface is not served. Where the card leaves it in the frame `offloads` sees to that; here is what
//! the kernel carries beside the frame.

use control::TaggedFrames;
use steer::{Restored, Steer, SteerError, TagRestorer};
use tracing::info;
use xsk::Features;

use super::devices::Device;
use crate::layers::{Kind, Layers, TagPlace};

/// What a device does about tags, and stands on.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Devices that it is made of or on, by index and name.
    below: Vec<(u32, String)>,
    /// Whether these changed and nothing followed.
    changed: bool,
    /// Whether it is made on a device in another network namespace.
    elsewhere: bool,
    /// The other end of a veth, if it is here.
    peer: Option<String>,
    restorer: Option<TagRestorer>,
    /// What restorers did that were there before.
    past: Restored,
}

/// Tags would be lost, and why.
#[derive(Debug, thiserror::Error)]
pub(super) enum TagsLost {
    /// A veth or the like, where nothing reads the tag beside the frame.
    #[error(
        "{name} is a {kind} whose frames come with the VLAN tag beside them, where XDP {reason} does not \
         see it: they would leave untagged, in the native VLAN. If no tagged frames arrive, say \
         tagged_frames = \"none\"; else {remedy}"
    )]
    Beside {
        /// The interface.
        name: String,
        /// Its kind.
        kind: &'static str,
        /// In which mode, or on which kernel.
        reason: &'static str,
        /// What keeps the tags.
        remedy: String,
    },
    /// A device on one that this node cannot reach.
    #[error(
        "{name} is a {kind} on a device in another network namespace, where the kernel takes VLAN tags \
         out of frames: they would leave untagged, in the native VLAN. If no tagged frames arrive, say \
         tagged_frames = \"none\"; else run Pointsman where the device below is, or make a VLAN device \
         on {name} and name that one"
    )]
    Elsewhere {
        /// The interface.
        name: String,
        /// Its kind.
        kind: &'static str,
    },
    /// The kernel does not take the program that keeps them.
    #[error(
        "VLAN tags would be lost: {error}; if no tagged frames arrive, say tagged_frames = \"none\""
    )]
    Refused {
        /// What it says.
        error: SteerError,
    },
}

impl Tags {
    /// Takes over what the device stands on.
    pub(super) fn see(&mut self, ifindex: u32, layers: &Layers) {
        let below = layers.directly_below(ifindex);
        self.elsewhere = layers.0.get(&ifindex).is_some_and(|layer| layer.parent_elsewhere);
        self.peer = layers.peer(ifindex).map(str::to_owned);
        self.changed |= self.below != below;
        self.below = below;
    }

    /// Whether it stands on other devices than when this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Tags that were put back into frames, and frames dropped instead, on all devices of this name.
    pub(super) fn restored(&self) -> Restored {
        let now = self.restorer.as_ref().and_then(|restorer| restorer.counts().ok());
        let Restored { restored, dropped } = now.unwrap_or_default();
        Restored { restored: self.past.restored + restored, dropped: self.past.dropped + dropped }
    }

    /// The steering program is being detached.
    pub(super) fn release(&mut self) {
        self.past = self.restored();
        self.restorer = None;
    }
}

impl Device {
    /// To be called when the steering program was attached, before anything is redirected to a socket.
    pub(super) fn begin_tags(&mut self, steer: &Steer) -> Result<(), TagsLost> {
        self.tags.release();
        let Some(attached) = &self.attached else { return Ok(()) };
        if self.kind.tag_place() == TagPlace::TakenBelow && !self.tags.elsewhere {
            match steer.restore_tags(attached) {
                Ok(restorer) => self.tags.restorer = Some(restorer),
                Err(error) => return self.accept(TagsLost::Refused { error }),
            }
        }
        self.keep_tags()?;
        if let Some(lost) = self.tags_lost() {
            info!(interface = %self.wanted.name, "tagged_frames = \"none\" is needed: {lost}");
        }
        Ok(())
    }

    /// Sees to it that tags are kept, on devices below that are new as well.
    pub(super) fn keep_tags(&mut self) -> Result<(), TagsLost> {
        let Tags { restorer, below, .. } = &mut self.tags;
        let followed = restorer.as_mut().map_or(Ok(()), |restorer| restorer.follow(below));
        match followed {
            Err(error) => self.accept(TagsLost::Refused { error }),
            Ok(()) => self.tags_lost().map_or(Ok(()), |lost| self.accept(lost)),
        }
    }

    /// Why tags are lost, if nothing can be done about it here.
    fn tags_lost(&self) -> Option<TagsLost> {
        let name = self.wanted.name.clone();
        let kind = self.kind.name();
        match self.kind.tag_place() {
            TagPlace::InFrame => None,
            TagPlace::TakenBelow => {
                self.tags.elsewhere.then_some(TagsLost::Elsewhere { name, kind })
            }
            TagPlace::FromSender => {
                let reads = self.attached.as_ref().is_none_or(steer::Attached::reads_tags);
                let (reason, remedy) = beside(self.kind, self.is_generic(), &name);
                let lost = !reads && !self.tags.peer.as_deref().is_some_and(puts_tags_in);
                lost.then_some(TagsLost::Beside { name, kind, reason, remedy })
            }
        }
    }

    /// Tags are lost: no matter, if the operator says that there are none.
    fn accept(&self, lost: TagsLost) -> Result<(), TagsLost> {
        match self.wanted.tagged_frames {
            TaggedFrames::Keep => Err(lost),
            TaggedFrames::None => Ok(()),
        }
    }
}

/// Where XDP does not see the tag, and what to do.
fn beside(kind: Kind, generic: bool, name: &str) -> (&'static str, String) {
    let vlan = format!(
        "make VLAN devices on {name} and name those (`ip link add link {name} name {name}.10 type vlan \
         id 10`)"
    );
    let sender = "`ethtool -K … txvlan off` at its other end";
    match (kind, generic) {
        (Kind::Veth, true) => (
            "in generic mode",
            format!("use native mode (Linux 6.8 or later), or {vlan}, or say so after {sender}"),
        ),
        (Kind::Veth, false) => (
            "before Linux 6.8, and without the kernel's BTF,",
            format!("boot a newer kernel, or {vlan}, or say so after {sender}"),
        ),
        _ => ("", vlan),
    }
}

/// Whether the sender at the other end puts tags into its frames (`txvlan off`).
fn puts_tags_in(peer: &str) -> bool {
    let Ok(features) = Features::read(peer) else { return false };
    let leaves = |name| features.get(name).is_some_and(|feature| feature.active);
    !["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"].into_iter().any(leaves)
}
