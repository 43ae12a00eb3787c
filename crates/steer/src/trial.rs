//! The program of one imagined interface, run frame by frame with `BPF_PROG_TEST_RUN`.
//!
//! That run reports a redirect only if the queue has a socket, so a trial has one: an AF_XDP socket
//! needs no ring and no interface to stand in an XSKMAP.

use std::cell::Cell;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, ProgramInput};
use rustix::net::{AddressFamily, SocketType, socket};

use crate::abi::{Mac, Port, XSKS};
use crate::attach::{read_counters, set_port};
use crate::error::SteerError;
use crate::fast_path::{FlowMap, Traffic};
use crate::object;
use crate::object::skeleton::{OpenSteerMaps, SteerSkel};
use crate::steer::{handle, prepare};
use crate::{Counters, Outcome, Steer};

/// The program on an imagined interface, which is [`Trial::IFINDEX`], with queue 0 and maps of its own.
pub struct Trial {
    object: SteerSkel<'static>,
    counters: MapHandle,
    traffic: Option<Traffic>,
    last: Cell<Counters>,
    socket: OwnedFd,
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`: the kernel's.
    Pass,
    /// `XDP_REDIRECT`: to the socket.
    Redirect,
    /// `XDP_TX`: out of the interface.
    Transmit,
}

impl Trial {
    /// The interface that `BPF_PROG_TEST_RUN` pretends to receive on: the loopback device.
    pub const IFINDEX: u32 = 1;

    /// With the VIPs and leases of `steer`, on an interface with this MAC. Memory of this is never
    /// given back.
    ///
    /// # Errors
    /// Those of [`Steer::attach`].
    pub fn new(steer: &Steer, mac: Mac) -> Result<Self, SteerError> {
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let like = steer.fast_path().map(|fast_path| fast_path.like()).transpose()?;
        let object = object::load(storage, |open| {
            prepare(open, like.as_ref(), XSKS)?;
            let OpenSteerMaps { vips, leases, vip_states, pictures, egress, .. } = &mut open.maps;
            steer.share_maps([vips, leases, vip_states, pictures, egress])
        })?;
        set_port(&handle(&object.maps.port)?, Port::of(mac))?;
        let socket = socket(AddressFamily::XDP, SocketType::RAW, None)
            .map_err(SteerError::system("open an AF_XDP socket"))?;
        let trial = Self {
            counters: handle(&object.maps.counters)?,
            traffic: steer
                .traffic([&handle(&object.maps.traffic)?, &handle(&object.maps.queue_packets)?])?,
            object,
            last: Cell::default(),
            socket,
        };
        trial.bind(true)?;
        Ok(trial)
    }

    /// Gives queue 0 its socket, or takes it away.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn bind(&self, bound: bool) -> Result<(), SteerError> {
        let (key, fd) = (0u32.to_ne_bytes(), self.socket.as_fd().as_raw_fd().to_ne_bytes());
        let xsks = &self.object.maps.xsks;
        let result = if bound { xsks.update(&key, &fd, MapFlags::ANY) } else { xsks.delete(&key) };
        result.map_err(SteerError::map("change the sockets"))
    }

    /// Runs one frame of at least 14 bytes, as received on queue 0; what it is then goes to `after`.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    ///
    /// # Panics
    /// If the frame is not counted exactly once.
    pub fn run(&self, frame: &[u8], after: &mut Vec<u8>) -> Result<(Action, Outcome), SteerError> {
        let action = self.repeat(frame, after, 1)?.0;
        let counters = read_counters(&self.counters)?;
        let outcome = the_only_step(&self.last.replace(counters), &counters);
        Ok((action, outcome))
    }

    /// Runs one frame so many times: what became of it the last time, and how long one run took on
    /// average. Each run begins with what the run before left of the frame.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    ///
    /// # Panics
    /// If the program returns what is no action.
    pub fn repeat(
        &self,
        frame: &[u8],
        after: &mut Vec<u8>,
        times: u32,
    ) -> Result<(Action, Duration), SteerError> {
        after.resize(frame.len(), 0);
        let input = ProgramInput {
            data_in: Some(frame),
            data_out: Some(after),
            repeat: times,
            ..ProgramInput::default()
        };
        let program = &self.object.progs.steer;
        let output = program.test_run(input).map_err(SteerError::map("run the program"))?;
        let action = match output.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            4 => Action::Redirect,
            action => panic!("the program returned {action}"),
        };
        Ok((action, output.duration))
    }

    /// What became of the frames so far.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn counters(&self) -> Result<Counters, SteerError> {
        read_counters(&self.counters)
    }

    /// As [`Attached::show_flows`](crate::Attached::show_flows) on queue 0.
    ///
    /// # Errors
    /// As there.
    pub fn show_flows(&self, flows: &FlowMap) -> Result<(), SteerError> {
        flows.show(&handle(&self.object.maps.flows)?, 0)
    }

    /// As [`Attached::set_local_senders`](crate::Attached::set_local_senders).
    ///
    /// # Errors
    /// As there.
    pub fn set_local_senders(&self, mac: Mac, longest: u16) -> Result<(), SteerError> {
        set_port(&handle(&self.object.maps.port)?, Port { local_longest: longest, ..Port::of(mac) })
    }

    /// Has programs that share the maps of `steer` take the interface of this index for one that takes
    /// frames, whether there is one or not.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn imagine_egress(&self, ifindex: u32) -> Result<(), SteerError> {
        let (key, value) = (ifindex.to_ne_bytes(), Self::IFINDEX.to_ne_bytes());
        let map = handle(&self.object.maps.egress)?;
        map.update(&key, &value, MapFlags::ANY).map_err(SteerError::map("imagine an interface"))
    }

    /// As [`Attached::set_redirects`](crate::Attached::set_redirects).
    ///
    /// # Errors
    /// As there.
    pub fn set_redirects(&self, mac: Mac, redirects: bool) -> Result<(), SteerError> {
        set_port(&handle(&self.object.maps.port)?, Port { redirects, ..Port::of(mac) })
    }

    /// As [`Attached::traffic`](crate::Attached::traffic).
    pub const fn traffic(&self) -> Option<&Traffic> {
        self.traffic.as_ref()
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").finish_non_exhaustive()
    }
}

fn the_only_step(before: &Counters, after: &Counters) -> Outcome {
    assert_eq!(after.total(), before.total() + 1, "one frame is counted once");
    let stepped = |outcome: &Outcome| after[*outcome] != before[*outcome];
    let found = Outcome::ALL.iter().copied().find(stepped);
    found.expect("one of them stepped")
}
