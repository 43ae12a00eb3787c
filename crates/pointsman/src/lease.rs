//! The lease thread: keeps the VIPs of services without a VRRP instance active while the process
//! runs.
//!
//! It writes straight into the array that the XDP program and the workers compare with their
//! clock. A process that is killed, stopped or starved for longer than [`LEASE`] claims no VIP.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use control::STANDALONE;
use tracing::{debug, warn};

use crate::clock;

/// The running thread; dropping it gives the leases up.
#[derive(Debug)]
pub struct LeaseLoop {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How long one renewal lasts. No other node waits to take over: generous against starvation.
pub const LEASE: Duration = Duration::from_secs(1);
const RENEW_EVERY: Duration = Duration::from_millis(100);

impl LeaseLoop {
    /// Starts the thread; the lease is held when this returns.
    ///
    /// # Errors
    /// What thread creation returns.
    pub fn start(leases: steer::Leases) -> io::Result<Self> {
        let (stop, stopped) = channel();
        renew(&leases);
        let thread = Builder::new().name("vrrp".into()).spawn(move || run(&leases, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for LeaseLoop {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the lease thread panicked");
        }
    }
}

fn run(leases: &steer::Leases, stopped: &Receiver<()>) {
    if let Err(error) = crate::sys::real_time() {
        debug!(%error, "no real-time priority for the lease thread");
    }
    while stopped.recv_timeout(RENEW_EVERY) == Err(RecvTimeoutError::Timeout) {
        renew(leases);
    }
    if let Some(until) = leases.get(STANDALONE.index()) {
        until.store(0, Relaxed);
    }
}

fn renew(leases: &steer::Leases) {
    if let Some(until) = leases.get(STANDALONE.index()) {
        until.store((clock::now() + LEASE).as_nanos(), Relaxed);
    }
}
