//! The shared half: VIP map and lease array, which the programs of all interfaces read.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapMut, OpenMapMut};

use crate::abi::{BACKENDS, INSTANCES, Octets, VIPS, Vip, XSKS};
use crate::attach::{
    AttachMode, Attached, Interface, LinkSlot, Loaded, OwnMaps, TagPlace, check_interface,
};
use crate::clock;
use crate::egress::{self, Egress};
use crate::error::SteerError;
use crate::fast_path::{self, FastPath, Traffic};
use crate::foreign;
use crate::kernel::KernelVersion;
use crate::leases::Leases;
use crate::object;
use crate::object::skeleton::{OpenSteerMaps, OpenSteerSkel};
use crate::object::tags::OpenSteerTagsMaps;
use crate::restore_tags::TagRestorer;

/// The shared maps. Dropping it detaches every program that it attached.
#[derive(Debug)]
pub struct Steer {
    vips: MapHandle,
    lease_map: MapHandle,
    leases: Leases,
    vip_states: MapHandle,
    pictures: MapHandle,
    egress: MapHandle,
    fast_path: Option<Arc<FastPath>>,
    links: Mutex<Vec<Weak<LinkSlot>>>,
}

impl Steer {
    /// Loads the programs once, to make the shared maps and to learn early whether the kernel
    /// takes them. Attaches nothing.
    ///
    /// # Errors
    /// [`SteerError::Kernel`], [`SteerError::NoPermission`], [`SteerError::Memlock`],
    /// [`SteerError::Verifier`] or [`SteerError::Load`], and [`SteerError::Clock`] if this process
    /// is in a time namespace of its own.
    pub fn load() -> Result<Self, SteerError> {
        Self::load_with(None)
    }

    /// The same, of programs that forward known flows themselves if there are `flow_words`: the words
    /// of each worker's flow table.
    ///
    /// # Errors
    /// Those of [`Steer::load`].
    pub fn load_with(flow_words: Option<usize>) -> Result<Self, SteerError> {
        KernelVersion::check()?;
        let like = flow_words.map(fast_path::flow_map).transpose()?;
        let mut storage = MaybeUninit::uninit();
        let object = object::load(&mut storage, |open| prepare(open, like.as_ref(), XSKS))?;
        clock::check(&object.progs.clock)?;
        let vips = handle(&object.maps.vips)?;
        let lease_map = handle(&object.maps.leases)?;
        let leases =
            Leases::map(lease_map.as_fd()).map_err(SteerError::system("map the lease array"))?;
        let vip_states = handle(&object.maps.vip_states)?;
        let pictures = handle(&object.maps.pictures)?;
        let egress = handle(&object.maps.egress)?;
        let links = Mutex::default();
        let mut steer =
            Self { vips, lease_map, leases, vip_states, pictures, egress, fast_path: None, links };
        if let Some(words) = flow_words {
            let handles = [handle(&object.maps.pictures)?, handle(&object.maps.vip_states)?];
            steer.fast_path = Some(Arc::new(FastPath::new(words, handles)?));
        }
        Ok(steer)
    }

    /// Attaches a program of its own to the interface, which must have none. Frames to other hosts
    /// are left to the kernel. There will be room for at least [`XSKS`] queues. No queue has a socket yet:
    /// frames of active VIPs are counted as unbound and left to the kernel. With [`TagPlace::Beside`]
    /// it puts VLAN tags into the frames where the kernel and the driver let it
    /// ([`Attached::reads_tags`]).
    ///
    /// # Errors
    /// [`SteerError::NoSuchInterface`], [`SteerError::Foreign`], [`SteerError::MtuTooLarge`],
    /// [`SteerError::Attach`], and those of [`Steer::load`]. Nothing is attached then.
    pub fn attach(
        &self,
        interface: Interface<'_>,
        mode: AttachMode,
    ) -> Result<Attached, SteerError> {
        let Interface { name, ifindex, queues, tags, .. } = interface;
        check_interface(name, ifindex)?;
        if let Some(foreign) = foreign::find(name, ifindex, self.vips.as_fd())? {
            return Err(SteerError::Foreign(Box::new(foreign)));
        }
        let mut storage = MaybeUninit::uninit();
        let like = self.fast_path.as_deref().map(FastPath::like).transpose()?;
        let object = object::load(&mut storage, |open| {
            open.progs.clock.set_autoload(false);
            open.maps.xsks.set_max_entries(room_for(queues))?;
            open.maps.flows.set_max_entries(room_for(queues))?;
            prepare(open, like.as_ref(), room_for(queues))?;
            let OpenSteerMaps { vips, leases, vip_states, pictures, egress, .. } = &mut open.maps;
            self.share_maps([vips, leases, vip_states, pictures, egress])
        })?;
        let maps = Arc::new(OwnMaps {
            port: handle(&object.maps.port)?,
            xsks: handle(&object.maps.xsks)?,
            counters: handle(&object.maps.counters)?,
            flows: handle(&object.maps.flows)?,
            traffic: handle(&object.maps.traffic)?,
            queue_packets: handle(&object.maps.queue_packets)?,
        });
        let traffic = self.traffic([&maps.traffic, &maps.queue_packets])?;
        let program = object.progs.steer.as_fd();
        let loaded = Loaded { program, reads_tags: false, maps, traffic };
        let attach = |mode, loaded: &Loaded<'_>| Attached::new(interface, mode, loaded);
        let mut reading = None;
        if tags == TagPlace::Beside && mode != AttachMode::Generic {
            match self
                .attach_reading_tags(ifindex, &loaded.maps, |with| attach(AttachMode::Native, with))
            {
                Ok(attached) => reading = Some(attached),
                Err(error) => {
                    tracing::info!(
                        interface = name,
                        "VLAN tags beside the frame cannot be read: {error}"
                    )
                }
            }
        }
        let attached = reading.map_or_else(|| attach(mode, &loaded), Ok)?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(attached.link()));
        Ok(attached)
    }

    /// Has the driver take up the program of an interface anew, without a gap: sockets and counters
    /// stay. To be called when the interface has got more RX queues, for not every driver runs the
    /// program on them by itself (veth does not, without a notification).
    ///
    /// # Errors
    /// Those of [`Steer::load`], and [`SteerError::System`] if the driver refuses. The program
    /// stays attached as it was.
    pub fn renew(&self, attached: &Attached) -> Result<(), SteerError> {
        if attached.reads_tags() {
            let replace = |with: &Loaded<'_>| attached.replace(with.program);
            return self.attach_reading_tags(attached.ifindex(), attached.maps(), replace);
        }
        let mut storage = MaybeUninit::uninit();
        let object = object::load(&mut storage, |open| {
            open.progs.clock.set_autoload(false);
            if let Some(settings) = open.maps.rodata_data.as_deref_mut() {
                settings.fast_path = self.fast_path.is_some().into();
                settings.queue_room = attached.queues();
            }
            let OpenSteerMaps { port, xsks, counters, flows, traffic, queue_packets, .. } =
                &mut open.maps;
            attached.maps().share([port, xsks, counters, flows, traffic, queue_packets])?;
            let OpenSteerMaps { vips, leases, vip_states, pictures, egress, .. } = &mut open.maps;
            self.share_maps([vips, leases, vip_states, pictures, egress])
        })?;
        attached.replace(object.progs.steer.as_fd())
    }

    /// Attaches, by `attach`, a copy of the program that puts tags into frames.
    fn attach_reading_tags<T>(
        &self,
        ifindex: u32,
        maps: &Arc<OwnMaps>,
        attach: impl FnOnce(&Loaded<'_>) -> Result<T, SteerError>,
    ) -> Result<T, SteerError> {
        let mut storage = MaybeUninit::uninit();
        let object = object::load_reading_tags(&mut storage, ifindex, |open| {
            if let Some(settings) = open.maps.rodata_data.as_deref_mut() {
                settings.fast_path = self.fast_path.is_some().into();
                settings.queue_room = maps.xsks.max_entries();
            }
            let OpenSteerTagsMaps { port, xsks, counters, flows, traffic, queue_packets, .. } =
                &mut open.maps;
            maps.share([port, xsks, counters, flows, traffic, queue_packets])?;
            let OpenSteerTagsMaps { vips, leases, vip_states, pictures, egress, .. } =
                &mut open.maps;
            self.share_maps([vips, leases, vip_states, pictures, egress])
        })?;
        attach(&Loaded {
            program: object.progs.steer.as_fd(),
            reads_tags: true,
            maps: Arc::clone(maps),
            traffic: self.traffic([&maps.traffic, &maps.queue_packets])?,
        })
    }

    /// Loads the program that keeps the VLAN tags of frames on their way to the interface through devices
    /// below it. Where [`TagRestorer::follow`] attaches it, tags are in the frames when the steering
    /// program sees them.
    ///
    /// # Errors
    /// Those of [`Steer::load`].
    pub fn restore_tags(&self, attached: &Attached) -> Result<TagRestorer, SteerError> {
        TagRestorer::load(self, attached)
    }

    /// The lease array, all 0 (inactive) at first.
    pub fn leases(&self) -> Leases {
        self.leases.clone()
    }

    /// Makes `addr` a VIP, or changes to whom it belongs. Without a lease of its instance its
    /// traffic is dropped from now on.
    ///
    /// # Errors
    /// [`SteerError::OutOfRange`] for an instance beyond [`INSTANCES`],
    /// [`SteerError::TooManyVips`], [`SteerError::Map`].
    pub fn insert_vip(&self, addr: Octets, vip: Vip) -> Result<(), SteerError> {
        if vip.instance >= INSTANCES {
            return Err(SteerError::OutOfRange {
                what: "instance",
                index: vip.instance,
                room: INSTANCES,
            });
        }
        let result = self.vips.update(&addr, &vip.to_bytes(), MapFlags::ANY);
        // The kernel says E2BIG, which libbpf-rs does not tell from other errors.
        if result.is_err() && self.vips.keys().count() >= VIPS as usize {
            return Err(SteerError::TooManyVips { room: VIPS });
        }
        result.map_err(SteerError::map("insert a VIP"))?;
        if let Some(fast_path) = &self.fast_path {
            fast_path.set_vip(addr, Some(vip));
        }
        Ok(())
    }

    /// Leaves the traffic of `addr` to the kernel; fine if it was no VIP.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn remove_vip(&self, addr: Octets) -> Result<(), SteerError> {
        if let Some(fast_path) = &self.fast_path {
            fast_path.set_vip(addr, None);
        }
        match self.vips.delete(&addr) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            result => result.map_err(SteerError::map("remove a VIP")),
        }
    }

    /// All VIPs, by address.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn vips(&self) -> Result<Vec<(Octets, Vip)>, SteerError> {
        let mut list = Vec::new();
        for key in self.vips.keys() {
            let value = self
                .vips
                .lookup(&key, MapFlags::ANY)
                .map_err(SteerError::map("read the VIP map"))?;
            let entry = Octets::try_from(key).ok().zip(value.as_deref().and_then(Vip::from_bytes));
            list.extend(entry);
        }
        list.sort_unstable_by_key(|(addr, _)| *addr);
        Ok(list)
    }

    /// What the programs need to forward known flows themselves, if they are to.
    pub const fn fast_path(&self) -> Option<&Arc<FastPath>> {
        self.fast_path.as_ref()
    }

    /// Makes another program use the maps that say whose a frame is.
    pub(crate) fn share_judgement(
        &self,
        [vips, leases]: [&mut OpenMapMut<'_>; 2],
    ) -> libbpf_rs::Result<()> {
        vips.reuse_fd(self.vips.as_fd())?;
        leases.reuse_fd(self.lease_map.as_fd())
    }

    /// Makes a further copy of the programs use the maps of the first.
    pub(crate) fn share_maps(
        &self,
        [vips, leases, vip_states, pictures, egress]: [&mut OpenMapMut<'_>; 5],
    ) -> libbpf_rs::Result<()> {
        self.share_judgement([vips, leases])?;
        vip_states.reuse_fd(self.vip_states.as_fd())?;
        pictures.reuse_fd(self.pictures.as_fd())?;
        egress.reuse_fd(self.egress.as_fd())
    }

    /// Whether the kernel says that the interface takes frames that are redirected to it.
    pub fn egress_of(&self, ifindex: u32) -> Egress {
        egress::ask(self.egress.as_fd(), ifindex)
    }

    /// Has the programs of all interfaces redirect frames to this one, or leave them to user space. The
    /// kernel forgets an interface that goes by itself.
    ///
    /// # Errors
    /// [`SteerError::Map`]: there are [`abi::EGRESSES`](crate::abi::EGRESSES), or no such interface.
    pub fn set_egress(&self, ifindex: u32, takes: bool) -> Result<(), SteerError> {
        egress::set(&self.egress, ifindex, takes)
    }

    /// A view of an interface's traffic arrays, if it forwards known flows itself.
    pub(crate) fn traffic(&self, maps: [&MapHandle; 2]) -> Result<Option<Traffic>, SteerError> {
        self.fast_path.as_ref().map(|_| Traffic::of(maps)).transpose()
    }

    #[cfg(test)]
    pub(crate) fn vip_map(&self) -> &MapHandle {
        &self.vips
    }
}

impl Drop for Steer {
    fn drop(&mut self) {
        let links = self.links.get_mut().unwrap_or_else(PoisonError::into_inner);
        for link in links.drain(..).filter_map(|link| link.upgrade()) {
            link.detach();
        }
    }
}

/// Turns the fast path on in a program with maps of its own if there is a flow table that those of
/// the workers are `like`; it has room for so many RX queues.
pub(crate) fn prepare(
    open: &mut OpenSteerSkel<'_>,
    like: Option<&MapHandle>,
    queues: u32,
) -> libbpf_rs::Result<()> {
    let Some(like) = like else { return open.maps.traffic.set_max_entries(1) };
    if let Some(settings) = open.maps.rodata_data.as_deref_mut() {
        settings.fast_path = 1;
        settings.queue_room = queues;
    }
    let cpus = fast_path::cpus()?;
    open.maps.traffic.set_max_entries(cpus.saturating_mul(BACKENDS))?;
    open.maps.queue_packets.set_max_entries(cpus.saturating_mul(queues))?;
    open.maps.flows.set_inner_map_fd(like.as_fd())
}

/// A descriptor that outlives the object.
pub(crate) fn handle(map: &MapMut<'_>) -> Result<MapHandle, SteerError> {
    MapHandle::try_from(map).map_err(SteerError::map("keep a map"))
}

/// How many queues an XSKMAP is made for: it cannot grow, and an interface can.
fn room_for(queues: u32) -> u32 {
    queues.checked_next_power_of_two().unwrap_or(u32::MAX).max(XSKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_to_grow() {
        assert_eq!(room_for(0), XSKS);
        assert_eq!(room_for(1), XSKS);
        assert_eq!(room_for(XSKS + 1), 2 * XSKS);
        assert_eq!(room_for(u32::MAX), u32::MAX);
    }
}
