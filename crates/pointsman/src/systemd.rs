//! What is reported to systemd: that the loops run, what is waited for, and that all threads are alive.
//!
//! A message is never waited for, unlike in the crate `sd-notify`, which is used for the rest: when
//! systemd does not read, it is sent at the next turn.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use control::{Feed, Watchdog};
use dataplane::Tick;
use sd_notify::NotifyState;
use tracing::{debug, warn};

/// The notification socket, if this process was started by systemd (`Type=notify`).
#[derive(Debug)]
pub struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Watchdog>,
    ready: bool,
    shown: String,
    /// The silence of a thread was logged.
    alarmed: bool,
}

/// Longer texts are cut: it is one line of `systemctl status`.
const MOST_BYTES: usize = 400;

impl Systemd {
    /// What the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`; see sd_notify(3)).
    pub fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| match open(name.as_bytes()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!(?name, %error, "cannot notify systemd");
                None
            }
        });
        let watchdog = sd_notify::watchdog_enabled().map(Watchdog::new);
        Self { socket, watchdog, ready: false, shown: String::new(), alarmed: false }
    }

    /// Whether there is a service manager.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Tells what has changed: to be called again and again while the control loop runs.
    pub fn show(&mut self, status: &str) {
        let status = one_line(status);
        if self.ready && self.shown == status {
            return;
        }
        let mut states = vec![NotifyState::Status(&status)];
        if !self.ready {
            states.push(NotifyState::Ready);
        }
        if self.send(&states) {
            self.ready = true;
            self.shown = status;
        }
    }

    /// Feeds the watchdog, if there is one and every thread is alive.
    pub fn feed(&mut self, threads: impl IntoIterator<Item = (String, Tick)>, now: Tick) {
        let Some(watchdog) = &mut self.watchdog else { return };
        match watchdog.decide(threads, now) {
            Feed::NotDue => {}
            Feed::Now => {
                self.alarmed = false;
                self.send(&[NotifyState::Watchdog]);
            }
            Feed::Withhold(thread, silence) => self.alarm(&thread, silence),
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    fn alarm(&mut self, thread: &str, silence: Duration) {
        if !std::mem::replace(&mut self.alarmed, true) {
            warn!(
                "{thread} has given no sign of life for {:.1} s: the watchdog is not fed",
                silence.as_secs_f64()
            );
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        match socket.send_to_addr(text.as_bytes(), address) {
            Ok(_) => true,
            Err(error) => {
                debug!(%error, "cannot notify systemd");
                false
            }
        }
    }
}

/// `@` stands for the zero byte that begins an abstract address.
fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Without line ends, which would begin another message, and not too long.
fn one_line(text: &str) -> String {
    let mut line: String =
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    if line.len() > MOST_BYTES {
        let end = (0..=MOST_BYTES).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receiver at an abstract address, and what reports to it.
    fn bench(name: &str) -> (UnixDatagram, Systemd) {
        let name = format!("pointsman-test-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let receiver = UnixDatagram::bind_addr(&address).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let systemd = Systemd {
            socket: Some(open(format!("@{name}").as_bytes()).unwrap()),
            watchdog: Some(Watchdog::new(Duration::from_secs(3))),
            ready: false,
            shown: String::new(),
            alarmed: false,
        };
        (receiver, systemd)
    }

    fn received(receiver: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1024];
        std::iter::from_fn(|| receiver.recv(&mut buffer).ok())
            .collect::<Vec<_>>()
            .into_iter()
            .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
            .collect()
    }

    #[test]
    fn ready_comes_once_and_the_status_when_it_changes() {
        let (receiver, mut systemd) = bench("ready");
        let mut all = Vec::new();
        for status in ["waiting: eth1 has no link", "waiting: eth1 has no link", "serving\nREADY=0"]
        {
            systemd.show(status);
            all.extend(received(&receiver));
        }
        assert_eq!(
            all,
            ["STATUS=waiting: eth1 has no link\nREADY=1\n", "STATUS=serving READY=0\n"]
        );
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for_and_told_later() {
        let (receiver, mut systemd) = bench("stalled");
        // More than any socket holds.
        let told = (0..100_000).take_while(|_| systemd.send(&[NotifyState::Watchdog])).count();
        assert!(told < 100_000, "{told}");
        systemd.show("serving");
        assert!(!systemd.ready);
        while !received(&receiver).is_empty() {}
        systemd.show("serving");
        assert_eq!(received(&receiver), ["STATUS=serving\nREADY=1\n"]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let line = one_line(&"é".repeat(300));
        assert_eq!(line, format!("{}…", "é".repeat(200)));
    }
}
