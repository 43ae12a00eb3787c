//! Close-on-exec for all descriptors of the process.
//!
//! An AF_XDP socket that a program inherits holds its queue for as long as the program runs: it can
//! not be bound again. libxdp makes its sockets without `SOCK_CLOEXEC`, so they are marked
//! afterwards, and no program may be started in between.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::interface::last_errno;

/// Held while there may be a descriptor that is not marked, and while a program is started.
static UNMARKED: Mutex<()> = Mutex::new(());

/// Runs `start`, which starts a program: the program gets the descriptors 0, 1 and 2 and no other one
/// that is open now. Waits while another thread makes an AF_XDP socket, some milliseconds.
pub fn inheriting_nothing<T>(start: impl FnOnce() -> T) -> T {
    let _lock = lock();
    mark_all();
    start()
}

/// Runs `make`, which makes descriptors that are not marked, and marks them.
pub(super) fn marked<T>(make: impl FnOnce() -> T) -> T {
    let _lock = lock();
    let made = make();
    mark_all();
    made
}

fn lock() -> MutexGuard<'static, ()> {
    UNMARKED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mark_all() {
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or(0);
    // SAFETY: with this flag nothing is closed.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
    if result < 0 {
        // Linux 5.11.
        tracing::warn!(errno = %last_errno(), "programs may inherit descriptors");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use rustix::io::{FdFlags, fcntl_getfd};
    use rustix::net::{AddressFamily, SocketType, socket};

    use super::*;

    #[test]
    fn what_is_made_without_the_mark_is_not_inherited() {
        let make = || socket(AddressFamily::UNIX, SocketType::DGRAM, None).expect("a socket");
        let flags = |fd: &dyn AsFd| fcntl_getfd(fd.as_fd()).expect("it is open");
        let before = make();
        assert_eq!(flags(&before), FdFlags::empty());
        let made = marked(make);
        assert_eq!([flags(&before), flags(&made)], [FdFlags::CLOEXEC; 2]);
        let _later = make();
        let mut list = Command::new("ls");
        list.arg("/proc/self/fd");
        let output = inheriting_nothing(|| list.output()).expect("ls runs");
        // 3 is the directory that it lists.
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n3\n");
    }
}
