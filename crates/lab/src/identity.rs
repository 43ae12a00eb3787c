//! Names that say which process made a thing, so that leftovers of dead processes are recognised.
//!
//! A lab is `pmlab-<pid>-<start>-<n>`; its namespaces and its directory begin with that. `<start>`
//! is the start time of the process in clock ticks since boot (hexadecimal): a process with the
//! same id, started later, is another one.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::error::{Doing as _, LabError, Result};

/// Which process made a lab, and the how-manieth lab of that process it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabId {
    owner: Owner,
    number: u32,
}

/// A process, distinguished from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    start: u64,
}

impl LabId {
    /// The next lab of this process.
    pub(crate) fn next() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Ok(Self { owner: Owner::this_process()?, number: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// Name of the part `part` of this lab.
    pub(crate) fn name(&self, part: &str) -> String {
        format!("{}{}-{part}", self.owner.prefix(), self.number)
    }
}

impl Owner {
    /// The calling process.
    pub(crate) fn this_process() -> Result<Self> {
        let pid = std::process::id();
        let start = start_time(pid).ok_or_else(|| LabError::Malformed {
            what: "/proc/self/stat".into(),
            detail: "no start time".into(),
        })?;
        Ok(Self { pid, start })
    }

    /// What the names of all labs of this process begin with.
    pub(crate) fn prefix(self) -> String {
        format!("{PREFIX}-{}-{:x}-", self.pid, self.start)
    }

    /// The owner that `name` carries; `None` if it is not a lab's name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-');
        let pid = parts.next()?.parse().ok()?;
        let start = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next()?.parse::<u32>().ok()?;
        Some(Self { pid, start })
    }

    /// Whether the process still exists (a zombie does not count).
    pub(crate) fn alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// Names of all entries of a directory that belong to a lab; empty if there is no directory.
pub(crate) fn lab_entries(dir: &str) -> Result<Vec<(String, Owner)>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("list {dir}"))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| Owner::of(&name).map(|owner| (name, owner))).collect())
}

/// Field 22 of `/proc/PID/stat`; `None` for a process that does not run (any more).
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may itself contain blanks and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// First part of every name that a lab gives.
const PREFIX: &str = "pmlab";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_owner() {
        let first = LabId::next().unwrap();
        let second = LabId::next().unwrap();
        assert_ne!(first.name("sw"), second.name("sw"));
        let owner = Owner::of(&first.name("sw")).unwrap();
        assert_eq!(owner, Owner::this_process().unwrap());
        assert!(owner.alive());
        assert!(first.name("sw").starts_with(&owner.prefix()));
    }

    #[test]
    fn the_same_pid_with_another_start_is_dead() {
        let mut owner = Owner::this_process().unwrap();
        owner.start += 1;
        assert!(!owner.alive());
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for name in ["", "pmlab", "pmlab-x-1-0-sw", "pmlab-1-zz-0-sw", "pmlab-1-a-b-sw", "other"] {
            assert_eq!(Owner::of(name), None, "{name}");
        }
        assert!(Owner::of("pmlab-1-a-0-sw").is_some());
    }
}
