//! Keeps the VLAN tags of frames on their way to a device that stands on others:
//! `bpf/restore_tags.bpf.c`, at the ingress hooks of the devices below.
//!
//! From Linux 6.6 on the hook is a `bpf_link`, which goes with the process. Before, it is a filter of the
//! `clsact` qdisc: what a killed process leaves does nothing once its leases have run out, the next start
//! takes its place, and the qdisc stays.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, TC_INGRESS, TcHook};

use crate::attach::Attached;
use crate::error::SteerError;
use crate::link;
use crate::object;
use crate::object::restore::OpenRestoreTagsMaps;
use crate::steer::{Steer, handle};

/// The program that keeps the tags for one device, on the devices below it. Detached when dropped.
pub struct TagRestorer {
    program: OwnedFd,
    /// The device above.
    upper: u32,
    counters: MapHandle,
    hooks: BTreeMap<u32, Hook>,
}

/// What became of frames that had a tag beside them and were for an active VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The tag was put back into the frame.
    pub restored: u64,
    /// Dropped, since there was no memory to do so.
    pub dropped: u64,
}

/// Where it is attached, on one device.
pub(crate) enum Hook {
    Link(OwnedFd),
    /// With the program's id.
    Filter(TcHook, u32),
}

impl TagRestorer {
    /// Loads the program for the device that `attached` is on; it is attached nowhere yet.
    pub(crate) fn load(steer: &Steer, attached: &Attached) -> Result<Self, SteerError> {
        let mut storage = MaybeUninit::uninit();
        let object = object::load_restoring_tags(&mut storage, |open| {
            if let Some(settings) = open.maps.rodata_data.as_deref_mut() {
                settings.upper = attached.ifindex();
            }
            let OpenRestoreTagsMaps { vips, leases, port, .. } = &mut open.maps;
            port.reuse_fd(attached.maps().port.as_fd())?;
            steer.share_judgement([vips, leases])
        })?;
        let program = object.progs.restore_tag.as_fd().try_clone_to_owned();
        Ok(Self {
            program: program.map_err(SteerError::system("keep a program"))?,
            upper: attached.ifindex(),
            counters: handle(&object.maps.restored)?,
            hooks: BTreeMap::new(),
        })
    }

    /// Attaches it to these devices, index and name, wherever it is not, and detaches it from all others.
    /// To be called again whenever they may have changed, or somebody may have detached it.
    ///
    /// # Errors
    /// [`SteerError::Ingress`] for the first device that does not take it; it is attached to the others.
    pub fn follow(&mut self, below: &[(u32, String)]) -> Result<(), SteerError> {
        self.hooks.retain(|ifindex, hook| {
            below.iter().any(|(index, _)| index == ifindex) && hook.holds(*ifindex)
        });
        let mut result = Ok(());
        for (ifindex, name) in below {
            if self.hooks.contains_key(ifindex) {
                continue;
            }
            match self.hook(*ifindex) {
                Ok(hook) => drop(self.hooks.insert(*ifindex, hook)),
                Err(reason) if result.is_ok() => {
                    result = Err(SteerError::Ingress { device: name.clone(), reason });
                }
                Err(_) => {}
            }
        }
        result
    }

    /// The devices that it is attached to, by index.
    #[cfg(test)]
    pub(crate) fn devices(&self) -> impl Iterator<Item = u32> {
        self.hooks.keys().copied()
    }

    /// What it did since it was loaded.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn counts(&self) -> Result<Restored, SteerError> {
        Ok(Restored { restored: self.count(0)?, dropped: self.count(1)? })
    }

    fn count(&self, key: u32) -> Result<u64, SteerError> {
        let values = self
            .counters
            .lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY)
            .map_err(SteerError::map("read how many VLAN tags were kept"))?;
        let values = values.into_iter().flatten();
        Ok(values.filter_map(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes).sum())
    }

    fn hook(&self, ifindex: u32) -> Result<Hook, String> {
        match link::create_ingress(self.program.as_fd(), ifindex) {
            Ok(link) => Ok(Hook::Link(link)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.filter(ifindex),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Its handle is the index of the device above: there may be several on one device.
    pub(crate) fn filter(&self, ifindex: u32) -> Result<Hook, String> {
        let attach = || -> libbpf_rs::Result<Hook> {
            let index = i32::try_from(ifindex).unwrap_or_default();
            let mut hook = TcHook::new(self.program.as_fd());
            hook.ifindex(index).attach_point(TC_INGRESS).create()?;
            hook.replace(true).handle(self.upper).priority(FIRST).attach()?;
            let program = hook.query()?;
            Ok(Hook::Filter(hook, program))
        };
        attach().map_err(|error| error.to_string())
    }
}

impl Hook {
    /// Whether it is attached to this device still.
    pub(crate) fn holds(&mut self, ifindex: u32) -> bool {
        match self {
            Self::Link(link) => link::target(link.as_fd()).is_ok_and(|target| target == ifindex),
            Self::Filter(hook, program) => hook.query().is_ok_and(|found| found == *program),
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        match self {
            Self::Link(link) => link::detach(link.as_fd()),
            // A device that is gone, or has another program there by now, is left alone.
            Self::Filter(hook, program) => {
                if hook.query().is_ok_and(|found| found == *program) {
                    drop(hook.detach());
                }
            }
        }
    }
}

impl fmt::Debug for TagRestorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { upper, hooks, .. } = self;
        write!(f, "TagRestorer {{ upper: {upper}, below: {:?} }}", hooks.keys())
    }
}

/// The priority of the filter, before all that name none.
const FIRST: u32 = 1;
