//! Programs that are run for their exit status: no shell, no input, no output, each in a process
//! group of its own so that what it started can be ended with it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::priority;

/// The program and its arguments.
///
/// # Errors
/// `InvalidInput` when there is no program.
pub(crate) fn command(argv: &[String]) -> io::Result<Command> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0);
    Ok(command)
}

/// Starts a program.
///
/// # Errors
/// What execve(2) and its neighbours return.
pub(crate) fn start(argv: &[String]) -> io::Result<Child> {
    let mut command = command(argv)?;
    starting(|| command.spawn())
}

/// Runs `start`, which starts a program: the program inherits neither a raised priority nor
/// descriptors, such as AF_XDP sockets, which would hold their queues for as long as it runs.
pub(crate) fn starting<T>(start: impl FnOnce() -> T) -> T {
    xsk::inheriting_nothing(|| priority::ordinarily(start))
}

/// Kills a program that is not reaped yet, and what it started: so its group has an id that is
/// nobody else's. Does not wait for its end: what waits for a dead disk or server does not die before
/// that answers.
pub(crate) fn kill_group(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
