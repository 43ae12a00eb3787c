//! What a panic does: it is logged, and the daemon stops in order, VIPs first; see
//! [`crate::node::Node::run`]. What only observes (a page of metrics, a connection of an operator) is
//! [`Contained`]: its panic is logged and counted, and ends nothing else.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tracing::error;

static PANICKED: AtomicBool = AtomicBool::new(false);
static NOTICE: Notify = Notify::const_new();
static COUNT: AtomicU64 = AtomicU64::new(0);
/// By thread, not logged yet.
static TRACES: Mutex<Vec<(String, Backtrace)>> = Mutex::new(Vec::new());

thread_local! {
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Has every panic logged and noticed, in any thread.
pub fn install_hook() {
    panic::set_hook(Box::new(on_panic));
}

/// Returns when there was a panic that is not contained.
pub async fn noticed() {
    while !PANICKED.load(Relaxed) {
        NOTICE.notified().await;
    }
}

/// Logs the traces of panics, where `RUST_BACKTRACE` asks for them. To find the names in one takes some
/// hundred milliseconds, in which the VIPs must not wait: so this comes after they were released.
pub fn log_traces() {
    for (thread, trace) in std::mem::take(&mut *lock_traces()) {
        error!(thread, "where it panicked:\n{trace}");
    }
}

fn lock_traces() -> MutexGuard<'static, Vec<(String, Backtrace)>> {
    TRACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Panics so far that were contained.
pub fn contained_so_far() -> u64 {
    COUNT.load(Relaxed)
}

/// A task whose panic ends only itself.
#[derive(Debug)]
pub struct Contained<F>(Pin<Box<F>>);

impl<F: Future<Output = ()>> Contained<F> {
    /// Wraps a task.
    pub fn new(task: F) -> Self {
        Self(Box::pin(task))
    }
}

impl<F: Future<Output = ()>> Future for Contained<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        contain(|| self.0.as_mut().poll(context)).unwrap_or(Poll::Ready(()))
    }
}

/// Does something whose panic ends only itself; `None` if it panicked.
pub fn contain<T>(task: impl FnOnce() -> T) -> Option<T> {
    let outer = IS_CONTAINED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(task));
    IS_CONTAINED.set(outer);
    result.ok()
}

fn on_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    error!(thread, "{info}");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        lock_traces().push((thread.to_owned(), trace));
    }
    if IS_CONTAINED.get() {
        COUNT.fetch_add(1, Relaxed);
        log_traces();
    } else {
        PANICKED.store(true, Relaxed);
        // To one that waits, or to the next one that does.
        NOTICE.notify_one();
    }
}

/// Where tests of debug builds can have a panic happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Site {
    /// A worker thread, once per heartbeat.
    Worker = 1,
    /// The VRRP thread.
    Vrrp,
    /// The control loop.
    Control,
    /// A task of the control thread.
    Task,
    /// A thread that renders a page.
    Page,
    /// A connection of the control socket.
    Connection,
}

/// Panics if a test [ordered](order) it; a release build has none of this.
#[inline]
pub fn site(_site: Site) {
    #[cfg(debug_assertions)]
    ordered::obey(_site);
}

#[cfg(debug_assertions)]
pub use ordered::order;

#[cfg(debug_assertions)]
mod ordered {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    use super::Site;

    static ORDERED: AtomicU8 = AtomicU8::new(0);

    /// Has the next thread that comes by the site of this name panic; false if there is none.
    pub fn order(name: &str) -> bool {
        let site = match name {
            "worker" => Site::Worker,
            "vrrp" => Site::Vrrp,
            "control" => Site::Control,
            "task" => Site::Task,
            "page" => Site::Page,
            "connection" => Site::Connection,
            _ => return false,
        };
        ORDERED.store(site as u8, Relaxed);
        true
    }

    pub(super) fn obey(site: Site) {
        if ORDERED.compare_exchange(site as u8, 0, Relaxed, Relaxed).is_ok() {
            panic!("ordered by a test");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_contained_ends_alone() {
        assert_eq!(contain(|| 7), Some(7));
        assert_eq!(contain(|| -> u8 { panic!("expected by a test") }), None);
        assert!(!IS_CONTAINED.get());
        assert_eq!(contain(|| contain(|| panic!("expected by a test")).is_none()), Some(true));
    }

    #[tokio::test]
    async fn a_contained_task_ends_as_if_it_were_done() {
        Contained::new(async { panic!("expected by a test") }).await;
        Contained::new(async {}).await;
    }
}
