//! Removing what labs leave behind: namespaces, the processes in them and directories.
//!
//! A lab removes its own things when it is dropped. This module is for the two cases in which
//! nothing is dropped: a signal ([`clean_up_on_signals`]) and a process that died without a
//! chance ([`dead_labs`]). It touches only things whose name carries a lab's owner.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::Command,
    sync::{RwLock, RwLockReadGuard},
    thread,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    error::{Doing as _, LabError, Result},
    identity::{Owner, lab_entries},
};

/// What a clean-up removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names of the network namespaces.
    pub namespaces: Vec<String>,
    /// Processes that were still running in them.
    pub processes: u32,
    /// Directories.
    pub directories: Vec<String>,
}

/// Removes everything that belongs to labs whose process no longer exists, and kills the
/// processes that run inside their namespaces.
///
/// # Errors
/// When the namespaces cannot be listed, or one cannot be removed.
pub fn dead_labs() -> Result<Removed> {
    remove_where(|owner| !owner.alive())
}

/// Removes everything that belongs to labs of the calling process, in use or not.
///
/// # Errors
/// As [`dead_labs`].
pub fn own_labs() -> Result<Removed> {
    let own = Owner::this_process()?;
    remove_where(|owner| owner == own)
}

/// On SIGINT, SIGTERM or SIGHUP: stops the making of new things, removes all labs of this process
/// and ends it with status 128 + signal.
///
/// # Errors
/// When the signals cannot be watched.
pub fn clean_up_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "watch signals".into())?;
    let (sigint, sigterm, sighup) = {
        let _inside = runtime.enter();
        let watch = |kind| signal(kind).doing(|| "watch signals".into());
        (
            watch(SignalKind::interrupt())?,
            watch(SignalKind::terminate())?,
            watch(SignalKind::hangup())?,
        )
    };
    let wait = async move {
        let (mut sigint, mut sigterm, mut sighup) = (sigint, sigterm, sighup);
        tokio::select! {
            _ = sigint.recv() => 2,
            _ = sigterm.recv() => 15,
            _ = sighup.recv() => 1,
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let number = runtime.block_on(wait);
            // Held until the process ends, so that no other process makes namespaces meanwhile.
            let _closed = GATE.write();
            let status = if own_labs().is_ok() { 128 + number } else { 1 };
            std::process::exit(status);
        })
        .doing(|| "start the signal thread".into())?;
    Ok(())
}

/// To be held while something is made that a clean-up would have to remove.
///
/// # Errors
/// [`LabError::Interrupted`] when the process is being ended.
pub(crate) fn making() -> Result<RwLockReadGuard<'static, ()>> {
    GATE.read().map_err(|_| LabError::Interrupted)
}

/// Returns at once, or never when a signal is ending this process: so that an error that the
/// clean-up itself caused is not reported.
pub fn wait_if_ending() {
    drop(GATE.read());
}

fn remove_where(unwanted: impl Fn(Owner) -> bool) -> Result<Removed> {
    let mut removed = Removed::default();
    for (name, _) in lab_entries(NETNS_DIR)?.into_iter().filter(|(_, owner)| unwanted(*owner)) {
        removed.processes += kill_all_inside(&name);
        if remove_namespace(&name)? {
            removed.namespaces.push(name);
        }
    }
    let temp = std::env::temp_dir().display().to_string();
    for (name, _) in lab_entries(&temp)?.into_iter().filter(|(_, owner)| unwanted(*owner)) {
        let path = format!("{temp}/{name}");
        if fs::remove_dir_all(&path).is_ok() {
            removed.directories.push(path);
        }
    }
    Ok(removed)
}

/// Removes a named network namespace; `false` if another process removed it first.
///
/// # Errors
/// When it is still there afterwards.
pub(crate) fn remove_namespace(name: &str) -> Result<bool> {
    let path = format!("{NETNS_DIR}/{name}");
    let output = Command::new("ip")
        .args(["netns", "del", name])
        .output()
        .doing(|| format!("ip netns del {name}"))?;
    if output.status.success() {
        return Ok(true);
    }
    if !fs::exists(&path).unwrap_or(true) {
        return Ok(false);
    }
    Err(LabError::Command {
        command: format!("ip netns del {name}"),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    })
}

/// Kills every process whose network namespace is the named one. Returns how many.
fn kill_all_inside(name: &str) -> u32 {
    let Ok(wanted) = fs::metadata(format!("{NETNS_DIR}/{name}")) else { return 0 };
    let inside = |pid: i32| {
        fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|ns| ns.ino() == wanted.ino() && ns.dev() == wanted.dev())
    };
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut killed = 0;
    for pid in pids.filter(|pid| inside(*pid)) {
        // The descriptor pins the process: it is looked at again before the signal is sent, so
        // that a process id that was reused meanwhile is never signalled.
        let Some(pidfd) = Pid::from_raw(pid).and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok())
        else {
            continue;
        };
        let own = u32::try_from(pid).is_ok_and(|pid| pid == std::process::id());
        if !own && inside(pid) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
            killed += 1;
        }
    }
    killed
}

/// Where `ip netns` keeps its names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// Read-locked while something is made; write-locked for good when the process is being ended.
static GATE: RwLock<()> = RwLock::new(());
