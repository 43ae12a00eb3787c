//! How long an HTTP connection may take: a request must be there soon once it has begun, an answer
//! must be taken, and between requests a client may be silent for longer than any scrape interval.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The limits of each phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the first byte of a request to its answer, and from the connection to the first request.
    pub(super) request: Duration,
    /// For an answer to be taken.
    pub(super) answer: Duration,
    /// Between an answer and the next request.
    pub(super) idle: Duration,
}

/// A stream whose reads fail with `TimedOut` when the phase that it is in lasts for too long.
#[derive(Debug)]
pub(super) struct Timed<S> {
    stream: S,
    patience: Patience,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Request,
    Answer,
    Idle,
}

impl<S> Timed<S> {
    /// A new connection.
    pub(super) fn new(stream: S, patience: Patience) -> Self {
        let deadline = Box::pin(sleep(patience.request));
        Self { stream, patience, phase: Phase::Request, deadline }
    }

    fn enter(&mut self, phase: Phase) {
        let limit = match phase {
            Phase::Request => self.patience.request,
            Phase::Answer => self.patience.answer,
            Phase::Idle => self.patience.idle,
        };
        self.phase = phase;
        self.deadline.as_mut().reset(Instant::now() + limit);
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            if buffer.filled().len() > before && self.phase == Phase::Idle {
                self.enter(Phase::Request);
            }
            return Poll::Ready(result);
        }
        self.check(context)?;
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.phase != Phase::Answer {
            self.enter(Phase::Answer);
        }
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_write(context, bytes) {
            return Poll::Ready(result);
        }
        self.check(context)?;
        Poll::Pending
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.phase == Phase::Answer {
            self.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Patience = Patience {
        request: Duration::from_millis(100),
        answer: Duration::from_millis(300),
        idle: Duration::from_millis(900),
    };

    /// It timed out, and not before `limit`.
    fn assert_cut<T>(result: &io::Result<T>, begin: Instant, limit: Duration) {
        let kind = result.as_ref().err().map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::TimedOut));
        let took = begin.elapsed();
        assert!((limit..limit + Duration::from_secs(5)).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn a_client_may_be_silent_between_requests_and_not_within_one() {
        let (mut client, server) = duplex(64);
        let mut server = Timed::new(server, PATIENCE);
        let mut byte = [0];
        for _ in 0..3 {
            client.write_all(b"?").await.unwrap();
            server.read_exact(&mut byte).await.unwrap();
            server.write_all(b"!").await.unwrap();
            server.flush().await.unwrap();
            // Longer than a request or an answer may take.
            assert!(tokio::time::timeout(PATIENCE.answer, server.read(&mut byte)).await.is_err());
        }
        client.write_all(b"?").await.unwrap();
        server.read_exact(&mut byte).await.unwrap();
        let begin = Instant::now();
        assert_cut(&server.read(&mut byte).await, begin, PATIENCE.request);
    }

    #[tokio::test]
    async fn silence_from_the_start_and_an_answer_that_is_not_taken_are_cut() {
        let (_client, server) = duplex(64);
        let begin = Instant::now();
        assert_cut(&Timed::new(server, PATIENCE).read(&mut [0]).await, begin, PATIENCE.request);
        let (_client, server) = duplex(64);
        let begin = Instant::now();
        let written = Timed::new(server, PATIENCE).write_all(&[0; 100]).await;
        assert_cut(&written, begin, PATIENCE.answer);
    }

    #[tokio::test]
    async fn an_idle_client_is_cut_in_the_end() {
        let (_client, server) = duplex(64);
        let mut server = Timed::new(server, PATIENCE);
        server.write_all(b"!").await.unwrap();
        server.flush().await.unwrap();
        let begin = Instant::now();
        assert_cut(&server.read(&mut [0]).await, begin, PATIENCE.idle);
    }
}
