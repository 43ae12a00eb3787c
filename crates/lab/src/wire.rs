//! Two namespaces and a veth between them, with no switch: for benches, where a bridge would cost more
//! than what is measured.

use std::path::Path;

use crate::{
    error::Result,
    host::{require_root, require_tools},
    identity::LabId,
    netns::NetNs,
    topology::TempDir,
};

/// The wire; both ends are named `eth0`. Removed when dropped.
#[derive(Debug)]
pub struct Wire {
    /// Where traffic comes from and goes to.
    pub far: NetNs,
    /// Where the balancer is.
    pub near: NetNs,
    dir: TempDir,
}

impl Wire {
    /// Makes it, with one queue at each end.
    ///
    /// # Errors
    /// No root, missing programs, or the first step that fails.
    pub fn new() -> Result<Self> {
        require_root()?;
        require_tools(&["ip", "ethtool"])?;
        crate::clean::dead_labs()?;
        let id = LabId::next()?;
        let dir = TempDir::create(&id.name("files"))?;
        let (far, near) = (NetNs::create(id.name("far"))?, NetNs::create(id.name("near"))?);
        for ns in [&far, &near] {
            ns.set_sysctls(&["net/ipv6/conf/default/accept_dad=0"])?;
        }
        far.ip(&format!(
            "link add eth0 numtxqueues 1 numrxqueues 1 type veth peer name eth0 \
             numtxqueues 1 numrxqueues 1 netns {}\n",
            near.name()
        ))?;
        for ns in [&far, &near] {
            ns.ip("link set lo up\nlink set eth0 up\n")?;
        }
        Ok(Self { far, near, dir })
    }

    /// A directory that is removed with the wire.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
