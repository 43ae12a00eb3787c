//! The sentinel: a connection that has carried a request and is then left alone. A server that dies
//! closes it within a millisecond; so does one that only tidies up. So its end is a reason to look,
//! never a verdict.

use super::outcome::{Rest, State, Stream, swallow};

/// Waits until the server closes the connection, or sends more than it may unasked.
pub(super) async fn watch(rest: Rest) {
    let State::Idle(most) = rest.state else { return };
    match rest.stream {
        Stream::Plain(mut stream) => swallow(&mut stream, most).await,
        Stream::Tls(mut stream) => swallow(&mut stream, most).await,
    }
}
