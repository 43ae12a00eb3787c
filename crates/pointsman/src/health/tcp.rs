//! The `tcp` check.

use control::health::{Failure, TcpCheck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::outcome::{Outcome, Rest, State};
use super::socket::{Target, connect, failure_of};

/// No more of an answer is read.
const MOST: usize = 64 * 1024;

/// Connects, sends and waits for what is expected.
pub(super) async fn probe(check: &TcpCheck, target: &Target) -> Outcome {
    let mut stream = match connect(target).await {
        Ok(stream) => stream,
        Err(failure) => return Outcome::failed(failure),
    };
    let result = talk(check, &mut stream).await;
    // Many a server greets unasked.
    let state = if result.is_ok() { State::Idle(MOST) } else { State::Done };
    Outcome { result, rest: Some(Rest { stream, tls: false, state }) }
}

async fn talk(check: &TcpCheck, stream: &mut TcpStream) -> Result<(), Failure> {
    stream.write_all(&check.send).await.map_err(|error| failure_of(&error))?;
    if check.expect.is_empty() {
        return Ok(());
    }
    let mut answer = Vec::new();
    while answer.len() < MOST {
        // What was searched already, but for a beginning of the expected bytes at its end.
        let from = answer.len().saturating_sub(check.expect.len() - 1);
        let room = (MOST - answer.len()) as u64;
        let mut chunk = (&mut *stream).take(room);
        let count = chunk.read_buf(&mut answer).await.map_err(|error| failure_of(&error))?;
        if contains(answer.get(from..).unwrap_or_default(), &check.expect) {
            return Ok(());
        }
        if count == 0 {
            let nothing = answer.is_empty();
            return Err(if nothing { Failure::Closed } else { Failure::Mismatch });
        }
    }
    Err(Failure::Mismatch)
}

/// Whether `wanted` is somewhere in `bytes`.
pub(super) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}
