//! The wire format: VRRPv2 (RFC 3768 §5) and VRRPv3 (RFC 9568 §5), IPv4 and IPv6.
//!
//! Knows bytes, not instances: whether the sender may be believed is `filter`'s business. Nothing
//! here can panic, whatever the bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;
use std::time::Duration;

use super::auth::{AUTH_DATA_LEN, AuthPass};
use super::checksum::Sum;
use super::reject::Reject;

/// Virtual router ID, 1–255 (RFC 9568 §5.2.3).
pub type Vrid = NonZeroU8;

/// Protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568: both families, centiseconds.
    V3,
}

/// How the checksum of a VRRPv3 message over IPv4 was or is to be made.
///
/// VRRPv2 has never had a pseudo-header and IPv6 always has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumStyle {
    /// Over the message alone (RFC 9568 §5.2.8).
    Plain,
    /// With a pseudo-header, as RFC 5798 was often read.
    PseudoHeader,
}

/// What the IP header said about a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Source address.
    pub source: IpAddr,
    /// Destination address: needed for the pseudo-header.
    pub destination: IpAddr,
    /// TTL or hop limit as received.
    pub ttl: u8,
}

/// One advertisement, borrowing its address list from the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert<'a> {
    /// Protocol version.
    pub version: Version,
    /// Virtual router.
    pub vrid: Vrid,
    /// 0: the sender leaves; 255: it owns the addresses (RFC 9568 §5.2.4).
    pub priority: u8,
    /// Advertisement interval, not 0.
    pub interval: Duration,
    /// The virtual addresses.
    pub addresses: Addresses<'a>,
    /// Which checksum was found right.
    pub checksum: ChecksumStyle,
    /// Authentication data of type 1 (RFC 2338), version 2 only.
    pub auth: Option<[u8; AUTH_DATA_LEN]>,
}

/// The address list of a message: a whole number of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// IPv4 addresses.
    V4(&'a [[u8; 4]]),
    /// IPv6 addresses.
    V6(&'a [[u8; 16]]),
}

impl Addresses<'_> {
    /// How many addresses the list holds.
    pub const fn len(&self) -> usize {
        match self {
            Self::V4(list) => list.len(),
            Self::V6(list) => list.len(),
        }
    }

    /// Whether the list is empty.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an address is in the list.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Self::V4(list), IpAddr::V4(v4)) => list.contains(&v4.octets()),
            (Self::V6(list), IpAddr::V6(v6)) => list.contains(&v6.octets()),
            (Self::V4(_), IpAddr::V6(_)) | (Self::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether the list names exactly `vips`, in any order (RFC 9568 §7.1: a receiver MAY verify).
    ///
    /// An IPv6 list may begin with the link-local address of the virtual router, which RFC 9568
    /// §5.2.9 puts first, without it being one of `vips`.
    pub fn same_as(&self, vips: &[IpAddr]) -> bool {
        let ours = |(at, ip): (usize, IpAddr)| {
            let own_link_local =
                matches!(ip, IpAddr::V6(v6) if at == 0 && v6.is_unicast_link_local());
            vips.contains(&ip) || own_link_local
        };
        vips.iter().all(|&vip| self.contains(vip)) && self.iter().enumerate().all(ours)
    }

    /// The addresses, in the order of the message.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let (v4, v6): (&[[u8; 4]], &[[u8; 16]]) = match self {
            Self::V4(list) => (list, &[]),
            Self::V6(list) => (&[], list),
        };
        v4.iter().copied().map(IpAddr::from).chain(v6.iter().copied().map(IpAddr::from))
    }
}

/// What is to be sent; the counterpart of [`Advert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// Protocol version.
    pub version: Version,
    /// Virtual router.
    pub vrid: Vrid,
    /// 0 to leave.
    pub priority: u8,
    /// 10 ms–40.95 s (version 3, rounded down to 10 ms), 1–255 s (version 2).
    pub interval: Duration,
    /// 1–255 virtual addresses of the source's family.
    pub vips: &'a [IpAddr],
    /// Only looked at for version 3 over IPv4.
    pub checksum: ChecksumStyle,
    /// Source address of the packet.
    pub source: IpAddr,
    /// Destination address of the packet.
    pub destination: IpAddr,
    /// Password of version 2.
    pub auth: Option<AuthPass>,
}

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The caller's buffer is too short.
    #[error("the advertisement needs {needed} bytes, the buffer has {room}")]
    Room {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        room: usize,
    },
    /// The interval cannot be said in this version.
    #[error("an interval of {0:?} does not fit this VRRP version")]
    Interval(Duration),
    /// No address, more than 255, or another family than the source's.
    #[error("the address list must hold 1-255 addresses of the source's family")]
    Addresses,
}

/// Reads one message. Checks what RFC 9568 §7.1 and RFC 3768 §7.1 ask of any receiver: TTL,
/// version, type, length, checksum, authentication type.
pub fn decode<'a>(message: &'a [u8], from: &Envelope) -> Result<Advert<'a>, Reject> {
    // RFC 9568 §5.1.1.3, §5.1.2.3: a packet without 255 MUST be discarded.
    if from.ttl != MAX_TTL {
        return Err(Reject::Ttl);
    }
    let (header, rest) = message.split_first_chunk::<HEADER_LEN>().ok_or(Reject::Length)?;
    let &[first, vrid, priority, count, hi, lo, _, _] = header;
    let v6 = match (from.source, from.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => false,
        (IpAddr::V6(_), IpAddr::V6(_)) => true,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            return Err(Reject::Family);
        }
    };
    let version = match first >> 4 {
        2 if !v6 => Version::V2,
        3 => Version::V3,
        _ => return Err(Reject::Version),
    };
    // RFC 9568 §5.2.2: type 1 is the only one, others MUST be discarded.
    if first & 0x0f != TYPE_ADVERTISEMENT {
        return Err(Reject::Type);
    }
    let trailer = match version {
        Version::V2 => AUTH_DATA_LEN,
        Version::V3 => 0,
    };
    let list = rest.len().checked_sub(trailer).ok_or(Reject::Length)?;
    let (list, data) = rest.split_at_checked(list).ok_or(Reject::Length)?;
    let addresses = addresses(list, v6).ok_or(Reject::Length)?;
    if addresses.len() != usize::from(count) {
        return Err(Reject::Length);
    }
    let checksum = verify(message, version, from).ok_or(Reject::Checksum)?;
    // RFC 9568 §5.2.5: the minimum count is 1.
    if addresses.is_empty() {
        return Err(Reject::Count);
    }
    let vrid = Vrid::new(vrid).ok_or(Reject::Vrid)?;
    let auth = match (version, hi) {
        (Version::V3, _) | (Version::V2, NO_AUTHENTICATION) => None,
        (Version::V2, SIMPLE_PASSWORD) => Some(*data.first_chunk().ok_or(Reject::Length)?),
        // RFC 2338 §5.3.6: type 2 is an IPsec header, which is not spoken here.
        (Version::V2, _) => return Err(Reject::Auth),
    };
    let interval = match version {
        Version::V2 => Duration::from_secs(u64::from(lo)),
        // RFC 9568 §5.2.6, §5.2.7: 4 reserved bits, ignored on reception, then 12 bits.
        Version::V3 => CENTISECOND * u32::from(u16::from_be_bytes([hi & 0x0f, lo])),
    };
    if interval.is_zero() {
        return Err(Reject::Interval);
    }
    Ok(Advert { version, vrid, priority, interval, addresses, checksum, auth })
}

/// Writes one message and returns its length.
pub fn encode(advert: &Outgoing<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let (hi, lo) = wire_interval(advert).ok_or(EncodeError::Interval(advert.interval))?;
    let count = u8::try_from(advert.vips.len()).map_err(|_| EncodeError::Addresses)?;
    let width = if advert.source.is_ipv4() { 4 } else { 16 };
    let (version, trailer) = match advert.version {
        Version::V2 => (2, AUTH_DATA_LEN),
        Version::V3 => (3, 0),
    };
    let fits = advert.vips.iter().all(|vip| vip.is_ipv4() == advert.source.is_ipv4())
        && advert.source.is_ipv4() == advert.destination.is_ipv4()
        && (advert.version == Version::V3 || advert.source.is_ipv4());
    if count == 0 || !fits {
        return Err(EncodeError::Addresses);
    }
    let len = HEADER_LEN + width * usize::from(count) + trailer;
    let room = out.len();
    let error = EncodeError::Room { needed: len, room };
    let message = out.get_mut(..len).ok_or(error)?;
    message.fill(0);
    let (header, list) = message.split_first_chunk_mut::<HEADER_LEN>().ok_or(error)?;
    *header = [
        version << 4 | TYPE_ADVERTISEMENT,
        advert.vrid.get(),
        advert.priority,
        count,
        hi,
        lo,
        0,
        0,
    ];
    let addresses = width * usize::from(count);
    if let (Some(pass), Some(data)) = (advert.auth, list.get_mut(addresses..))
        && advert.version == Version::V2
    {
        data.copy_from_slice(pass.data());
    }
    for (slot, vip) in list.chunks_exact_mut(width).zip(advert.vips) {
        match vip {
            IpAddr::V4(v4) => slot.copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => slot.copy_from_slice(&v6.octets()),
        }
    }
    let [hi, lo] = (!covered(advert, len).bytes(message).fold()).to_be_bytes();
    if let Some([.., a, b]) = message.first_chunk_mut::<HEADER_LEN>() {
        (*a, *b) = (hi, lo);
    }
    Ok(len)
}

/// What precedes the message in its checksum.
fn covered(advert: &Outgoing<'_>, len: usize) -> Sum {
    let pseudo = match (advert.version, advert.source) {
        (Version::V2, _) => false,
        (Version::V3, IpAddr::V6(_)) => true,
        (Version::V3, IpAddr::V4(_)) => advert.checksum == ChecksumStyle::PseudoHeader,
    };
    if pseudo { Sum::pseudo_header(advert.source, advert.destination, len) } else { Sum::default() }
}

/// The style that makes the checksum right, if one does.
fn verify(message: &[u8], version: Version, from: &Envelope) -> Option<ChecksumStyle> {
    const GOOD: u16 = 0xffff;
    // RFC 9568 §5.2.8: no pseudo-header for IPv4; RFC 3768 §5.3.8: none at all.
    if from.source.is_ipv4() && Sum::default().bytes(message).fold() == GOOD {
        return Some(ChecksumStyle::Plain);
    }
    let pseudo = Sum::pseudo_header(from.source, from.destination, message.len());
    (version == Version::V3 && pseudo.bytes(message).fold() == GOOD)
        .then_some(ChecksumStyle::PseudoHeader)
}

/// The list as whole addresses; `None` where bytes are left over.
fn addresses(bytes: &[u8], v6: bool) -> Option<Addresses<'_>> {
    if v6 {
        let (list, rest) = bytes.as_chunks();
        rest.is_empty().then_some(Addresses::V6(list))
    } else {
        let (list, rest) = bytes.as_chunks();
        rest.is_empty().then_some(Addresses::V4(list))
    }
}

/// Bytes 4 and 5 of the header.
fn wire_interval(advert: &Outgoing<'_>) -> Option<(u8, u8)> {
    match advert.version {
        // RFC 2338 §5.3.6, §5.3.7: authentication type, then seconds.
        Version::V2 => {
            let seconds = u8::try_from(advert.interval.as_secs()).ok()?;
            let kind = if advert.auth.is_some() { SIMPLE_PASSWORD } else { NO_AUTHENTICATION };
            (seconds != 0).then_some((kind, seconds))
        }
        // RFC 9568 §5.2.7: 12 bits of centiseconds.
        Version::V3 => {
            let centis = u16::try_from(advert.interval.as_millis() / 10).ok()?;
            let [hi, lo] = centis.to_be_bytes();
            matches!(centis, 1..=MAX_CENTISECONDS).then_some((hi, lo))
        }
    }
}

/// TTL and hop limit of every VRRP packet (RFC 9568 §5.1.1.3, §5.1.2.3).
pub const MAX_TTL: u8 = 255;
/// Where IPv4 adverts go (RFC 9568 §5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where IPv6 adverts go (RFC 9568 §5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The count field has 8 bits.
pub const MAX_VIPS_V4: usize = 255;
/// As many as fit 1,500 bytes with the IPv6 header: adverts are not to be fragmented.
pub const MAX_VIPS_V6: usize = 90;
/// A buffer of this length takes every message.
pub const MAX_MESSAGE_LEN: usize = HEADER_LEN + 16 * MAX_VIPS_V6;
/// Largest interval of version 3 on the wire: 40.95 s.
pub const MAX_CENTISECONDS: u16 = 0x0fff;

const HEADER_LEN: usize = 8;
/// Authentication types of version 2.
const NO_AUTHENTICATION: u8 = 0;
const SIMPLE_PASSWORD: u8 = 1;
const TYPE_ADVERTISEMENT: u8 = 1;
const CENTISECOND: Duration = Duration::from_millis(10);
