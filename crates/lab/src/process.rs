//! Processes inside a namespace: started, signalled, waited for and always ended.
//!
//! Every process runs in its own process group (so that Ctrl-C reaches the lab only, and so that
//! what it starts itself ends with it) and dies with the lab, even if the lab is killed with
//! SIGKILL: `setpriv --pdeathsig` sets the death signal, which needs no `unsafe` here.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};

use crate::{
    error::{Doing as _, LabError, Result},
    netns::NetNs,
};

/// A running process of the lab. Dropping it kills it and its process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Where its output goes.
    log: PathBuf,
    status: Option<ExitStatus>,
}

/// What a command that has ended left.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    command: String,
}

impl Output {
    /// The standard output, if the status was 0.
    ///
    /// # Errors
    /// [`LabError::Command`] for any other status.
    pub fn ok(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(LabError::Command {
            command: self.command,
            status: self.status.to_string(),
            stderr: format!("{}{}", self.stdout, self.stderr).trim_end().to_owned(),
        })
    }
}

impl Process {
    /// Starts `argv` in `ns`; standard output and error are appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started. That the program does not exist shows as an early end only.
    pub fn start(ns: &NetNs, name: &str, argv: &[&str], log: &Path) -> Result<Self> {
        let open = || File::options().append(true).create(true).open(log);
        let (out, err) = (open(), open());
        let mut command = wrapped(argv);
        command.stdout(out.doing(|| format!("open {}", log.display()))?);
        command.stderr(err.doing(|| format!("open {}", log.display()))?);
        let child = ns.start(command)?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), status: None })
    }

    /// Runs `argv` in `ns` to its end, at most `limit`, and captures its output.
    pub(crate) fn capture(ns: &NetNs, argv: &[&str], limit: Duration) -> Result<Output> {
        let mut command = wrapped(argv);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ns.start(command)?;
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        let name = argv.join(" ");
        let mut process = Self { name: name.clone(), child, log: PathBuf::new(), status: None };
        let status = process.wait(limit);
        // Ends it if it still runs, and with it whatever keeps the pipes open.
        drop(process);
        let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
        let (stdout, stderr) = (text(stdout), text(stderr));
        Ok(Output { status: status?, stdout, stderr, command: name })
    }

    /// Its process id. The process is not reaped before this value is dropped or it was waited
    /// for, so the id is not given to another process meanwhile.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All that it has printed so far (invalid UTF-8 replaced).
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Sends a signal to the process itself (not to its group).
    ///
    /// # Errors
    /// When it has been waited for already, or the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let what = || format!("signal {}", self.name);
        let pid = self.raw_pid().filter(|_| self.status.is_none());
        let pid =
            pid.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound)).doing(what)?;
        kill_process(pid, signal).doing(what)
    }

    /// SIGSTOP: it stays, but does not run.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(5)).map(drop)
    }

    /// SIGTERM, and waits for the end at most `limit`. Returns the status and how long it took.
    ///
    /// # Errors
    /// As [`Process::signal`] and [`Process::wait`].
    pub fn stop(&mut self, limit: Duration) -> Result<(ExitStatus, Duration)> {
        let begin = Instant::now();
        self.signal(Signal::TERM)?;
        let status = self.wait(limit)?;
        Ok((status, begin.elapsed()))
    }

    /// Whether it still runs (paused counts as running).
    pub fn running(&mut self) -> bool {
        self.wait(Duration::ZERO).is_err()
    }

    /// Waits for its end, at most `limit`.
    ///
    /// # Errors
    /// [`LabError::Timeout`]; the process goes on.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let name = self.name.clone();
        let what = || format!("wait for {name}");
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let pid = self.raw_pid().ok_or_else(missing).doing(what)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing(what)?;
        let limit_spec = Timespec::try_from(limit).ok();
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let ready = poll(&mut fds, limit_spec.as_ref()).doing(what)?;
        if ready == 0 {
            return Err(LabError::Timeout { what: format!("end of {name}"), limit });
        }
        self.end_group().doing(what)
    }

    /// Polls `ready` until it says yes, the process ends, or `limit` is over.
    ///
    /// # Errors
    /// [`LabError::Ended`] with the last lines of the log, [`LabError::Timeout`], or what `ready`
    /// returned as an error.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if ready(self)? {
                return Ok(());
            }
            if let Ok(status) = self.wait(Duration::from_millis(5)) {
                return Err(LabError::Ended {
                    name: self.name.clone(),
                    status: status.to_string(),
                    log: last_lines(&self.log(), 15),
                });
            }
        }
        let what = format!("{}: {what}\n{}", self.name, last_lines(&self.log(), 15));
        Err(LabError::Timeout { what, limit })
    }

    fn raw_pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// Kills whatever is left of its group, then reaps it. In this order: the group's id is the
    /// leader's process id, which no other process can get before the leader is reaped.
    fn end_group(&mut self) -> std::io::Result<ExitStatus> {
        if let Some(pid) = self.raw_pid() {
            // Fails only when no process is left.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = self.child.wait()?;
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.end_group();
        }
    }
}

/// The environment is that of the lab, but for what would change how long a panic takes: its trace is
/// worked out, whatever the lab was started with.
fn wrapped(argv: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(argv);
    command.stdin(Stdio::null()).process_group(0).env("RUST_BACKTRACE", "1");
    command
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is worth returning.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
