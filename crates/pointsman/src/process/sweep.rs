//! Ends what programs leave behind: a child that left its process group (setsid(1), a double fork).
//!
//! This process is the parent of all orphans among its descendants, so whatever a program started is
//! found below it in `/proc`; the mark in its environment, or in an ancestor's, says which program
//! that was. An orphan without one has hidden where it comes from, and is ended with the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};

use super::{MARK, direct};
use crate::panics::contain;
use crate::priority;

/// A program that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) run: u64,
    /// It was killed, or is to be: what is left of it is not to go on.
    pub(super) at_once: bool,
}

/// A descendant of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    /// When it was started, in the kernel's own unit: process ids are used again.
    started: u64,
    zombie: bool,
    run: Option<u64>,
}

/// Looking through `/proc` takes milliseconds: not for each of a hundred checks a second.
const LAZILY: Duration = Duration::from_secs(1);
/// What is killed starts nothing more, but what it had started before may show up as an orphan.
const ROUNDS: usize = 10;
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn start(inbox: Receiver<Ended>) -> io::Result<()> {
    let sweep = move || {
        priority::lower();
        while let Ok(first) = inbox.recv() {
            let runs = gather(&inbox, first);
            // It only tidies up.
            contain(|| sweep_away(&runs));
        }
    };
    Builder::new().name("sweep".into()).spawn(sweep).map(drop)
}

/// Programs that ended by now, or soon after.
fn gather(inbox: &Receiver<Ended>, first: Ended) -> BTreeSet<u64> {
    let deadline = Instant::now() + LAZILY;
    let mut runs = BTreeSet::from([first.run]);
    let mut hurry = first.at_once;
    while !hurry && let Ok(ended) = inbox.recv_deadline(deadline) {
        runs.insert(ended.run);
        hurry = ended.at_once;
    }
    runs.extend(inbox.try_iter().map(|ended| ended.run));
    runs
}

fn sweep_away(runs: &BTreeSet<u64>) {
    let own = std::process::id();
    for _ in 0..ROUNDS {
        let processes = descendants(own);
        reap(&processes, own);
        let doomed = doomed(&processes, own, &direct(), runs);
        if doomed.is_empty() {
            return;
        }
        for process in doomed {
            kill(process);
        }
        sleep(PAUSE);
    }
}

/// Ends all programs and whatever they left behind, at the end of this process.
pub(super) fn everything() {
    let own = std::process::id();
    for _ in 0..ROUNDS {
        let mut processes = descendants(own);
        processes.retain(|process| !process.zombie);
        if processes.is_empty() {
            return;
        }
        processes.iter().for_each(kill);
        sleep(PAUSE);
    }
}

/// Orphans that have ended.
fn reap(processes: &[Process], own: u32) {
    // Held while it is decided: none is started meanwhile.
    let direct = direct();
    let orphans = processes.iter().filter(|p| p.zombie && p.parent == own);
    for orphan in orphans.filter(|orphan| !direct.contains(&orphan.pid)) {
        if let Some(pid) = raw(orphan.pid) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Which of the descendants are to be killed.
fn doomed<'a>(
    processes: &'a [Process],
    own: u32,
    direct: &BTreeSet<u32>,
    runs: &BTreeSet<u64>,
) -> Vec<&'a Process> {
    let by_pid: BTreeMap<u32, &Process> = processes.iter().map(|p| (p.pid, p)).collect();
    let is_doomed = |process: &&Process| {
        let mut at = *process;
        // A chain of parents is no longer than there are processes.
        for _ in 0..processes.len() {
            if let Some(run) = at.run {
                return runs.contains(&run);
            }
            match by_pid.get(&at.parent) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        at.parent == own && !direct.contains(&at.pid)
    };
    processes.iter().filter(|process| !process.zombie).filter(is_doomed).collect()
}

/// All processes below this one.
fn descendants(own: u32) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<Process> = pids.filter_map(read).collect();
    let mut below = BTreeSet::from([own]);
    loop {
        let before = below.len();
        below.extend(
            all.iter().filter(|p| below.contains(&p.parent)).map(|p| p.pid).collect::<Vec<_>>(),
        );
        if below.len() == before {
            break;
        }
    }
    let below = all.into_iter().filter(|p| p.pid != own && below.contains(&p.pid));
    below.map(|process| Process { run: run_of(process.pid), ..process }).collect()
}

/// What `/proc/PID/stat` says; `None` when it is gone.
fn read(pid: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything. Behind it: state, parent; the start is field 22 of all.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, started, zombie, run: None })
}

/// The run that its environment names.
fn run_of(pid: u32) -> Option<u64> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = std::str::from_utf8(variable).ok()?.strip_prefix(MARK)?.strip_prefix('=')?;
        let (daemon, run) = value.split_once('-')?;
        (daemon.parse() == Ok(std::process::id())).then(|| run.parse().ok())?
    })
}

/// Kills a process, unless its id is another's by now.
fn kill(process: &Process) {
    let Some(pid) = raw(process.pid) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if read(process.pid).is_some_and(|now| now.started == process.started) {
        let _ = pidfd_send_signal(handle, Signal::KILL);
    }
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 100;

    fn process(pid: u32, parent: u32, run: Option<u64>) -> Process {
        Process { pid, parent, started: 0, zombie: false, run }
    }

    /// Of run 1: a program 101 with a child that left its group and one that hid its mark. Of run 2:
    /// a program 201. Orphans: 103 of run 1, 203 of run 2, 300 of neither.
    fn family() -> Vec<Process> {
        vec![
            process(101, OWN, Some(1)),
            process(102, 101, Some(1)),
            process(104, 102, None),
            process(103, OWN, Some(1)),
            process(201, OWN, Some(2)),
            process(203, OWN, Some(2)),
            process(204, 203, None),
            process(300, OWN, None),
            process(301, 300, None),
        ]
    }

    fn killed(runs: &[u64]) -> Vec<u32> {
        let (direct, runs) = (BTreeSet::from([101, 201]), runs.iter().copied().collect());
        let mut pids: Vec<u32> =
            doomed(&family(), OWN, &direct, &runs).iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn what_a_program_started_ends_with_it_wherever_it_went() {
        assert_eq!(killed(&[1]), [101, 102, 103, 104, 300, 301]);
        assert_eq!(killed(&[2]), [201, 203, 204, 300, 301]);
        assert_eq!(killed(&[3]), [300, 301], "only what hides its origin");
    }

    #[test]
    fn a_program_without_a_mark_that_is_known_goes_on() {
        let family = [process(400, OWN, None), process(401, 400, None)];
        let direct = BTreeSet::from([400]);
        assert!(doomed(&family, OWN, &direct, &BTreeSet::from([1])).is_empty());
    }

    #[test]
    fn this_very_process_is_read() {
        let own = read(std::process::id()).expect("it exists");
        assert!(!own.zombie && own.started > 0, "{own:?}");
        assert_eq!(own.parent, std::os::unix::process::parent_id());
    }
}
