//! Freezes single threads, as a stuck device driver or a starved virtual CPU would: signals stop
//! whole processes only, the freezer of cgroup v1 works on threads.

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// A frozen thread. Dropping this thaws it, also when a test fails.
#[derive(Debug)]
pub struct Frozen {
    group: PathBuf,
    root: PathBuf,
    tid: u32,
}

impl Frozen {
    /// Freezes the thread of `pid` that is called `name`; returns when it stands still.
    ///
    /// # Errors
    /// There is no such thread, or no freezer.
    pub fn thread(pid: u32, name: &str) -> Result<Self> {
        let root = freezer()?;
        thaw_leftovers(&root)?;
        let tid = thread_id(pid, name)?;
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Relaxed);
        let group = root.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&group)?;
        // From here on whatever fails is undone by `drop`.
        let frozen = Self { group, root, tid };
        fs::write(frozen.group.join("tasks"), tid.to_string())?;
        frozen.set("FROZEN")?;
        Ok(frozen)
    }

    fn set(&self, state: &str) -> Result<()> {
        let file = self.group.join("freezer.state");
        fs::write(&file, state)?;
        let begin = Instant::now();
        while fs::read_to_string(&file)?.trim() != state {
            if begin.elapsed() > Duration::from_secs(2) {
                return Err(Error::new(ErrorKind::TimedOut, format!("not {state} in time")));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.set("THAWED");
        let _ = fs::write(self.root.join("tasks"), self.tid.to_string());
        let _ = fs::remove_dir(&self.group);
    }
}

/// The thread of a process that has a name; the main thread is called as the process.
fn thread_id(pid: u32, name: &str) -> Result<u32> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let named = fs::read_to_string(path.join("comm"))?.trim() == name;
        let tid = path.file_name().and_then(|tid| tid.to_str()?.parse().ok());
        if let Some(tid) = tid.filter(|_| named) {
            return Ok(tid);
        }
    }
    Err(Error::new(ErrorKind::NotFound, format!("process {pid} has no thread {name}")))
}

/// Where the hierarchy is mounted. Systems with cgroup v2 have it, but do not mount it: then it is
/// mounted once, and stays.
fn freezer() -> Result<PathBuf> {
    let usual = Path::new("/sys/fs/cgroup/freezer");
    let own = Path::new("/run/pointsman-freezer");
    if let Some(found) = [usual, own].into_iter().find(|path| path.join("tasks").exists()) {
        return Ok(found.to_owned());
    }
    fs::create_dir_all(own)?;
    let arguments = ["-t", "cgroup", "-o", "freezer", "none"];
    if Command::new("mount").args(arguments).arg(own).status()?.success() {
        return Ok(own.to_owned());
    }
    Err(Error::new(ErrorKind::Unsupported, "this kernel has no freezer of cgroup v1"))
}

/// A test that was killed could not thaw anything: nobody could end what it froze.
fn thaw_leftovers(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)? {
        let group = entry?.path();
        let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner else { continue };
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        fs::write(group.join("freezer.state"), "THAWED")?;
        for tid in fs::read_to_string(group.join("tasks"))?.lines() {
            // It may have ended: it was not possible before.
            let _ = fs::write(root.join("tasks"), tid);
        }
        let _ = fs::remove_dir(&group);
    }
    Ok(())
}

const PREFIX: &str = "pointsman-frozen-";
