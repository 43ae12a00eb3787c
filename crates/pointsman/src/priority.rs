//! Scheduling priorities of threads. What a raised thread starts does not inherit its priority: neither
//! programs nor workers nor the runtime's threads beside the control thread, which render metrics.

use rustix::process::{getpriority_process, setpriority_process};
use tracing::debug;

use crate::sys;

/// Of the control thread: a verdict on a backend is not to wait for a time slice.
const RAISED: i32 = -10;
const ORDINARY: i32 = 0;
/// Of what may take any time.
const LAST: i32 = 19;

/// Raises the calling thread, where permitted (CAP_SYS_NICE).
pub fn raise() {
    if let Err(error) = sys::reset_on_fork() {
        debug!(%error, "programs will inherit the priority of the control thread");
    }
    set(RAISED);
}

/// Puts the calling thread back to the ordinary priority, if it inherited a raised one.
pub fn lower() {
    if is_raised() {
        set(ORDINARY);
    }
}

/// Has the calling thread come after all others, for good.
pub fn yield_to_all() {
    set(LAST);
}

fn is_raised() -> bool {
    // Of the calling thread, whatever the name says (setpriority(2), BUGS).
    getpriority_process(None).is_ok_and(|priority| priority < ORDINARY)
}

fn set(priority: i32) {
    if let Err(error) = setpriority_process(None, priority) {
        debug!(priority, %error, "cannot change a thread's priority");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Needs root, as the system tests do; a thread of its own, for the change would stay.
    #[test]
    fn what_is_started_does_not_inherit_the_priority() {
        let own = || getpriority_process(None).unwrap();
        let seen = std::thread::spawn(move || {
            raise();
            let raised = own();
            let inherited = std::thread::spawn(own).join().unwrap();
            let program = Command::new("nice").output().unwrap().stdout;
            let program = String::from_utf8_lossy(&program).trim().parse().unwrap();
            let after = own();
            lower();
            [raised, inherited, program, after, own()]
        });
        assert_eq!(seen.join().unwrap(), [RAISED, ORDINARY, ORDINARY, RAISED, ORDINARY]);
    }
}
