//! TCP resets on behalf of a backend that cannot send them any more.
//!
//! A client believes a reset only if its sequence number is exactly the one that it expects next
//! (RFC 5961 §3.2): the number that its own last acknowledgment names.

use super::answer::{address, asker};
use super::checksum::Sum;
use super::transport::{Extent, TCP};
use super::{ACK, FIN, Packet, RST, SYN, TcpFields, ethernet, ipv4, ipv6, parse_opening};
use crate::addr::{Addr, Mac};
use crate::key::FlowKey;

/// Turns the segment in `buffer[..len]` into the reset that answers it (RFC 9293 §3.10.7.1), from
/// `own` to where it came from. VLAN tags stay; options and payload do not.
///
/// Returns how many bytes of `buffer` are the reset, never more than before, or `None`, and then
/// nothing was changed: for a reset, for a first fragment without ACK (its segment's length is not
/// known), for a damaged IPv4 header, and where a group address asks or is asked.
pub fn reset(buffer: &mut [u8], len: usize, own: Mac) -> Option<usize> {
    let frame = buffer.get(..len)?;
    let Packet::Tcp(key, tcp) = parse_opening(frame) else { return None };
    let to = asker(frame, key.src, key.dst)?;
    let (ethertype, payload) = ethernet::payload(frame)?;
    let (segment, extent) = match ethertype {
        ethernet::IPV4 => ipv4::upper(payload)?,
        _ => ipv6::upper(payload)?,
    };
    let reset = Reset::answering(&key, tcp, segment, extent)?;
    let link_len = len.checked_sub(payload.len())?;
    let (link, room) = buffer.split_at_mut_checked(link_len)?;
    let written = reset.write(room)?;
    address(link, to, own)?;
    link_len.checked_add(written)
}

/// An unsolicited reset, to end the client's flow `key`: `seq` is the client's last
/// acknowledgment number. Returns how many bytes of `buffer` it takes, at most
/// [`RESET_LEN`]; `None` when they are not there.
pub fn write_reset(buffer: &mut [u8], key: &FlowKey, seq: u32, to: Mac, own: Mac) -> Option<usize> {
    let (link, room) = buffer.split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    let written = Reset::to(key, seq, None).write(room)?;
    address(link, to, own)?;
    let ethertype = if key.src.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    [link[12], link[13]] = ethertype.to_be_bytes();
    ethernet::HEADER.checked_add(written)
}

/// A reset without VLAN tags over IPv6, the longest that [`write_reset`] makes.
pub const RESET_LEN: usize = ethernet::HEADER + ipv6::HEADER + SEGMENT;

/// The segment and its addresses, as they leave.
#[derive(Clone, Copy, Debug)]
struct Reset {
    src: Addr,
    dst: Addr,
    src_port: u16,
    dst_port: u16,
    seq: u32,
    /// With the ACK flag.
    ack: Option<u32>,
}

impl Reset {
    /// To the client of `key`, from the VIP.
    const fn to(key: &FlowKey, seq: u32, ack: Option<u32>) -> Self {
        Self {
            src: key.dst,
            dst: key.src,
            src_port: key.dst_port,
            dst_port: key.src_port,
            seq,
            ack,
        }
    }

    /// RFC 9293 §3.10.7.1: `<SEQ=SEG.ACK><CTL=RST>` if the segment has an ACK, else
    /// `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>`. Nothing answers a reset.
    fn answering(key: &FlowKey, tcp: TcpFields, segment: &[u8], extent: Extent) -> Option<Self> {
        if tcp.flags & RST != 0 {
            return None;
        }
        if tcp.flags & ACK != 0 {
            return Some(Self::to(key, tcp.ack, None));
        }
        let header = segment.first_chunk::<SEGMENT>().filter(|_| extent == Extent::Whole)?;
        let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let data = segment.len().checked_sub(usize::from(header[12] >> 4) << 2)?;
        // RFC 9293 §3.4: SYN and FIN take a sequence number each.
        let controls = u32::from(tcp.flags & SYN != 0).wrapping_add((tcp.flags & FIN).into());
        let ack = seq.wrapping_add(u32::try_from(data).ok()?).wrapping_add(controls);
        Some(Self::to(key, 0, Some(ack)))
    }

    /// Writes IP and TCP headers; returns their length.
    fn write(&self, room: &mut [u8]) -> Option<usize> {
        if self.src.is_v4() {
            let (header, rest) = room.split_first_chunk_mut::<{ ipv4::HEADER }>()?;
            *rest.first_chunk_mut()? = self.segment();
            ipv4::write_header(header, self.src, self.dst, TCP, SEGMENT)?;
            ipv4::HEADER.checked_add(SEGMENT)
        } else {
            let (header, rest) = room.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
            *rest.first_chunk_mut()? = self.segment();
            ipv6::write_header(header, self.src, self.dst, TCP, SEGMENT)?;
            ipv6::HEADER.checked_add(SEGMENT)
        }
    }

    /// The TCP header: no window, no options, nothing behind it.
    fn segment(&self) -> [u8; SEGMENT] {
        let mut segment = [0; SEGMENT];
        [segment[0], segment[1]] = self.src_port.to_be_bytes();
        [segment[2], segment[3]] = self.dst_port.to_be_bytes();
        [segment[4], segment[5], segment[6], segment[7]] = self.seq.to_be_bytes();
        let ack = self.ack.unwrap_or(0);
        [segment[8], segment[9], segment[10], segment[11]] = ack.to_be_bytes();
        segment[12] = DATA_OFFSET;
        segment[13] = if self.ack.is_some() { RST | ACK } else { RST };
        [segment[16], segment[17]] = Sum::upper(self.src, self.dst, TCP, &segment).checksum();
        segment
    }
}

/// A TCP header without options, and the same in its own unit.
const SEGMENT: usize = 20;
const DATA_OFFSET: u8 = 5 << 4;

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]
mod tests;
