//! The `ping` check: an ICMP or ICMPv6 echo.
//!
//! By a raw socket: the process has CAP_NET_RAW anyway, and ping sockets depend on a sysctl. A
//! connected one gets messages from the backend only.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use control::health::Failure;
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type,
    Ipv4HeaderSlice,
};
use socket2::{Protocol, Type};

use super::socket::{Datagrams, Target, failure_of};
use crate::clock;

/// Sends an echo request and waits for its reply.
pub(super) async fn probe(target: &Target) -> Result<(), Failure> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let failed = |error: std::io::Error| failure_of(&error);
    let echo = Echo::new(NEXT.fetch_add(1, Ordering::Relaxed));
    let v4 = target.address.is_ipv4();
    let protocol = if v4 { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let target = Target { address: SocketAddr::new(target.address.ip(), 0), ..target.clone() };
    let socket = Datagrams::connect(&target, Type::RAW, Some(protocol)).map_err(failed)?;
    let request = if v4 { echo.request_v4() } else { echo.request_v6() };
    socket.send(&request).await.map_err(failed)?;
    let mut message = [0; 1024];
    loop {
        let len = socket.receive(&mut message).await.map_err(failed)?;
        let message = message.get(..len).unwrap_or_default();
        if if v4 { echo.is_answered_v4(message) } else { echo.is_answered_v6(message) } {
            return Ok(());
        }
    }
}

/// Identifier of an echo: by number among those of this process, by time among others'.
#[derive(Clone, Copy, Debug)]
struct Echo {
    header: IcmpEchoHeader,
    payload: [u8; 16],
}

impl Echo {
    fn new(number: u64) -> Self {
        let [.., a, b, c, d] = number.to_be_bytes();
        let id = u16::from_be_bytes([a, b]) ^ 0x504d;
        let mut payload = [0; 16];
        let (first, last) = payload.split_at_mut(8);
        first.copy_from_slice(&number.to_be_bytes());
        last.copy_from_slice(&clock::now().as_nanos().to_be_bytes());
        Self { header: IcmpEchoHeader { id, seq: u16::from_be_bytes([c, d]) }, payload }
    }

    fn request_v4(self) -> Vec<u8> {
        let kind = Icmpv4Type::EchoRequest(self.header);
        let mut message = Icmpv4Header::with_checksum(kind, &self.payload).to_bytes().to_vec();
        message.extend(self.payload);
        message
    }

    /// Without a checksum: the kernel fills it in.
    fn request_v6(self) -> Vec<u8> {
        let mut message =
            Icmpv6Header::new(Icmpv6Type::EchoRequest(self.header)).to_bytes().to_vec();
        message.extend(self.payload);
        message
    }

    /// A raw socket delivers the IP header too.
    fn is_answered_v4(self, packet: &[u8]) -> bool {
        let Ok(ip) = Ipv4HeaderSlice::from_slice(packet) else { return false };
        let message = packet.get(ip.slice().len()..).unwrap_or_default();
        Icmpv4Slice::from_slice(message).is_ok_and(|icmp| {
            icmp.icmp_type() == Icmpv4Type::EchoReply(self.header) && icmp.payload() == self.payload
        })
    }

    fn is_answered_v6(self, message: &[u8]) -> bool {
        Icmpv6Slice::from_slice(message).is_ok_and(|icmp| {
            icmp.icmp_type() == Icmpv6Type::EchoReply(self.header) && icmp.payload() == self.payload
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_reply_answers_an_echo() {
        let echo = Echo::new(0x0001_0002_0003);
        let mut reply = Icmpv6Header::new(Icmpv6Type::EchoReply(echo.header)).to_bytes().to_vec();
        reply.extend(echo.payload);
        assert!(echo.is_answered_v6(&reply));
        assert!(!echo.is_answered_v6(&echo.request_v6()), "a request is no reply");
        assert!(!Echo::new(0x0001_0002_0004).is_answered_v6(&reply), "another's");
        for len in 0..reply.len() {
            assert!(!echo.is_answered_v6(&reply[..len]), "cut to {len}");
            assert!(!echo.is_answered_v4(&reply[..len]), "cut to {len}");
        }
    }
}
