//! The shared half: VIP map and lease array, which the programs of all interfaces read.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapMut, OpenMapMut};

use crate::abi::{INSTANCES, Octets, VIPS, Vip, XSKS};
use crate::attach::{
    AttachMode, Attached, Interface, LinkSlot, Loaded, OwnMaps, TagPlace, check_interface,
};
use crate::clock;
use crate::error::SteerError;
use crate::foreign;
use crate::kernel::KernelVersion;
use crate::leases::Leases;
use crate::object;
use crate::object::skeleton::OpenSteerMaps;
use crate::object::tags::OpenSteerTagsMaps;

/// The shared maps. Dropping it detaches every program that it attached.
#[derive(Debug)]
pub struct Steer {
    vips: MapHandle,
    lease_map: MapHandle,
    leases: Leases,
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
        KernelVersion::check()?;
        let mut storage = MaybeUninit::uninit();
        let object = object::load(&mut storage, |_| Ok(()))?;
        clock::check(&object.progs.clock)?;
        let vips = handle(&object.maps.vips)?;
        let lease_map = handle(&object.maps.leases)?;
        let leases =
            Leases::map(lease_map.as_fd()).map_err(SteerError::system("map the lease array"))?;
        Ok(Self { vips, lease_map, leases, links: Mutex::default() })
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
        let object = object::load(&mut storage, |open| {
            open.progs.clock.set_autoload(false);
            open.maps.xsks.set_max_entries(room_for(queues))?;
            self.share_maps([&mut open.maps.vips, &mut open.maps.leases])
        })?;
        let maps = Arc::new(OwnMaps {
            port: handle(&object.maps.port)?,
            xsks: handle(&object.maps.xsks)?,
            counters: handle(&object.maps.counters)?,
        });
        let loaded = Loaded { program: object.progs.steer.as_fd(), reads_tags: false, maps };
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
    /// program on them by itself (veth does not, and tells nobody).
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
            let OpenSteerMaps { port, xsks, counters, vips, leases, .. } = &mut open.maps;
            attached.maps().share([port, xsks, counters])?;
            self.share_maps([vips, leases])
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
            let OpenSteerTagsMaps { port, xsks, counters, vips, leases, .. } = &mut open.maps;
            maps.share([port, xsks, counters])?;
            self.share_maps([vips, leases])
        })?;
        attach(&Loaded {
            program: object.progs.steer.as_fd(),
            reads_tags: true,
            maps: Arc::clone(maps),
        })
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
        result.map_err(SteerError::map("insert a VIP"))
    }

    /// Leaves the traffic of `addr` to the kernel; fine if it was no VIP.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn remove_vip(&self, addr: Octets) -> Result<(), SteerError> {
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

    /// Makes a further copy of the programs use the maps of the first.
    pub(crate) fn share_maps(
        &self,
        [vips, leases]: [&mut OpenMapMut<'_>; 2],
    ) -> libbpf_rs::Result<()> {
        vips.reuse_fd(self.vips.as_fd())?;
        leases.reuse_fd(self.lease_map.as_fd())
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

/// A descriptor that outlives the object.
fn handle(map: &MapMut<'_>) -> Result<MapHandle, SteerError> {
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
