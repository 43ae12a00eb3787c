//! `bpf/veth.bpf.c`, loaded.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result};
use libbpf_rs::{Link, MapCore as _, MapFlags, Object, ObjectBuilder, ProgramInput};

use super::traffic::Traffic;

/// One copy of the programs and their maps.
#[derive(Debug)]
pub struct Programs(Object);

impl Programs {
    /// Loads them.
    ///
    /// # Errors
    /// What libbpf says.
    pub fn load() -> Result<Self> {
        libbpf_rs::set_print(None);
        let open = ObjectBuilder::default().open_memory(OBJECT)?;
        Ok(Self(open.load()?))
    }

    /// Attaches a program to a device of this thread's namespace, until the link is dropped.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach(&self, program: &str, ifindex: u32) -> Result<Link> {
        let mut programs = self.0.progs_mut();
        let found = programs.find(|one| one.name() == program).context("no such program")?;
        Ok(found.attach_xdp(i32::try_from(ifindex)?)?)
    }

    /// Gives `to_socket` its socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_socket(&self, socket: BorrowedFd<'_>) -> Result<()> {
        self.write("xsks", &socket.as_fd().as_raw_fd().to_ne_bytes())
    }

    /// Sends until the process ends, out of the device of this index of this thread's namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, traffic: &Traffic, ifindex: u32) -> Result<()> {
        self.write("settings", &traffic.settings())?;
        let frame = traffic.frame();
        let end = u32::try_from(frame.len())?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let mut context: Vec<u8> =
            [0, end, 0, ifindex, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut programs = self.0.progs_mut();
        let program = programs.find(|one| one.name() == "generate").context("no such program")?;
        loop {
            program.test_run(ProgramInput {
                context_in: Some(&mut context),
                data_in: Some(&frame),
                flags: LIVE_FRAMES,
                repeat: u32::MAX,
                ..ProgramInput::default()
            })?;
        }
    }

    fn write(&self, map: &str, value: &[u8]) -> Result<()> {
        let mut maps = self.0.maps();
        let map = maps.find(|one| one.name() == map).context("no such map")?;
        Ok(map.update(&[0; 4], value, MapFlags::ANY)?)
    }
}

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/veth.o"));
/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const LIVE_FRAMES: u32 = 1 << 1;
