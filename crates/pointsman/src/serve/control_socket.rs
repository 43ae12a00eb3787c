//! The operator's socket: Unix, mode 0660. Its protocol is [`api::request`]; a verb is one arm of
//! `perform`.

use std::fs::{File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use api::listing::Flushed;
use api::request::{
    self, Answer, Call, Request, Resigned, SetWeight, VERSION, Verb, check_version,
};
use control::operator::{Drain, Override};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, Take};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::Source;
use super::crowd::Crowd;
use crate::clock;
use crate::listing::{Lines, Tables};

/// The bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Held for as long as this daemon runs; the kernel gives it up with the process.
    _lock: File,
}

/// The longest time until a drain's deadline.
const LONGEST_DRAIN: Duration = Duration::from_secs(365 * 24 * 3600);
const CONNECTIONS: usize = 64;
const REQUEST_BYTES: u64 = 64 * 1024;
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long the reader of a listing may leave a line: someone may read it in a pager.
const PAUSE: Duration = Duration::from_secs(300);

impl ControlSocket {
    /// Binds the socket; replaces the file of a daemon that is gone. Of several daemons that start at
    /// the same time one gets it, by a lock on a file beside it.
    ///
    /// # Errors
    /// Another daemon has it, something else than a socket is in the way, or what the kernel says.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let system =
            |action| move |error| BindError::System { action, path: path.to_owned(), error };
        is_socket(path)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(system("make the directory of"))?;
        }
        let lock = lock(path)?;
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(system("bind"))?;
        let this = Self { listener, path: path.to_owned(), _lock: lock };
        std::fs::set_permissions(path, Permissions::from_mode(0o660))
            .map_err(system("set the mode of"))?;
        Ok(this)
    }

    /// Serves for ever.
    pub async fn serve(self, source: Source) {
        let mut crowd = Crowd::new("control", CONNECTIONS);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => crowd.serve(connection(stream, source.clone())),
                Err(error) => {
                    warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!(%error, path = %self.path.display(), "control socket was gone already");
        }
    }
}

/// Whether there is a socket, or nothing.
fn is_socket(path: &Path) -> Result<bool, BindError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => Err(BindError::InTheWay(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BindError::System { action: "look at", path: path.to_owned(), error }),
    }
}

/// Takes the lock of the socket. Its file stays for good: if it were removed, two daemons could each
/// lock one of that name.
fn lock(path: &Path) -> Result<File, BindError> {
    let action = "lock";
    let system = move |error| BindError::System { action, path: path.to_owned(), error };
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(name).map_err(system)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BindError::Taken(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(system(error)),
    }
}

/// Removes what a dead daemon left, and nothing else. The lock must be held.
fn clear(path: &Path) -> Result<(), BindError> {
    if !is_socket(path)? {
        return Ok(());
    }
    // A daemon without the lock: an older version.
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(BindError::Taken(path.to_owned()));
    }
    let action = "remove the stale file of";
    std::fs::remove_file(path).map_err(|error| BindError::System {
        action,
        path: path.to_owned(),
        error,
    })
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error("another pointsman answers on the control socket {0}")]
    Taken(PathBuf),
    /// There is a file, and it is no socket.
    #[error("{0} exists and is not a socket")]
    InTheWay(PathBuf),
    /// What the kernel said.
    #[error("cannot {action} the control socket {path}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The answer.
        error: io::Error,
    },
}

impl BindError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Taken(_) => "stop it, or give this one its own `socket` in [control]",
            Self::InTheWay(_) => "choose another path, or remove the file if nobody needs it",
            Self::System { .. } => "name a path in a directory that this user may write to",
        }
    }
}

async fn connection(stream: UnixStream, source: Source) {
    let (read, write) = stream.into_split();
    let (mut read, mut write) = (BufReader::new(read.take(REQUEST_BYTES)), BufWriter::new(write));
    let until = Instant::now() + REQUEST_TIME;
    let outcome = match timeout_at(until, converse(&mut read, &mut write, &source)).await {
        Ok(Ok(Some(listing))) => send(listing, &mut write).await,
        Ok(result) => result.map(|_| ()),
        Err(_) => return debug!("control connection cut: no request in time"),
    };
    if let Err(error) = outcome {
        debug!(%error, "control connection ended");
    }
}

type Reader = BufReader<Take<OwnedReadHalf>>;
type Writer = BufWriter<OwnedWriteHalf>;

/// A listing that is to be sent, and the right to.
type Listing = (Lines, OwnedSemaphorePermit);

/// Answers one request; a listing is left to [`send`].
async fn converse(
    read: &mut Reader,
    write: &mut Writer,
    source: &Source,
) -> Result<Option<Listing>> {
    let mut line = Vec::new();
    read.read_until(b'\n', &mut line).await?;
    let answer = match parse(&line) {
        Ok(Verb::Flows(wanted)) => list(source, |tables| tables.flows(&wanted)).await,
        Ok(Verb::Persistence(wanted)) => list(source, |tables| tables.templates(&wanted)).await,
        Ok(verb) => perform(verb, source).await.map(Reply::Value),
        Err(error) => Err(error),
    };
    let answer = match answer {
        Ok(Reply::Lines(listing)) => return Ok(Some(listing)),
        Ok(Reply::Value(value)) => Answer { version: VERSION, ok: Some(value), error: None },
        Err(error) => Answer { version: VERSION, ok: None, error: Some(error) },
    };
    let mut answer = serde_json::to_vec(&answer)?;
    answer.push(b'\n');
    write.write_all(&answer).await?;
    write.flush().await?;
    Ok(None)
}

enum Reply {
    Value(Box<RawValue>),
    Lines(Listing),
}

async fn list(
    source: &Source,
    start: impl FnOnce(Tables) -> Result<Lines, String>,
) -> Result<Reply, String> {
    let permit = source.listing()?;
    let lines = start(source.tables().await?)?;
    Ok(Reply::Lines((lines, permit)))
}

async fn send((mut lines, _permit): Listing, write: &mut Writer) -> Result<()> {
    while let Some(line) = lines.recv().await {
        timeout(PAUSE, write.write_all(&line)).await.context("the reader stopped reading")??;
    }
    write.flush().await?;
    Ok(())
}

fn parse(line: &[u8]) -> Result<Verb, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let not_a_request = |error| format!("not a request: {error}");
    if !line.ends_with(b"\n") && line.len() as u64 >= REQUEST_BYTES {
        return Err(format!("the request is longer than {REQUEST_BYTES} bytes"));
    }
    let Versioned { version } = serde_json::from_slice(line).map_err(not_a_request)?;
    check_version(version)?;
    let request: Request = serde_json::from_slice(line).map_err(not_a_request)?;
    Ok(request.verb)
}

async fn perform(verb: Verb, source: &Source) -> Result<Box<RawValue>, String> {
    match verb {
        Verb::Status => {
            let status = source.status().await.ok_or("the daemon is stopping")?;
            // A thousand services make megabytes: the control loop is not to wait for that.
            spawn_blocking(move || json(&*status)).await.map_err(|error| error.to_string())?
        }
        Verb::VrrpResign(resign) => {
            let time = resign.time();
            let resigned = source.resign(resign.instance, time).await?;
            json(Resigned { resigned })
        }
        Verb::Reload(reload) => json(source.reload(reload).await?),
        Verb::Undo => json(source.undo().await?),
        Verb::Confirm => json(source.confirm().await?),
        Verb::Drain(request::Drain { target, deadline_ms, keep_sticky }) => {
            let deadline = deadline_ms
                .map(|millis| clock::now() + Duration::from_millis(millis).min(LONGEST_DRAIN));
            let drain = Drain { deadline, keep_sticky, ended: false };
            json(source.operate(target, Some(Override::Drained(drain))).await?)
        }
        Verb::Enable(enable) => json(source.operate(enable.target, None).await?),
        Verb::SetWeight(SetWeight { weight: 65_536.., .. }) => {
            Err("a weight is 0 to 65,535".to_owned())
        }
        Verb::SetWeight(SetWeight { target, weight }) => {
            json(source.operate(target, Some(Override::Weight(weight))).await?)
        }
        Verb::FlushPersistence(wanted) => {
            let tables = source.tables().await?;
            let flush = move || tables.flush(wanted);
            let templates = spawn_blocking(flush).await.map_err(|error| error.to_string())??;
            json(Flushed { templates })
        }
        Verb::Explain(question) => {
            let setting = source.setting().await?;
            let explain = move || setting.explain(&question);
            json(spawn_blocking(explain).await.map_err(|error| error.to_string())??)
        }
        Verb::Flows(_) | Verb::Persistence(_) => Err("answered on several lines".to_owned()),
        #[cfg(debug_assertions)]
        Verb::Panic(site) => panic_at(&site),
    }
}

fn json(answer: impl Serialize) -> Result<Box<RawValue>, String> {
    to_raw_value(&answer).map_err(|error| error.to_string())
}

/// For tests of debug builds: has a kind of thread panic.
#[cfg(debug_assertions)]
fn panic_at(name: &str) -> Result<Box<RawValue>, String> {
    use crate::panics::{Site, order, site};
    if !order(name) {
        return Err(format!("nothing of the name {name} can panic"));
    }
    tokio::spawn(async { site(Site::Task) });
    site(Site::Connection);
    json(true)
}

/// Asks a running daemon, blocking.
///
/// # Errors
/// `NotRunning` when no daemon answers; the daemon's own error otherwise.
pub fn ask<C: Call>(path: &Path, call: C) -> Result<C::Answer, AskError> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)
        .map_err(|error| AskError::NotRunning(path.to_owned(), error))?;
    let exchange = || -> Result<Answer<C::Answer>> {
        stream.set_read_timeout(Some(REQUEST_TIME))?;
        stream.set_write_timeout(Some(REQUEST_TIME))?;
        let request = Request { version: VERSION, verb: call.into() };
        stream.write_all(format!("{}\n", serde_json::to_string(&request)?).as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        serde_json::from_str(&line).context("the daemon's answer is not understood")
    };
    match exchange() {
        Ok(Answer { ok: Some(value), .. }) => Ok(value),
        Ok(Answer { error, .. }) => {
            Err(AskError::Refused(error.unwrap_or_else(|| "empty answer".into())))
        }
        Err(error) => Err(AskError::Refused(format!("{error:#}"))),
    }
}

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No daemon listens.
    #[error(
        "no pointsman answers on {0}: {1}; is `pointsman run` running, and is this its [control] socket?"
    )]
    NotRunning(PathBuf, io::Error),
    /// It answered, but not with what was asked.
    #[error("the daemon refused: {0}")]
    Refused(String),
}
