//! Programs that are run because something happened: no shell, no input, killed when they hang.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use control::Notify;
use dataplane::Tick;
use rustix::process::{Pid, Signal, kill_process_group};
use tracing::warn;

use crate::clock;

/// The running ones.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    running: Vec<Hook>,
}

#[derive(Debug)]
struct Hook {
    program: String,
    child: Child,
    kill_at: Tick,
}

/// More at once are not started: something is wrong with them.
const MOST: usize = 64;

impl Hooks {
    /// Starts one with these words appended.
    pub(super) fn run(&mut self, notify: &Notify, words: &[&str]) {
        let program = notify.command.first().cloned().unwrap_or_default();
        if self.running.len() >= MOST {
            warn!(%program, "hook not run: {MOST} of them are running");
            return;
        }
        let mut argv = notify.command.clone();
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        match start(&argv) {
            Ok(child) => {
                let kill_at = clock::now() + notify.timeout;
                self.running.push(Hook { program, child, kill_at });
            }
            Err(error) => warn!(%program, %error, "cannot run the hook"),
        }
    }

    /// Takes note of those that ended, and kills those that hang.
    pub(super) fn reap(&mut self, now: Tick) {
        self.running.retain_mut(|hook| match hook.child.try_wait() {
            Ok(Some(status)) if status.success() => false,
            Ok(Some(status)) => {
                warn!(program = %hook.program, %status, "hook failed");
                false
            }
            Ok(None) if now >= hook.kill_at => {
                warn!(program = %hook.program, "hook killed: it ran for too long");
                kill(&mut hook.child);
                false
            }
            Ok(None) => true,
            Err(error) => {
                warn!(program = %hook.program, %error, "cannot wait for the hook");
                false
            }
        });
    }
}

/// Starts a program in a process group of its own.
pub(super) fn start(argv: &[String]) -> io::Result<Child> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn()
}

/// Kills it and what it started, and reaps it.
pub(super) fn kill(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Its group has the id of a process that is not reaped yet: nobody else's.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.wait();
}
