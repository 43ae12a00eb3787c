//! Scheduling priorities of threads. What a thread starts inherits its priority: workers, programs
//! and the runtime's threads beside the control thread, which render metrics, go back to the
//! ordinary one.

use rustix::process::{getpriority_process, setpriority_process};
use tracing::debug;

/// Of the control thread: a verdict on a backend is not to wait for a time slice.
const RAISED: i32 = -10;
const ORDINARY: i32 = 0;

/// Raises the calling thread, where permitted (CAP_SYS_NICE).
pub fn raise() {
    set(RAISED);
}

/// Puts the calling thread back to the ordinary priority, if it inherited a raised one.
pub fn lower() {
    if is_raised() {
        set(ORDINARY);
    }
}

/// Does something, such as starting a program, at the ordinary priority.
pub fn ordinarily<T>(task: impl FnOnce() -> T) -> T {
    if !is_raised() {
        return task();
    }
    set(ORDINARY);
    let result = task();
    set(RAISED);
    result
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
    use super::*;

    /// Needs root, as the system tests do; a thread of its own, for the change would stay.
    #[test]
    fn what_is_started_does_not_inherit_the_priority() {
        let own = || getpriority_process(None).unwrap();
        let seen = std::thread::spawn(move || {
            raise();
            let raised = own();
            let inherited = std::thread::spawn(own).join().unwrap();
            let ordinary = ordinarily(own);
            let after = own();
            lower();
            [raised, inherited, ordinary, after, own()]
        });
        assert_eq!(seen.join().unwrap(), [RAISED, RAISED, ORDINARY, RAISED, ORDINARY]);
    }
}
