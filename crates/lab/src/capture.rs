//! Captures: tcpdump in a namespace, started and stopped so that nothing in between is missed.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    error::{Doing as _, LabError, Result},
    host::require_tools,
    netns::NetNs,
    pcap::{self, Frame},
    process::Process,
};

/// Which frames of an interface are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Incoming frames.
    In,
    /// Outgoing frames.
    Out,
    /// Both.
    Both,
}

/// A capture that is going on. Dropping it ends tcpdump.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts a capture into `file` and returns when it has begun. At most 2,048 bytes of each frame
    /// are kept: all of one that fits the MTU, not all of a backend's answer, which is
    /// segmented later than it is captured.
    ///
    /// AF_XDP takes frames before tcpdump sees them: to see what goes in and out of a balancer,
    /// capture on its port on the switch ([`crate::Lab::switch`], port `lb1`, where frames to the
    /// balancer go [`Direction::Out`]).
    ///
    /// # Errors
    /// When tcpdump is missing, refuses the filter, or does not begin within 5 s.
    pub fn start(
        ns: &NetNs,
        interface: &str,
        direction: Direction,
        filter: &str,
        file: PathBuf,
    ) -> Result<Self> {
        require_tools(&["tcpdump"])?;
        let path = file.display().to_string();
        let direction = match direction {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Both => "inout",
        };
        // -Z root: it would otherwise give up root and could not write to the lab's directory.
        // -B: 32 MB of buffer. -U: each frame is written at once. Without --immediate-mode the
        // frames of the last second are lost when tcpdump is ended.
        let argv = [
            "tcpdump",
            "-Z",
            "root",
            "-n",
            "-U",
            "--immediate-mode",
            "-s",
            "2048",
            "-B",
            "32768",
            "-i",
            interface,
            "-Q",
            direction,
            "-w",
            &path,
            filter,
        ];
        let log = file.with_extension("log");
        // What an earlier capture into this file left would be taken for this one's.
        for old in [&log, &file] {
            let _ = std::fs::remove_file(old);
        }
        let mut process = Process::start(ns, "tcpdump", &argv, &log)?;
        process.wait_until("listens", Duration::from_secs(5), |process| {
            Ok(process.log().contains("listening on"))
        })?;
        Ok(Self { process, file })
    }

    /// Waits until at least `count` frames were written, at most `limit`.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the number that there was.
    pub fn wait_for(&mut self, count: usize, limit: Duration) -> Result<()> {
        let file = self.file.clone();
        let mut seen = 0;
        let result = self.process.wait_until("frames", limit, |_| {
            seen = std::fs::read(&file).map(|bytes| pcap::count(&bytes)).unwrap_or(0);
            Ok(seen >= count)
        });
        match result {
            Err(LabError::Timeout { limit, .. }) => {
                let what = format!("{count} frames captured (there are {seen})");
                Err(LabError::Timeout { what, limit })
            }
            other => other,
        }
    }

    /// Waits until nothing was captured for the time `quiet`, at most `limit`: before two captures
    /// are compared, so that neither ends while a frame is between them.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when frames keep coming.
    pub fn settle(&mut self, quiet: Duration, limit: Duration) -> Result<()> {
        let file = self.file.clone();
        let mut last = (0, Instant::now());
        self.process.wait_until("quiet", limit, |_| {
            let length = std::fs::metadata(&file).map(|meta| meta.len()).unwrap_or(0);
            if length != last.0 {
                last = (length, Instant::now());
            }
            Ok(last.1.elapsed() >= quiet)
        })
    }

    /// Ends the capture and reads it.
    ///
    /// # Errors
    /// When tcpdump does not end, lost frames, or its file is no capture.
    pub fn finish(mut self) -> Result<Vec<Frame>> {
        self.process.signal(Signal::INT)?;
        self.process.wait(Duration::from_secs(10))?;
        let log = self.process.log();
        let lost = log.lines().find(|line| line.contains("dropped by kernel"));
        if !lost.is_some_and(|line| line.starts_with("0 ")) {
            return Err(LabError::Malformed { what: "capture".into(), detail: log });
        }
        let bytes = std::fs::read(&self.file).doing(|| format!("read {}", self.file.display()))?;
        pcap::parse(&bytes)
    }
}
