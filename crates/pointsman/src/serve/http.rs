//! `/metrics`, `/status.json`, `/healthz`, `/readyz` over HTTP/1.1.
//!
//! Bounded: at most `CONNECTIONS` at once, `HEADER_TIME` for a request's header,
//! `CONNECTION_TIME` for a whole connection; GET and HEAD only, no request body is read. One
//! connection more than that, and the oldest is cut: a scrape takes milliseconds, so what is old
//! is slow or silent, and such a crowd cannot keep a scrape out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Source;
use crate::metrics;
use crate::status::Status;

const CONNECTIONS: usize = 64;
const HEADER_TIME: Duration = Duration::from_secs(5);
const CONNECTION_TIME: Duration = Duration::from_secs(60);
const HEADER_BYTES: usize = 8 * 1024;

/// Serves for ever.
pub async fn serve(listener: TcpListener, source: Source) {
    let mut open = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                make_room(&mut open);
                let source = source.clone();
                let task = tokio::task::spawn(async move {
                    if timeout(CONNECTION_TIME, connection(stream, source)).await.is_err() {
                        debug!(%peer, "HTTP connection cut: open for too long");
                    }
                });
                open.push_back(task.abort_handle());
            }
            Err(error) => {
                // EMFILE and its like do not go away by asking again at once.
                warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Forgets connections that have ended; if there still is no room for one more, cuts the oldest.
fn make_room(open: &mut VecDeque<AbortHandle>) {
    open.retain(|task| !task.is_finished());
    if open.len() >= CONNECTIONS
        && let Some(oldest) = open.pop_front()
    {
        debug!("HTTP connection cut: too many, and it is the oldest");
        oldest.abort();
    }
}

async fn connection(stream: TcpStream, source: Source) {
    let service = service_fn(move |request: Request<Incoming>| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(respond(&request, &source).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "HTTP connection ended");
    }
}

async fn respond(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    let path = request.uri().path();
    let path = match path {
        "/healthz" => return text(StatusCode::OK, "ok\n"),
        "/metrics" => "/metrics",
        "/status.json" => "/status.json",
        "/readyz" => "/readyz",
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "try /metrics, /status.json, /healthz or /readyz\n",
            );
        }
    };
    match source.status().await {
        // A thousand backends make megabytes: nobody else is to wait for that.
        Some(status) => spawn_blocking(move || page(path, &status)).await.unwrap_or_else(|_| {
            text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made\n")
        }),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

fn page(path: &str, status: &Status) -> Response<Full<Bytes>> {
    let rendered = match path {
        "/metrics" => metrics::render(status)
            .map(|page| typed(StatusCode::OK, "text/plain; version=0.0.4", page))
            .map_err(|error| error.to_string()),
        "/status.json" => serde_json::to_string_pretty(status)
            .map(|page| typed(StatusCode::OK, "application/json", page))
            .map_err(|error| error.to_string()),
        _ if status.ready => Ok(text(StatusCode::OK, "ready\n")),
        _ => {
            Ok(text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", status.not_ready.join("\n"))))
        }
    };
    rendered.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")))
}

fn text(code: StatusCode, body: &str) -> Response<Full<Bytes>> {
    typed(code, "text/plain; charset=utf-8", body.to_owned())
}

fn typed(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_more_than_fits_cuts_the_oldest_that_is_still_open() {
        let mut tasks = Vec::new();
        let mut open = VecDeque::new();
        for _ in 0..CONNECTIONS {
            make_room(&mut open);
            let task = tokio::spawn(std::future::pending::<()>());
            open.push_back(task.abort_handle());
            tasks.push(task);
        }
        tasks[0].abort();
        assert!((&mut tasks[0]).await.is_err());
        make_room(&mut open);
        assert_eq!(open.len(), CONNECTIONS - 1, "the ended one made room enough");
        let one_more = tokio::spawn(std::future::pending::<()>());
        open.push_back(one_more.abort_handle());
        make_room(&mut open);
        assert!((&mut tasks[1]).await.is_err_and(|error| error.is_cancelled()));
        assert!(!tasks[2].is_finished() && !one_more.is_finished());
    }
}
