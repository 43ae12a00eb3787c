//! The `script` check: a program that says by its exit status whether a backend is well.

use std::os::unix::process::ExitStatusExt;

use control::health::Failure;
use tokio::process::Command;

use super::text::printable;
use crate::process::{self, Variable};

/// Runs the program; when this is dropped before it ended, it is killed with all it started.
pub(super) async fn probe(argv: &[String], environment: &[Variable]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Local(printable(error));
    let (command, mut run) = process::command(argv, environment).map_err(failed)?;
    let mut command = Command::from(command);
    let start = || {
        let child = command.spawn()?;
        let pid = child.id();
        Ok((child, pid))
    };
    let mut child = process::spawn(&mut run, start).map_err(failed)?;
    // Dropped before the child is: what is killed then is reaped by the runtime, and not before.
    let mut run = run;
    let status = child.wait().await.map_err(failed)?;
    run.reaped();
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Exit(code)),
        (None, signal) => Err(Failure::Signal(signal.unwrap_or(0))),
    }
}
