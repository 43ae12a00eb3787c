//! The limit of locked memory, which UMEMs count against unless the process has CAP_IPC_LOCK.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit as far as permitted: without limit, else to the hard limit. A failure is
/// no error, since CAP_IPC_LOCK makes the limit moot; the kernel has the last word.
pub(super) fn raise(needed_bytes: u64) {
    let before = getrlimit(Resource::Memlock);
    if before.current.is_none() {
        return;
    }
    let unlimited = Rlimit { current: None, maximum: None };
    let highest = Rlimit { current: before.maximum, maximum: before.maximum };
    let raised =
        setrlimit(Resource::Memlock, unlimited).or_else(|_| setrlimit(Resource::Memlock, highest));
    let now = soft_limit();
    if now.is_some_and(|limit| limit < needed_bytes) {
        tracing::warn!(
            needed_bytes,
            limit_bytes = now,
            raised = raised.is_ok(),
            "the limit of locked memory is lower than what a UMEM needs; going on, since \
             CAP_IPC_LOCK lifts it"
        );
    }
}

/// The soft limit in bytes; none if there is no limit.
pub(super) fn soft_limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}
