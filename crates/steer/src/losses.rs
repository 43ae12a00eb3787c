//! Frames that programs sent themselves and drivers dropped, by the interface that they should have left
//! by: `bpf/losses.bpf.c`.

use std::mem::MaybeUninit;

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle};

use crate::error::SteerError;
use crate::object;
use crate::steer::handle;

/// Counts them, of the watched interfaces. Ends when dropped.
#[derive(Debug)]
pub struct Losses {
    losses: MapHandle,
    netns: u32,
    /// What holds the programs at their tracepoints.
    _links: [Link; 4],
}

impl Losses {
    /// Starts to count in the network namespace of this thread.
    ///
    /// # Errors
    /// [`SteerError::Load`], [`SteerError::Verifier`] or [`SteerError::Map`] on kernels without BTF or
    /// tracepoints, [`SteerError::NoPermission`] without CAP_PERFMON.
    pub fn watch() -> Result<Self, SteerError> {
        let namespace =
            rustix::fs::stat(NETNS).map_err(SteerError::system("look at the network namespace"))?;
        let mut storage = MaybeUninit::uninit();
        let object = object::load_losses(&mut storage)?;
        let attach = |program: &libbpf_rs::ProgramMut<'_>| {
            program.attach().map_err(SteerError::map("attach to a tracepoint"))
        };
        Ok(Self {
            losses: handle(&object.maps.losses)?,
            // Inode numbers of namespaces have 32 bits.
            netns: u32::try_from(namespace.st_ino).unwrap_or_default(),
            _links: [
                attach(&object.progs.on_exception)?,
                attach(&object.progs.on_bulk_tx)?,
                attach(&object.progs.on_devmap_xmit)?,
                attach(&object.progs.on_redirect_error)?,
            ],
        })
    }

    /// Begins to count for the interface; without effect if it does already.
    ///
    /// # Errors
    /// [`SteerError::Map`]: there is no room for one more.
    pub fn follow(&self, ifindex: u32) -> Result<(), SteerError> {
        match self.losses.update(&self.key(ifindex), &0_u64.to_ne_bytes(), MapFlags::NO_EXIST) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(SteerError::map("count lost frames")),
        }
    }

    /// Frames lost since [`Self::follow`] was called first.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn of(&self, ifindex: u32) -> Result<u64, SteerError> {
        let value = self
            .losses
            .lookup(&self.key(ifindex), MapFlags::ANY)
            .map_err(SteerError::map("read the count of lost frames"))?;
        let bytes = value.and_then(|bytes| bytes.try_into().ok());
        Ok(bytes.map_or(0, u64::from_ne_bytes))
    }

    /// `struct device`.
    fn key(&self, ifindex: u32) -> [u8; 8] {
        let (netns, ifindex) = (self.netns.to_ne_bytes(), ifindex.to_ne_bytes());
        let mut key = [0; 8];
        key[..4].copy_from_slice(&netns);
        key[4..].copy_from_slice(&ifindex);
        key
    }
}

const NETNS: &str = "/proc/thread-self/ns/net";
