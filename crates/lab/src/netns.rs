//! One network namespace, and code and processes that run inside it.
//!
//! Owns: the namespace's name in `/run/netns` and the thread that starts its processes. Refuses to
//! do: anything to the namespace that the calling thread lives in; a thread that enters a
//! namespace is always one made for that purpose.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    clean::{self, NETNS_DIR},
    error::{Doing as _, LabError, Result},
    process::{Output, Process},
};

/// A network namespace that is removed when this is dropped.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    /// Runs jobs on the thread that starts processes. That thread lives as long as the namespace,
    /// because a child's death signal is tied to the thread (not the process) that started it.
    starter: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl NetNs {
    /// Makes a namespace with the given name.
    ///
    /// # Errors
    /// When `ip netns add` fails (no root, name taken) or the namespace cannot be entered.
    pub(crate) fn create(name: String) -> Result<Self> {
        let _making = clean::making()?;
        run_tool("ip", &["netns", "add", &name], "")?;
        // From here on dropping it removes the namespace, also when the rest fails.
        let mut ns = Self { name, starter: None, thread: None };
        let (starter, jobs) = mpsc::channel::<Job>();
        let body = move || jobs.into_iter().for_each(|job| job());
        ns.thread = Some(ns.spawn("starter", body)?);
        ns.starter = Some(starter);
        Ok(ns)
    }

    /// The name, as `ip netns exec NAME …` takes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts a thread that lives in this namespace. Sockets that it makes stay there.
    ///
    /// # Errors
    /// When the thread cannot be started or cannot enter the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        // A new thread begins in the namespace of the one that starts it.
        self.enter(|| {
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(body).doing(|| format!("start thread {name}"))
        })?
    }

    /// Runs `body` inside the namespace and returns its result.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `body` panics.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = self.open()?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| enter(&namespace).map(|()| body()));
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command inside the namespace and waits for it, at most `limit`.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time (it is killed then). A status other
    /// than 0 is not an error: look at [`Output::status`], or use [`Output::ok`].
    pub fn run(&self, argv: &[&str], limit: Duration) -> Result<Output> {
        Process::capture(self, argv, limit)
    }

    /// Starts `command` from the thread that outlives it.
    pub(crate) fn start(&self, mut command: Command) -> Result<std::process::Child> {
        let (reply, child) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            let _ = reply.send(command.spawn());
        });
        let _making = clean::making()?;
        let starter = self.starter.as_ref().ok_or(LabError::Interrupted)?;
        starter.send(job).map_err(|_| LabError::Interrupted)?;
        let child = child.recv().map_err(|_| LabError::Interrupted)?;
        child.doing(|| format!("start a process in {}", self.name))
    }

    /// Writes kernel settings, given as `net/ipv4/ip_forward=0`, of this namespace.
    ///
    /// # Errors
    /// When one of them does not exist or refuses the value.
    pub fn set_sysctls(&self, settings: &[&str]) -> Result<()> {
        self.enter(|| {
            settings.iter().try_for_each(|setting| {
                let (key, value) = setting.split_once('=').ok_or_else(|| LabError::Malformed {
                    what: "sysctl".into(),
                    detail: (*setting).to_owned(),
                })?;
                fs::write(format!("/proc/sys/{key}"), value).doing(|| format!("set {setting}"))
            })
        })?
    }

    /// Runs lines of `ip` commands (without the word `ip`) in this namespace.
    ///
    /// # Errors
    /// When one of them fails; the ones before it have been done.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run_tool("ip", &["-n", &self.name, "-batch", "-"], lines)
    }

    fn open(&self) -> Result<File> {
        let path = format!("{NETNS_DIR}/{}", self.name);
        File::open(&path).doing(|| format!("open {path}"))
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // Ends the thread; the kernel kills with it the processes that it started.
        drop(self.starter.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Nothing can be done about a failure here; `clean::dead_labs` finds what stays.
        let _ = clean::remove_namespace(&self.name);
    }
}

fn enter(namespace: &File) -> Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .doing(|| "enter the network namespace".into())
}

/// Runs a short tool to its end, with `input` on its standard input.
pub(crate) fn run_tool(program: &str, args: &[&str], input: &str) -> Result<()> {
    let words = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(words)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that stops at an error closes its input early; its status tells.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    }
    let output = child.wait_with_output().doing(words)?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        command: words(),
        status: output.status.to_string(),
        stderr: format!("{}\n{input}", String::from_utf8_lossy(&output.stderr).trim_end()),
    })
}
