//! `/metrics`, `/status.json`, `/healthz`, `/readyz` over HTTP/1.1.
//!
//! Bounded: at most [`CONNECTIONS`] at once (one more, and the oldest is cut), each with the time-outs
//! of [`PATIENCE`]; GET and HEAD only, no request body is read.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::Source;
use super::crowd::Crowd;
use super::patience::{Patience, Timed};
use crate::metrics;
use crate::panics::{Site, contain, site};
use api::status::Status;

const CONNECTIONS: usize = 64;
const PATIENCE: Patience = Patience {
    request: Duration::from_secs(5),
    answer: Duration::from_secs(60),
    // A Prometheus server keeps its connection from scrape to scrape, which are five minutes apart at
    // most: older samples count as gone.
    idle: Duration::from_secs(330),
};
const HEADER_BYTES: usize = 8 * 1024;

/// Serves for ever.
pub async fn serve(listener: TcpListener, source: Source) {
    let mut crowd = Crowd::new("HTTP", CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => crowd.serve(connection(stream, source.clone())),
            Err(error) => {
                // EMFILE and its like do not go away by asking again at once.
                warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, source: Source) {
    let service = service_fn(move |request: Request<Incoming>| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(respond(&request, &source).await) }
    });
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(Timed::new(stream, PATIENCE)), service)
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
        // A thousand backends make megabytes: the control loop is not to wait for that.
        Some(status) => {
            let made = spawn_blocking(move || contain(|| page(path, &status))).await;
            made.ok().flatten().unwrap_or_else(|| {
                text(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made\n")
            })
        }
        None => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

fn page(path: &str, status: &Status) -> Response<Full<Bytes>> {
    site(Site::Page);
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
