//! Servers that mean harm, or are broken.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use control::health::{BodyPattern, CheckKind, HttpCheck, TlsCheck};

use regex::bytes::Regex;

use super::servers;
use super::{check, get, probe};

const TIMEOUT: Duration = Duration::from_millis(300);
/// How late a verdict may be.
const GRACE: Duration = Duration::from_millis(50);

/// What the server does with a connection, and the failures that this may be.
type Case = (&'static str, fn(&mut TcpStream), &'static [&'static str]);

const CASES: [Case; 11] = [
    ("a byte a second", |stream| drip(stream, b"HTTP/1.1 200 OK\r\n"), &["timeout"]),
    ("silence", |_| sleep(4 * TIMEOUT), &["timeout"]),
    (
        "a header of 1 MB",
        |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
            for _ in 0..256 {
                let _ = stream.write_all(&[b'x'; 4096]);
            }
        },
        &["protocol"],
    ),
    (
        "a million headers",
        |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"X: y\r\n").is_ok() {}
        },
        &["protocol"],
    ),
    (
        "an endless row of 100 Continue",
        |stream| while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {},
        &["timeout", "protocol"],
    ),
    ("a large status", |stream| say(stream, b"HTTP/1.1 99999999999 OK\r\n\r\n"), &["protocol"]),
    ("no status line", |stream| say(stream, b"<html>all well</html>\r\n\r\n"), &["protocol"]),
    ("HTTP/2", |stream| say(stream, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), &["protocol"]),
    (
        "escapes",
        |stream| say(stream, b"\x1b[2J\x1b]0;owned\x07\r\nFAKE ERROR\r\n\r\n"),
        &["protocol"],
    ),
    (
        "escapes as a reason",
        |stream| say(stream, b"HTTP/1.1 500 \x1b[2J\r\n\r\n"),
        &["protocol", "status"],
    ),
    (
        "a redirect to itself",
        |stream| say(stream, b"HTTP/1.1 302 F\r\nLocation: /\r\n\r\n"),
        &["status"],
    ),
];

/// Bodies, in which something has to be.
const BODIES: [Case; 3] = [
    (
        "a body of a byte a second",
        |stream| {
            say(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n");
            drip(stream, b"xxxx");
        },
        &["timeout"],
    ),
    (
        "a chunk that is none",
        |stream| {
            say(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[2J\r\n");
        },
        &["protocol"],
    ),
    (
        "a body that is reset",
        |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf");
            sleep(GRACE);
            if let Ok(stream) = stream.try_clone() {
                servers::reset(stream);
            }
        },
        &["reset", "closed"],
    ),
];

fn say(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        sleep(Duration::from_secs(1));
    }
}

async fn judge(name: &str, kind: CheckKind, address: SocketAddr, expected: &[&str]) {
    let (outcome, took) = probe(&check(kind, TIMEOUT), address, true).await;
    let failure = outcome.result.expect_err(name);
    assert!(expected.contains(&failure.name()), "{name}: {failure}");
    assert!(took <= TIMEOUT + GRACE, "{name}: verdict after {took:?}");
    let text = failure.to_string();
    assert!(text.len() < 160, "{name}: {} bytes", text.len());
    assert!(text.chars().all(|c| (' '..='~').contains(&c)), "{name}: {text:?}");
}

#[tokio::test]
async fn every_verdict_is_in_time_and_its_text_harmless() {
    for (name, serve, expected) in CASES {
        let address = servers::tcp(move |mut stream| {
            servers::head(&mut stream);
            serve(&mut stream);
        });
        judge(name, CheckKind::Http(get("/")), address, expected).await;
    }
}

#[tokio::test]
async fn an_answer_before_the_request_is_no_answer() {
    let address = servers::tcp(|mut stream| {
        say(&mut stream, b"H");
        sleep(4 * TIMEOUT);
    });
    // Whether it comes before the request is a matter of luck.
    judge("early", CheckKind::Http(get("/")), address, &["protocol", "timeout"]).await;
}

#[tokio::test]
async fn garbage_instead_of_tls_is_no_tls() {
    let tls = TlsCheck { sni: None, verify: false, ca_file: None };
    let kind = || CheckKind::Http(HttpCheck { tls: Some(tls.clone()), ..get("/") });
    let cases: [Case; 5] = [
        ("text", |stream| say(stream, b"\x1b[2J\r\nFAKE\r\n"), &["tls"]),
        ("zeros", |stream| while stream.write_all(&[0; 4096]).is_ok() {}, &["tls"]),
        (
            "a huge record",
            |stream| say(stream, &[22, 3, 3, 255, 255, 2, 255, 255, 255]),
            &["tls", "closed", "timeout"],
        ),
        ("an endless handshake", endless_handshake, &["tls", "timeout"]),
        ("silence", |_| sleep(4 * TIMEOUT), &["timeout"]),
    ];
    for (name, serve, expected) in cases {
        let address = servers::tcp(move |mut stream| serve(&mut stream));
        judge(name, kind(), address, expected).await;
    }
}

/// Records that are well formed: a message of 16 MB begins and never ends.
fn endless_handshake(stream: &mut TcpStream) {
    let mut record = vec![22, 3, 3, 0x40, 0];
    record.extend([2, 255, 255, 255]);
    record.resize(5 + 0x4000, 0);
    while stream.write_all(&record).is_ok() {
        record[5] = 0;
    }
}

#[tokio::test]
async fn bodies_are_judged_in_time() {
    let body = BodyPattern(Regex::new("xxxx").expect("a pattern"));
    for (name, serve, expected) in BODIES {
        let address = servers::tcp(move |mut stream| {
            servers::head(&mut stream);
            serve(&mut stream);
        });
        let kind = CheckKind::Http(HttpCheck { body: Some(body.clone()), ..get("/") });
        judge(name, kind, address, expected).await;
    }
}
