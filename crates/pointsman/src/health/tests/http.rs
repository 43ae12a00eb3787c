//! The `http` check.

use std::io::Write;
use std::time::Duration;

use control::health::{BodyPattern, CheckKind, Failure, HttpCheck, StatusSet};
use regex::bytes::Regex;

use super::servers::{self, End};
use super::{AMPLE, check, get, probe, result};
use crate::health::outcome::State;

fn expecting(pattern: &str) -> HttpCheck {
    HttpCheck { body: Some(BodyPattern(Regex::new(pattern).expect("a pattern"))), ..get("/") }
}

fn accepting(first: u16, last: u16) -> HttpCheck {
    HttpCheck { status: StatusSet(vec![(first, last)]), ..get("/") }
}

#[tokio::test]
async fn answers_and_verdicts() {
    let head = HttpCheck { method: "HEAD".to_owned(), ..get("/") };
    let table: Vec<(&str, HttpCheck, &str, Result<(), Failure>)> = vec![
        ("200", get("/"), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
        ("204", get("/"), "HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
        ("to the end", get("/"), "HTTP/1.1 200 OK\r\n\r\nuntil it closes", Ok(())),
        ("1.0", get("/"), "HTTP/1.0 200 OK\r\n\r\nold", Ok(())),
        ("head", head, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Ok(())),
        (
            "chunks",
            expecting("^wiki$"),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwi\r\n2\r\nki\r\n0\r\n\r\n",
            Ok(()),
        ),
        (
            "continue first",
            get("/"),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Ok(()),
        ),
        (
            "503",
            get("/"),
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            Err(Failure::Status(503)),
        ),
        (
            "503 is right",
            accepting(500, 599),
            "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            Ok(()),
        ),
        (
            "a redirect is not followed",
            get("/"),
            "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            Err(Failure::Status(302)),
        ),
        ("body", expecting("al+ well"), "HTTP/1.1 200 OK\r\n\r\nit is all well", Ok(())),
        (
            "wrong body",
            expecting("all well"),
            "HTTP/1.1 200 OK\r\n\r\nall bad",
            Err(Failure::Mismatch),
        ),
        (
            "half a body, which is not asked for",
            get("/"),
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            Ok(()),
        ),
        (
            "half a body",
            expecting("whole"),
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            Err(Failure::Closed),
        ),
        ("half a head", get("/"), "HTTP/1.1 200 OK\r\nContent-Le", Err(Failure::Closed)),
        ("nothing", get("/"), "", Err(Failure::Closed)),
    ];
    for (name, http, answer, expected) in table {
        let address = servers::http(answer);
        assert_eq!(result(CheckKind::Http(http), address, AMPLE).await, expected, "{name}");
    }
    let refused = result(CheckKind::Http(get("/")), super::nobody(), AMPLE).await;
    assert_eq!(refused, Err(Failure::Refused));
}

#[tokio::test]
async fn a_request_says_what_is_configured() {
    let (address, seen) = servers::watched("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let plain = check(CheckKind::Http(get("/health?full=1")), AMPLE);
    let outcome = probe(&plain, address, false).await.0;
    outcome.rest.expect("a connection").close().await;
    let (request, end) = seen.recv().expect("a request");
    let lines: Vec<&str> = request.trim_end().split("\r\n").collect();
    assert_eq!(lines[0], "GET /health?full=1 HTTP/1.1");
    let host = format!("host: {address}");
    let agent = concat!("user-agent: pointsman/", env!("CARGO_PKG_VERSION"));
    for line in [host.as_str(), agent, "connection: close"] {
        assert!(lines.contains(&line), "{line} is not in {lines:?}");
    }
    assert_eq!(end, End::Closed, "the server sees an orderly end");

    let own = HttpCheck {
        method: "OPTIONS".to_owned(),
        host: Some("www.example".to_owned()),
        headers: vec![("X-Probe".to_owned(), "yes".to_owned())],
        ..get("/")
    };
    let outcome = probe(&check(CheckKind::Http(own), AMPLE), address, true).await.0;
    assert_eq!(outcome.rest.as_ref().map(|rest| rest.state), Some(State::Idle(0)));
    drop(outcome);
    let (request, _) = seen.recv().expect("a request");
    assert!(request.starts_with("OPTIONS / HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: www.example\r\n"), "{request}");
    assert!(request.contains("\r\nx-probe: yes\r\n"), "{request}");
    assert!(!request.contains("connection: close"), "{request}");
}

#[tokio::test]
async fn a_connection_is_kept_only_if_the_server_keeps_it() {
    let table = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", State::Idle(0)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", State::Idle(0)),
        (
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n",
            State::ServerCloses,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", State::ServerCloses),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", State::ServerCloses),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 408 Late\r\n\r\n", State::Done),
    ];
    for (answer, expected) in table {
        let address = servers::http(answer);
        let (outcome, _) = probe(&check(CheckKind::Http(get("/")), AMPLE), address, true).await;
        assert_eq!(outcome.result, Ok(()), "{answer}");
        assert_eq!(outcome.rest.map(|rest| rest.state), Some(expected), "{answer}");
    }
}

/// What comes after the first 64 KiB is neither waited for nor judged.
#[tokio::test]
async fn an_endless_body_is_judged_by_its_beginning() {
    let address = servers::tcp(|mut stream| {
        servers::head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegin");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let begins = check(CheckKind::Http(expecting("^begin")), AMPLE);
    let (outcome, took) = probe(&begins, address, false).await;
    assert_eq!(outcome.result, Ok(()));
    assert!(took < Duration::from_secs(1), "took {took:?}");
    let ends = expecting("end$");
    assert_eq!(result(CheckKind::Http(ends), address, AMPLE).await, Err(Failure::Mismatch));
}

/// What a browser or `curl` takes from servers that are old, chatty or careless.
#[tokio::test]
async fn what_curl_takes_passes() {
    let many: String = (0..150).map(|number| format!("X-{number}: value\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "a".repeat(20_000));
    let table = [
        ("150 header lines", many),
        ("a header of 20 KB", large),
        ("a folded line", "X-Folded: one\r\n  two\r\n".to_owned()),
        ("a space before the colon", "X-Space : one\r\n".to_owned()),
        ("no blank after the colon", "X-Bare:one\r\n".to_owned()),
    ];
    for (name, headers) in table {
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nok");
        let address = servers::http(answer);
        assert!(curl(address), "{name}: curl does not take it");
        assert_eq!(
            result(CheckKind::Http(expecting("^ok$")), address, AMPLE).await,
            Ok(()),
            "{name}"
        );
    }
}

/// An answer without a status line (HTTP/0.9) passes by its content alone: it could be any
/// protocol's greeting.
#[tokio::test]
async fn an_answer_without_a_status_passes_by_its_content_only() {
    let address = servers::http("<html>ready</html>");
    assert_eq!(result(CheckKind::Http(expecting("ready")), address, AMPLE).await, Ok(()));
    let banner = servers::http("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
    assert_eq!(
        result(CheckKind::Http(expecting("ready")), banner, AMPLE).await,
        Err(Failure::Mismatch)
    );
    let failure = result(CheckKind::Http(get("/")), banner, AMPLE).await;
    assert!(matches!(failure, Err(Failure::Protocol(_))), "{failure:?}");
}

/// An event stream never ends: what it has to contain, or its status, decides.
#[tokio::test]
async fn a_stream_passes_as_soon_as_it_has_matched() {
    let address = servers::tcp(|mut stream| {
        servers::head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\ndata: ready\n\n");
        std::thread::sleep(AMPLE);
    });
    for http in [expecting("ready"), get("/")] {
        let (outcome, took) = probe(&check(CheckKind::Http(http), AMPLE), address, true).await;
        assert_eq!(outcome.result, Ok(()));
        assert!(took < Duration::from_millis(800), "took {took:?}");
        assert_eq!(outcome.rest.map(|rest| rest.state), Some(State::Done));
    }
    // Whether this one matches is known at the end only.
    let patient = Duration::from_millis(500);
    let end = result(CheckKind::Http(expecting("ready$")), address, patient).await;
    assert_eq!(end, Err(Failure::Timeout));
}

/// Whether curl gets the body.
fn curl(address: std::net::SocketAddr) -> bool {
    let url = format!("http://{address}/");
    let output = std::process::Command::new("curl").args(["-s", "--max-time", "5", &url]).output();
    output.is_ok_and(|output| output.status.success() && output.stdout == b"ok")
}
