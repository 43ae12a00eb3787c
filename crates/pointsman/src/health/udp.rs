//! The `udp` check.

use control::health::{Failure, UdpCheck};
use socket2::Type;
use tokio::time::{Instant, timeout_at};

use super::socket::{Datagrams, Target, failure_of};
use super::tcp::contains;

/// What is expected must be in the first bytes of an answer.
const MOST: usize = 8 * 1024;

/// Sends the payload and waits for an answer that contains what is expected. Other answers are
/// passed over; if nothing else came by the deadline, that is what is reported.
///
/// With a `refusal_window` silence passes at its end: nothing but an ICMP error tells of a server
/// that never answers.
pub(super) async fn probe(
    check: &UdpCheck,
    target: &Target,
    deadline: Instant,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| failure_of(&error);
    let socket = Datagrams::connect(target, Type::DGRAM, None).map_err(failed)?;
    let window_end = check.refusal_window.map(|window| Instant::now() + window);
    socket.send(&check.payload).await.map_err(failed)?;
    let mut answer = vec![0; MOST];
    let mut late = if window_end.is_some() { Ok(()) } else { Err(Failure::Timeout) };
    loop {
        let end = window_end.unwrap_or(deadline);
        let Ok(received) = timeout_at(end, socket.receive(&mut answer)).await else {
            return late;
        };
        let len = received.map_err(failed)?;
        if contains(answer.get(..len).unwrap_or_default(), &check.expect) {
            return Ok(());
        }
        late = Err(Failure::Mismatch);
    }
}
