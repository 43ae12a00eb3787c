//! The `dns` check: one query over UDP (RFC 1035), judged by the code of its response.

use std::hash::{BuildHasher, RandomState};
use std::io;

use control::health::{DnsCheck, Failure};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question};
use socket2::Type;
use tokio::time::{Instant, timeout_at};

use super::socket::{Datagrams, Target, failure_of};
use super::text::printable;
use crate::panics;

/// RFC 6891 §6.2.3 without EDNS; servers that send more are looked at as far as this.
const MOST: usize = 4096;

/// Sends the query and waits for its response. Whatever answers something else is passed over; if
/// nothing else came by the deadline, that is what is reported.
pub(super) async fn probe(
    check: &DnsCheck,
    target: &Target,
    deadline: Instant,
) -> Result<(), Failure> {
    let failed = |error: io::Error| failure_of(&error);
    // Unpredictable, as the source port: a host that does not see the query cannot answer it.
    let [first, second, ..] = RandomState::new().hash_one(0).to_be_bytes();
    let id = u16::from_be_bytes([first, second]);
    let query = query(check, id).map_err(|error| Failure::Local(printable(error)))?;
    let socket = Datagrams::connect(target, Type::DGRAM, None).map_err(failed)?;
    socket.send(&query).await.map_err(failed)?;
    let mut answer = vec![0; MOST];
    let mut late = Failure::Timeout;
    loop {
        let Ok(received) = timeout_at(deadline, socket.receive(&mut answer)).await else {
            return Err(late);
        };
        let len = received.map_err(failed)?;
        match rcode(check, id, answer.get(..len).unwrap_or_default()) {
            Some(code) if check.rcodes.contains(&code) => return Ok(()),
            Some(code) => return Err(Failure::Answer(DnsCheck::rcode_name(code))),
            None => late = Failure::Mismatch,
        }
    }
}

fn query(check: &DnsCheck, id: u16) -> simple_dns::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(question(check)?);
    packet.build_bytes_vec()
}

fn question(check: &DnsCheck) -> simple_dns::Result<Question<'_>> {
    let kind = QTYPE::try_from(check.rtype)?;
    Ok(Question::new(Name::new(&check.name)?, kind, QCLASS::CLASS(CLASS::IN), false))
}

/// The code of a response to this query; `None` if the message is no response to it.
fn rcode(check: &DnsCheck, id: u16, message: &[u8]) -> Option<u8> {
    let counts = message.get(4..12)?.chunks_exact(2).map(|two| match two {
        [high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    // Room for all records is made ahead. The shortest one, a question for the root, has 5 bytes.
    if counts.sum::<usize>() * 5 > message.len() {
        return None;
    }
    // What a server sends may find a fault in the library, and must end nothing.
    let packet = panics::contain(|| Packet::parse(message).ok())??;
    let answers = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.opcode() == OPCODE::StandardQuery
        && is_asked(check, &packet.questions);
    // Without EDNS in the query there is no more of the code than these four bits.
    answers.then(|| message.get(3).map(|flags| flags & 0x0f))?
}

/// Servers that cannot read a query repeat no question.
fn is_asked(check: &DnsCheck, questions: &[Question<'_>]) -> bool {
    let Ok(asked) = question(check) else { return false };
    match questions {
        [] => true,
        [one] => one.qname == asked.qname && one.qtype == asked.qtype && one.qclass == asked.qclass,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check() -> DnsCheck {
        DnsCheck { name: "www.example.org".to_owned(), rtype: 1, rcodes: BTreeSet::from([0]) }
    }

    /// A response to the query with this code.
    fn response(code: u8) -> Vec<u8> {
        let mut message = query(&check(), 7).expect("a query");
        message[2] |= 0x80;
        message[3] |= code;
        message
    }

    #[test]
    fn a_response_to_another_query_is_none() {
        assert_eq!(rcode(&check(), 7, &response(3)), Some(3));
        assert_eq!(rcode(&check(), 8, &response(0)), None, "another number");
        let other = DnsCheck { name: "www.example.com".to_owned(), ..check() };
        assert_eq!(rcode(&other, 7, &response(0)), None, "another name");
        let other = DnsCheck { name: "WWW.example.ORG".to_owned(), ..check() };
        assert_eq!(rcode(&other, 7, &response(0)), Some(0), "case does not matter");
        let other = DnsCheck { rtype: 28, ..check() };
        assert_eq!(rcode(&other, 7, &response(0)), None, "another type");
        let query = query(&check(), 7).expect("a query");
        assert_eq!(rcode(&check(), 7, &query), None, "an echo");
        for len in 0..response(0).len() {
            assert_eq!(rcode(&check(), 7, &response(0)[..len]), None, "cut to {len}");
        }
        let mut many = response(0);
        many[6..12].fill(0xff);
        assert_eq!(rcode(&check(), 7, &many), None, "more records than it has bytes");
    }

    #[test]
    fn every_type_can_be_asked_for() {
        for (name, rtype) in control::health::DNS_TYPES {
            let check = DnsCheck { rtype: *rtype, ..check() };
            assert!(query(&check, 1).is_ok(), "{name}");
        }
        let root = DnsCheck { name: String::new(), ..check() };
        assert_eq!(query(&root, 1).map(|query| query.len()).ok(), Some(17));
    }

    proptest! {
        /// The library finds no fault in itself, and nothing but a response is taken for one.
        #[test]
        fn any_bytes_are_judged(at in 4_usize..33, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut message = response(0);
            let before = panics::contained_so_far();
            let from = at.min(message.len());
            message.truncate(from);
            message.extend_from_slice(&bytes);
            let _ = rcode(&check(), 7, &message);
            let _ = rcode(&check(), 7, &bytes);
            prop_assert_eq!(panics::contained_so_far(), before);
        }
    }
}
