//! The `https` check, against a server with a certificate for `backend.test`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use control::health::{CheckKind, Failure, HttpCheck, TlsCheck};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use tokio::time::timeout;

use super::servers;
use super::{AMPLE, SHORT, check, get, probe, result};
use crate::health::outcome::{Rest, State};
use crate::health::sentinel;

fn own(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/health/tests")).join(file)
}

/// A server; tells the server name of each client.
fn server() -> (SocketAddr, Receiver<Option<String>>) {
    let (sender, seen) = channel();
    let address = answering(move |tls, mut stream| {
        let name = tls.server_name().map(str::to_owned);
        let _ = sender.send(name);
        // Kept until the client leaves.
        let _ = std::io::Read::read(&mut stream, &mut [0]);
    });
    (address, seen)
}

/// A server that answers one request and then goes on like this.
fn answering(then: impl Fn(ServerConnection, TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(own("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(own("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .expect("a configuration");
    let config = Arc::new(config);
    servers::tcp(move |mut stream| {
        let mut tls = ServerConnection::new(Arc::clone(&config)).expect("a connection");
        let mut both = Stream::new(&mut tls, &mut stream);
        servers::head(&mut both);
        let _ = both.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        then(tls, stream);
    })
}

/// The connection of a probe, kept.
async fn kept(address: SocketAddr) -> Rest {
    let (mut outcome, _) = probe(&check(https(None, false, None), AMPLE), address, true).await;
    outcome.take_idle().expect("a connection")
}

fn https(host: Option<&str>, verify: bool, ca_file: Option<PathBuf>) -> CheckKind {
    let tls = TlsCheck { sni: None, verify, ca_file };
    CheckKind::Http(HttpCheck { host: host.map(str::to_owned), tls: Some(tls), ..get("/") })
}

#[tokio::test]
async fn a_certificate_is_verified_if_it_is_to_be() {
    let (address, _seen) = server();
    let ca = || Some(own("ca.pem"));
    let invalid = [
        ("another name", https(Some("other.test"), true, ca())),
        ("no name", https(None, true, ca())),
        ("nobody trusts it", https(Some("backend.test"), true, Some(own("server.pem")))),
    ];
    for (name, kind) in invalid {
        let failure = result(kind, address, AMPLE).await.expect_err(name);
        assert_eq!(failure.name(), "tls", "{name}: {failure}");
    }
    let valid = [
        ("verified", https(Some("backend.test"), true, ca())),
        ("not verified", https(Some("other.test"), false, None)),
        ("not even a name", https(None, false, None)),
    ];
    for (name, kind) in valid {
        assert_eq!(result(kind, address, AMPLE).await, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn the_server_name_is_sent_if_there_is_one() {
    let (address, seen) = server();
    for (host, expected) in [(Some("backend.test"), Some("backend.test")), (None, None)] {
        assert_eq!(result(https(host, false, None), address, AMPLE).await, Ok(()));
        assert_eq!(seen.recv().expect("a client").as_deref(), expected);
    }
}

#[tokio::test]
async fn a_tls_connection_can_be_kept() {
    let (address, _seen) = server();
    let rest = kept(address).await;
    assert_eq!(rest.state, State::Idle(0));
    let lost = timeout(SHORT, sentinel::watch(rest)).await;
    assert!(lost.is_err(), "its session tickets are no loss");
}

#[tokio::test]
async fn the_end_of_a_kept_tls_connection_is_noticed() {
    let address = answering(|mut tls, mut stream| {
        thread::sleep(SHORT);
        tls.send_close_notify();
        let _ = tls.write_tls(&mut stream);
    });
    let rest = kept(address).await;
    timeout(AMPLE, sentinel::watch(rest)).await.expect("the loss is noticed");
}

/// Each record is valid, and none brings data.
#[tokio::test]
async fn what_tls_says_by_itself_is_bounded() {
    let address = answering(|mut tls, mut stream| {
        // The probe is over then; it has a time limit of its own.
        thread::sleep(SHORT);
        while tls.refresh_traffic_keys().is_ok() && tls.write_tls(&mut stream).is_ok() {}
    });
    let rest = kept(address).await;
    timeout(AMPLE, sentinel::watch(rest)).await.expect("it is let go");
}

#[tokio::test]
async fn a_server_without_tls_fails() {
    let address = servers::http("HTTP/1.1 400 Bad Request\r\n\r\n");
    // It waits for the end of a request that never comes.
    let never = result(https(None, false, None), address, SHORT).await;
    assert_eq!(never, Err(Failure::Timeout));
    let hasty = servers::tcp(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let failure = result(https(None, false, None), hasty, AMPLE).await.expect_err("no TLS");
    assert_eq!(failure.name(), "tls", "{failure}");
}

#[tokio::test]
async fn a_check_without_its_certificates_blames_this_node() {
    let (address, _seen) = server();
    let kind = https(Some("backend.test"), true, Some(PathBuf::from("/nonexistent/ca.pem")));
    let failure = result(kind, address, AMPLE).await.expect_err("no certificates");
    assert_eq!(failure.name(), "local");
    assert!(failure.to_string().contains("/nonexistent/ca.pem"), "{failure}");
}
