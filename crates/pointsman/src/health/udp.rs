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
pub(super) async fn probe(
    check: &UdpCheck,
    target: &Target,
    deadline: Instant,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| failure_of(&error);
    let socket = Datagrams::connect(target, Type::DGRAM, None).map_err(failed)?;
    socket.send(&check.payload).await.map_err(failed)?;
    let mut answer = vec![0; MOST];
    let mut late = Failure::Timeout;
    loop {
        let Ok(received) = timeout_at(deadline, socket.receive(&mut answer)).await else {
            return Err(late);
        };
        let len = received.map_err(failed)?;
        if contains(answer.get(..len).unwrap_or_default(), &check.expect) {
            return Ok(());
        }
        late = Failure::Mismatch;
    }
}
