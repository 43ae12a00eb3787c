//! Signals. SIGTERM, SIGINT and SIGQUIT stop the daemon in order, SIGHUP reloads the configuration. The
//! others that would end a process by default are ignored, each with a line in the log: a signal meant
//! for something else (the SIGUSR1 of a keepalived habit) must not take VIPs down. They are handled and not
//! set to be ignored, for that programs would inherit.

use std::future::poll_fn;
use std::task::Poll;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// SIGTERM, SIGINT and SIGQUIT.
#[derive(Debug)]
pub struct StopSignals([Signal; 3]);

/// A signal that stops nothing.
struct Ignored {
    name: String,
    signal: Signal,
    logged: bool,
}

/// SIGXFSZ comes when the file of a log reaches a limit; SIGPIPE is ignored by Rust itself.
const IGNORED: [(i32, &str); 10] = [
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
];

impl StopSignals {
    /// Installs the handlers of all signals. Must be called inside a runtime, which a task for those
    /// that are ignored is left in.
    ///
    /// # Errors
    /// What sigaction(2) returns.
    pub fn install() -> Result<Self> {
        let mut ignored = Vec::new();
        for (number, name) in named() {
            let signal = install(SignalKind::from_raw(number))?;
            ignored.push(Ignored { name, signal, logged: false });
        }
        tokio::spawn(ignore(ignored));
        let stop = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
        let [terminate, interrupt, quit] = stop.map(install);
        Ok(Self([terminate?, interrupt?, quit?]))
    }

    /// Returns at one of them.
    pub async fn requested(&mut self) {
        poll_fn(|context| {
            let arrived = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if arrived { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// SIGHUP. Must be called inside a runtime.
///
/// # Errors
/// What sigaction(2) returns.
pub fn hangups() -> Result<Signal> {
    install(SignalKind::hangup())
}

fn install(kind: SignalKind) -> Result<Signal> {
    signal(kind).context("cannot install a signal handler")
}

fn named() -> impl Iterator<Item = (i32, String)> {
    let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX())
        .map(|number| (number, format!("SIGRTMIN+{}", number - libc::SIGRTMIN())));
    IGNORED.iter().map(|(number, name)| (*number, (*name).to_owned())).chain(real_time)
}

async fn ignore(mut signals: Vec<Ignored>) {
    loop {
        let at = poll_fn(|context| {
            let mut signals = signals.iter_mut();
            match signals.position(|ignored| ignored.signal.poll_recv(context).is_ready()) {
                Some(at) => Poll::Ready(at),
                None => Poll::Pending,
            }
        })
        .await;
        let Some(ignored) = signals.get_mut(at) else { continue };
        if !std::mem::replace(&mut ignored.logged, true) {
            info!("{} is ignored", ignored.name);
        }
    }
}
