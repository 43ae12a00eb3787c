//! The sentinel: a connection that has carried a request and is then left alone. A server that dies
//! closes it within a millisecond; so does one that only tidies up. So its end is a reason to look,
//! never a verdict.

use super::outcome::{Rest, State, Stream, swallow};

/// Waits until the server closes the connection, or sends more than it may unasked.
pub(super) async fn watch(rest: Rest) {
    let State::Idle(most) = rest.state else { return };
    match rest.stream {
        Stream::Plain(mut stream) => swallow(&mut stream, most).await,
        // Nothing is decrypted any more: most of what TLS says by itself is no data, and the work that
        // it makes would have no bound. A server that says close_notify closes, too.
        Stream::Tls(stream) => swallow(&mut stream.into_inner().0, most + RECORDS).await,
    }
}

/// Bytes of a TLS server's own records, such as session tickets (RFC 8446 §4.6).
const RECORDS: usize = 16 * 1024;
