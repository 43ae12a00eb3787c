//! Servers for tests. Their threads end with the process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use socket2::SockRef;

/// A TCP server; every connection is given to `serve`, in a thread of its own.
pub(super) fn tcp(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// An HTTP server that answers each connection's request with these bytes and closes.
pub(super) fn http(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    tcp(move |mut stream| {
        head(&mut stream);
        let _ = stream.write_all(&answer);
    })
}

/// As [`http`], and tells each request, and how the connection ended.
pub(super) fn watched(answer: &'static str) -> (SocketAddr, Receiver<(String, End)>) {
    let (sender, seen) = channel();
    let address = tcp(move |mut stream| {
        let request = head(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
        let closes = request.contains("connection: close");
        if closes {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let end = match stream.read(&mut [0]) {
            Ok(0) => End::Closed,
            Ok(_) => End::Data,
            Err(error) => End::Error(error.kind()),
        };
        let _ = sender.send((request, end));
    });
    (address, seen)
}

/// How a client left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Data,
    Error(std::io::ErrorKind),
}

/// Reads a request without a body.
pub(super) fn head(stream: &mut impl Read) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        request.push(byte[0]);
    }
    String::from_utf8(request).expect("text")
}

/// Sends an RST.
pub(super) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
    drop(stream);
}
