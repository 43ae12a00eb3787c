//! The `http` and `https` checks: one HTTP/1.1 request. No redirect is followed, nothing is
//! decompressed, and whatever the server sends, no more than [`HEAD_MOST`] and [`BODY_MOST`] of it
//! is held. Of what is malformed, that passes which `curl` takes as well.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use control::health::{BodyPattern, Failure, HttpCheck};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::header::{HeaderMap, USER_AGENT};
use hyper::{Method, Request, Response, Version, http};
use hyper_util::rt::TokioIo;
use openssl::ssl::SslContext;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::bounded::Bounded;
use super::outcome::{Outcome, Rest, State};
use super::socket::{Target, connect, failure_or};
use super::text::printable;
use super::tls::{self, ServerName};

/// Status line and headers are no longer.
const HEAD_MOST: usize = 32 * 1024;
/// Header lines are no more. Room for all of them is made for each answer, of which a server may send many (1xx).
const HEADERS_MOST: usize = 256;
/// No more of a body is read.
const BODY_MOST: usize = 64 * 1024;
/// No more is read at all: a server may send any number of 1xx answers, and chunks of one byte.
const ALL_MOST: usize = 512 * 1024;
/// A body that pauses for so long is looked at as far as it came.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the rest of a body is read whose content does not matter: an end saves the server a reset.
const DRAIN: Duration = Duration::from_millis(250);

/// A check with all that can be made ahead.
#[derive(Debug)]
pub(super) struct Http {
    request: Request<Empty<Bytes>>,
    check: HttpCheck,
    tls: Option<(SslContext, ServerName)>,
}

impl Http {
    /// Makes the request.
    ///
    /// # Errors
    /// An invalid method, path or header.
    pub(super) fn new(
        check: &HttpCheck,
        asked: SocketAddr,
        tls: Option<(SslContext, ServerName)>,
    ) -> Result<Self, http::Error> {
        let host = check.host.clone().unwrap_or_else(|| host_of(asked, tls.is_some()));
        let mut request = Request::builder()
            .method(check.method.as_str())
            .uri(check.path.as_str())
            .header(HOST, host)
            .header(USER_AGENT, concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())?;
        for (name, value) in &check.headers {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            request.headers_mut().insert(name, HeaderValue::from_str(value)?);
        }
        Ok(Self { request, check: check.clone(), tls })
    }

    /// Asks once; with `keep` on a connection that can go on.
    pub(super) async fn probe(&self, target: &Target, keep: bool) -> Outcome {
        let mut stream = match connect(target).await {
            Ok(stream) => stream,
            Err(failure) => return Outcome::failed(failure),
        };
        // The bound is below TLS: it is also one of the work that a server's records make.
        let bounded = Bounded::new(&mut stream, ALL_MOST);
        let (result, state) = match &self.tls {
            None => self.ask(bounded, keep).await,
            Some((context, name)) => match tls::handshake(context, name, bounded).await {
                Ok(session) => self.ask(session, keep).await,
                Err(failure) => return Outcome::failed(failure),
            },
        };
        let rest = Rest { stream, tls: self.tls.is_some(), state };
        Outcome { result, rest: Some(rest) }
    }

    /// The result, and how the connection can go on.
    async fn ask<S>(&self, stream: S, keep: bool) -> (Result<(), Failure>, State)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let io = TokioIo::new(stream);
        let mut builder = Builder::new();
        builder
            .max_buf_size(HEAD_MOST)
            .max_headers(HEADERS_MOST)
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            // An answer without a status could be any protocol's: only its content can prove it.
            .http09_responses(self.check.body.is_some());
        let (mut sender, mut connection) = match builder.handshake(io).await {
            Ok(pair) => pair,
            Err(error) => return (Err(http_failure(&error)), State::Done),
        };
        let mut broken = None;
        let (mut result, state) = {
            let mut answer = pin!(self.answer(&mut sender, keep));
            let mut open = true;
            poll_fn(|context| {
                if open && let Poll::Ready(end) = connection.poll_without_shutdown(context) {
                    open = false;
                    broken = end.err();
                }
                answer.as_mut().poll(context)
            })
            .await
        };
        // Of a request that was never sent it is only said so; the connection knows why.
        if result == Err(Failure::Closed)
            && let Some(error) = broken
        {
            result = Err(http_failure(&error));
        }
        let clean = connection.into_parts().read_buf.is_empty();
        let state = match state {
            State::Idle(_) if !clean => State::Done,
            State::Idle(_) | State::ServerCloses | State::Done => state,
        };
        (result, state)
    }

    async fn answer(
        &self,
        sender: &mut SendRequest<Empty<Bytes>>,
        keep: bool,
    ) -> (Result<(), Failure>, State) {
        let mut request = self.request.clone();
        if !keep {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return (Err(http_failure(&error)), State::Done),
        };
        let code = response.status().as_u16();
        let state = if self.stays_open(&response) { State::Idle(0) } else { State::ServerCloses };
        if !self.check.status.contains(code) {
            return (Err(Failure::Status(code)), State::ServerCloses);
        }
        match self.read(response.into_body()).await {
            Ok(Whole::Yes) => (Ok(()), state),
            Ok(Whole::No) => (Ok(()), State::Done),
            Err(failure) => (Err(failure), State::Done),
        }
    }

    /// Whether the server keeps the connection, and says where the body ends.
    fn stays_open(&self, response: &Response<Incoming>) -> bool {
        let headers = response.headers();
        let bodiless = self.request.method() == Method::HEAD || response.status() == 204;
        let delimited = bodiless
            || headers.contains_key(CONTENT_LENGTH)
            || headers.contains_key(TRANSFER_ENCODING);
        response.version() == Version::HTTP_11 && delimited && !says_close(headers)
    }

    /// Reads a body, and judges it if it has to contain something.
    async fn read(&self, body: Incoming) -> Result<Whole, Failure> {
        match &self.check.body {
            Some(pattern) => search(body, pattern).await,
            None => Ok(drain(body).await),
        }
    }
}

/// Reads until the body has matched, ends or is longer than what is read.
async fn search(mut body: Incoming, pattern: &BodyPattern) -> Result<Whole, Failure> {
    let early = !needs_the_end(pattern);
    let (mut held, mut judged) = (Vec::new(), 0);
    while held.len() < BODY_MOST {
        match timeout(PAUSE, body.frame()).await {
            Ok(None) => {
                return if pattern.0.is_match(&held) {
                    Ok(Whole::Yes)
                } else {
                    Err(Failure::Mismatch)
                };
            }
            Ok(Some(Err(error))) if !pattern.0.is_match(&held) => return Err(http_failure(&error)),
            Ok(Some(Err(_))) => return Ok(Whole::No),
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                held.extend_from_slice(&data[..data.len().min(BODY_MOST - held.len())]);
                // Not at each of many small pieces.
                if held.len() - judged <= judged / 8 {
                    continue;
                }
            }
            Err(_) if held.len() == judged => continue,
            Err(_) => {}
        }
        judged = held.len();
        if early && pattern.0.is_match(&held) {
            return Ok(drain(body).await);
        }
    }
    if pattern.0.is_match(&held) { Ok(Whole::No) } else { Err(Failure::Mismatch) }
}

/// Reads a body whose content does not matter any more, for a while.
async fn drain(mut body: Incoming) -> Whole {
    let end = async {
        let mut seen = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Whole::No };
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > BODY_MOST {
                return Whole::No;
            }
        }
        Whole::Yes
    };
    timeout(DRAIN, end).await.unwrap_or(Whole::No)
}

/// Whether a match depends on what follows it.
fn needs_the_end(pattern: &BodyPattern) -> bool {
    ["$", "\\z", "\\b", "\\B"].iter().any(|anchor| pattern.0.as_str().contains(anchor))
}

/// Whether a body was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// The `Host` header: the port only where it is not the scheme's.
fn host_of(asked: SocketAddr, tls: bool) -> String {
    let usual = if tls { 443 } else { 80 };
    match asked.ip() {
        _ if asked.port() != usual => asked.to_string(),
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

/// What an error of the HTTP library says of the backend.
fn http_failure(error: &hyper::Error) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return failure_or(io, Failure::Protocol);
        }
        source = cause.source();
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Failure::Closed;
    }
    Failure::Protocol(printable(error))
}
