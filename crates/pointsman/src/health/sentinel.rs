//! The sentinel: a connection that has carried a request and is then left alone. A server that dies
//! closes it within a millisecond; so does one that only tidies up. So its end is a reason to look,
//! never a verdict.

use super::outcome::{Rest, State, swallow};

/// Waits until the server closes the connection, or sends more than it may unasked.
pub(super) async fn watch(rest: Rest) {
    let Rest { mut stream, tls, state: State::Idle(most) } = rest else { return };
    // Nothing is decrypted any more: most of what TLS says by itself is no data, and the work that
    // it makes would have no bound. A server that says close_notify closes, too.
    let own = if tls { RECORDS } else { 0 };
    swallow(&mut stream, most + own).await;
}

/// Bytes of a TLS server's own records, such as session tickets (RFC 8446 §4.6).
const RECORDS: usize = 16 * 1024;
