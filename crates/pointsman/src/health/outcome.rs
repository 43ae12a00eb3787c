//! What is left of a probe: its result, and perhaps its connection.

use std::time::Duration;

use control::health::Failure;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A probe's result and its connection.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: Result<(), Failure>,
    pub(super) rest: Option<Rest>,
}

/// A connection that is still open.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) stream: TcpStream,
    /// Whether it carries TLS, whose session is over.
    pub(super) tls: bool,
    /// How it can go on.
    pub(super) state: State,
}

/// How a connection can go on after a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Idle: the server keeps it, and will send at most this many bytes unasked.
    Idle(usize),
    /// The server is going to close it.
    ServerCloses,
    /// Of no use, this side closes it.
    Done,
}

impl Outcome {
    /// A result without a connection.
    pub(super) const fn bare(result: Result<(), Failure>) -> Self {
        Self { result, rest: None }
    }

    /// A failure without a connection.
    pub(super) const fn failed(failure: Failure) -> Self {
        Self::bare(Err(failure))
    }

    /// Whether it passed and its connection can be kept.
    pub(super) fn is_idle(&self) -> bool {
        let idle = |rest: &Rest| matches!(rest.state, State::Idle(_));
        self.result.is_ok() && self.rest.as_ref().is_some_and(idle)
    }

    /// Has the connection closed instead of kept.
    pub(super) fn forgo_keeping(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.state = State::Done;
        }
    }

    /// Takes the connection if it passed and can be kept.
    pub(super) fn take_idle(&mut self) -> Option<Rest> {
        if self.is_idle() { self.rest.take() } else { None }
    }
}

impl Rest {
    /// Closes the connection in order: what the server still sends is read, so that it sees no
    /// reset, and where it closes first, this host keeps no port in TIME_WAIT.
    pub(super) async fn close(self) {
        let mut stream = self.stream;
        if self.state != State::ServerCloses {
            // Fails if it is closed already.
            let _ = stream.shutdown().await;
        }
        let _ = timeout(PATIENCE, swallow(&mut stream, MOST_AT_CLOSE)).await;
    }
}

/// How long a server may take to close.
const PATIENCE: Duration = Duration::from_millis(100);
/// What it may send meanwhile.
const MOST_AT_CLOSE: usize = 64 * 1024;

/// Reads until the end, an error, or more than `most` bytes.
pub(super) async fn swallow(stream: &mut (impl AsyncRead + Unpin), most: usize) {
    let mut buffer = [0; 512];
    let mut seen = 0;
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        seen += count;
        if seen > most {
            break;
        }
    }
}
