//! Programs that are run for their exit status: no shell, no input, no output, a clean environment,
//! each in a process group of its own.
//!
//! A program is started with posix_spawn(3), never with a plain fork(2): that would write-protect the
//! memory of the packet path. So what it must not inherit is put right beside it: priorities by
//! `SCHED_RESET_ON_FORK` ([`crate::priority`]), the rest in [`spawn`].

mod sweep;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use crossbeam::channel::{Sender, unbounded};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getrlimit, kill_process_group, prlimit,
    set_child_subreaper,
};
use tracing::debug;

/// Name and value of an environment variable.
pub(crate) type Variable = (&'static str, String);

/// A program and all that it starts. What is left of them when this is dropped is killed, also what
/// has left its process group.
#[derive(Debug)]
pub(crate) struct Run {
    number: u64,
    /// Until it is reaped.
    pid: Option<u32>,
}

/// A program of the standard library's kind.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    run: Run,
}

/// How this daemon deals with what its programs leave behind; not set in unit tests.
#[derive(Debug)]
struct Sweeper {
    ended: Sender<sweep::Ended>,
    /// The limit of open files that this process was started with.
    files: Rlimit,
    /// Whether its OOM score is not the ordinary one.
    protected: bool,
}

static SWEEPER: OnceLock<Sweeper> = OnceLock::new();
static RUNS: AtomicU64 = AtomicU64::new(0);
/// Programs that are not reaped yet; what else becomes a child of this process was started by them.
static DIRECT: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// By this variable what a program starts is recognised.
const MARK: &str = "POINTSMAN_RUN";
/// The environment of every program, besides the variables of its event.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];

/// Makes this process the parent of whatever its programs leave behind, and starts the thread that
/// ends that. To be called before anything raises a limit.
///
/// # Errors
/// What prctl(2) and thread creation return.
pub(crate) fn adopt_orphans() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("cannot become the parent of orphans")?;
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let (ended, inbox) = unbounded();
    sweep::start(inbox).context("cannot start the thread that ends what programs leave behind")?;
    let files = getrlimit(Resource::Nofile);
    let protected = !matches!(score.trim(), "0" | "");
    // It is set once only, by the daemon.
    let _ = SWEEPER.set(Sweeper { ended, files, protected });
    Ok(())
}

/// Ends all programs and whatever they left behind: to be called last.
pub(crate) fn end_all() {
    sweep::everything();
}

/// The program and its arguments, and what it finds in its environment.
///
/// # Errors
/// `InvalidInput` when there is no program.
pub(crate) fn command(argv: &[String], environment: &[Variable]) -> io::Result<(Command, Run)> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let run = Run { number: RUNS.fetch_add(1, Relaxed), pid: None };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0);
    command.env_clear().envs(ENVIRONMENT);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.env(MARK, run.mark());
    Ok((command, run))
}

/// Starts a program by `start`, which returns it and its process id.
///
/// # Errors
/// What `start` returns.
pub(crate) fn spawn<T>(
    run: &mut Run,
    start: impl FnOnce() -> io::Result<(T, Option<u32>)>,
) -> io::Result<T> {
    // Until it is registered, the sweeper must not take it for an orphan.
    let mut direct = direct();
    // Nor may it inherit an AF_XDP socket, which would hold its queue for as long as it runs.
    let (child, pid) = xsk::inheriting_nothing(start)?;
    run.pid = pid;
    direct.extend(pid);
    drop(direct);
    if let (Some(pid), Some(sweeper)) = (pid, SWEEPER.get()) {
        sweeper.put_right(pid);
    }
    Ok(child)
}

/// Starts a program.
///
/// # Errors
/// What execve(2) and its neighbours return.
pub(crate) fn start(argv: &[String], environment: &[Variable]) -> io::Result<Program> {
    let (mut command, mut run) = command(argv, environment)?;
    let child = spawn(&mut run, || {
        let child = command.spawn()?;
        let pid = child.id();
        Ok((child, Some(pid)))
    })?;
    Ok(Program { child, run })
}

fn direct() -> MutexGuard<'static, BTreeSet<u32>> {
    DIRECT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Program {
    /// Its process id.
    #[cfg(test)]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// What waitpid(2) returns.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        let status = self.child.try_wait();
        if !matches!(status, Ok(None)) {
            self.run.reaped();
        }
        status
    }

    /// Kills it and all that it started. Does not wait for their end: what waits for a dead disk or
    /// server does not die before that answers.
    pub(crate) fn kill(&self) {
        self.run.kill();
    }

    /// What is left of it after it ended.
    pub(crate) fn into_run(self) -> Run {
        self.run
    }
}

impl Run {
    /// It was waited for: its process id may be another's from now on.
    pub(crate) fn reaped(&mut self) {
        if let Some(pid) = self.pid.take() {
            direct().remove(&pid);
        }
    }

    /// See [`Program::kill`].
    pub(crate) fn kill(&self) {
        // While it is not reaped, no other group can have its id.
        let group = self.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.sweep(true);
    }

    fn mark(&self) -> String {
        format!("{}-{}", std::process::id(), self.number)
    }

    fn sweep(&self, at_once: bool) {
        if let Some(sweeper) = SWEEPER.get() {
            let _ = sweeper.ended.send(sweep::Ended { run: self.number, at_once });
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        match self.pid {
            Some(_) => self.kill(),
            None => self.sweep(false),
        }
        self.reaped();
    }
}

impl Sweeper {
    /// What is this process's own is not a program's: its protection against the OOM killer, and its
    /// limit of open files.
    fn put_right(&self, pid: u32) {
        if self.protected
            && let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0")
        {
            debug!(%error, "cannot reset the OOM score of a program");
        }
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = id.map(|id| prlimit(Some(id), Resource::Nofile, self.files)) {
            debug!(%error, "cannot reset the limit of open files of a program");
        }
    }
}

/// What is left of programs that ended well: it may run until then.
#[derive(Debug, Default)]
pub(crate) struct Leftovers(VecDeque<(dataplane::Tick, Run)>);

impl Leftovers {
    /// Lets what is left of a program run until `end`.
    pub(crate) fn keep(&mut self, program: Program, end: dataplane::Tick) {
        self.0.push_back((end, program.into_run()));
    }

    /// Ends those whose time is over.
    pub(crate) fn turn(&mut self, now: dataplane::Tick) {
        self.0.retain(|(end, _)| now < *end);
    }
}
