//! Programs that are run because something happened: no shell, no input, killed when they hang.

use std::process::Child;

use control::Notify;
use dataplane::Tick;
use tracing::warn;

use crate::{clock, process};

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
        match process::start(&argv) {
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
                process::kill(&mut hook.child);
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
