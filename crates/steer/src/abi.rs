//! The Rust half of `bpf/abi.h`. Both sides assert their layout; a test reads the header.

/// Slots of the lease array.
pub const INSTANCES: u32 = 256;

/// Most addresses that the VIP map takes.
pub const VIPS: u32 = 4096;

/// Fewest queues that an XSKMAP has room for.
pub const XSKS: u32 = 256;

/// Backend slots.
pub const BACKENDS: u32 = 4096;

/// Most interfaces that frames can be redirected to.
pub const EGRESSES: u32 = 256;

/// An address of either family in network order, the key of the VIP map; IPv4 is mapped,
/// `::ffff:a.b.c.d`.
pub type Octets = [u8; 16];

/// A MAC address, in the order of the wire.
pub type Mac = [u8; 6];

/// To whom an address belongs: the value of the VIP map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Vip {
    /// Slot in the lease array, below [`INSTANCES`].
    pub instance: u32,
    /// The only interface that has the VIP; 0: all of them.
    pub ifindex: u32,
}

/// The interface that a program is attached to: the value of the port map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Frames to any other unicast MAC are another host's.
    pub(crate) mac: Mac,
    /// Senders may be on this very host: their longest frame; 0: they are not.
    pub(crate) local_longest: u16,
    /// Frames leave by this interface as they do by others.
    pub(crate) redirects: bool,
}

/// Where the frames of a backend's flows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The backend's MAC and the egress port's: the first bytes of the frame.
    pub macs: [u8; 12],
    /// The egress port. The program leaves frames to user space that it does not take.
    pub ifindex: u32,
    /// Slot in the lease array, below [`INSTANCES`].
    pub instance: u16,
    /// The VIP, as [`FastPath::vip_slot`](crate::FastPath::vip_slot) numbers it.
    pub vip: u16,
    /// Whether frames can be sent to it; those of others are user space's.
    pub usable: bool,
}

impl NextHop {
    /// As `struct next_hop`.
    pub(crate) fn to_bytes(self) -> [u8; HOP_BYTES] {
        let mut bytes = [0; HOP_BYTES];
        let [a, b] = self.instance.to_ne_bytes();
        let [c, d] = self.vip.to_ne_bytes();
        bytes[..12].copy_from_slice(&self.macs);
        bytes[12..16].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes[16..21].copy_from_slice(&[a, b, c, d, self.usable.into()]);
        bytes
    }
}

/// `struct port`.
const PORT_BYTES: usize = 12;
/// `struct next_hop`.
pub(crate) const HOP_BYTES: usize = 32;
/// The filter of our own MACs in `struct picture`.
pub(crate) const OWN_BITS: usize = 1024;
/// `struct picture`.
pub(crate) const PICTURE_BYTES: usize = OWN_BITS / 8 + HOP_BYTES * BACKENDS as usize;
/// Words of `struct traffic`.
pub(crate) const TRAFFIC_WORDS: usize = 3;
/// Words of `struct line`.
pub(crate) const LINE_WORDS: usize = 8;

impl Port {
    pub(crate) const fn of(mac: Mac) -> Self {
        Self { mac, local_longest: 0, redirects: false }
    }

    pub(crate) fn to_bytes(self) -> [u8; PORT_BYTES] {
        let mut bytes = [0; PORT_BYTES];
        bytes[..6].copy_from_slice(&self.mac);
        bytes[6..8].copy_from_slice(&self.local_longest.to_ne_bytes());
        bytes[8..].copy_from_slice(&u32::from(self.redirects).to_ne_bytes());
        bytes
    }
}

impl Vip {
    pub(crate) fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        let (instance, ifindex) = bytes.split_at_mut(size_of::<u32>());
        instance.copy_from_slice(&self.instance.to_ne_bytes());
        ifindex.copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes
    }

    /// `None` if there are not exactly as many bytes as the structure has.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (instance, ifindex) = bytes.split_first_chunk()?;
        Some(Self {
            instance: u32::from_ne_bytes(*instance),
            ifindex: u32::from_ne_bytes(ifindex.try_into().ok()?),
        })
    }
}

const _: () = assert!(size_of::<Octets>() == 16);
const _: () = assert!(size_of::<Vip>() == 8);
const _: () = assert!(std::mem::offset_of!(Vip, instance) == 0);
const _: () = assert!(std::mem::offset_of!(Vip, ifindex) == 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    const HEADER: &str = include_str!("../../../bpf/abi.h");

    fn defined(name: &str) -> Option<u32> {
        HEADER.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name))
                .then(|| words.next())?
                .and_then(|value| value.parse().ok())
        })
    }

    #[test]
    fn sizes_are_those_of_the_header() {
        assert_eq!(defined("INSTANCES"), Some(INSTANCES));
        assert_eq!(defined("VIPS"), Some(VIPS));
        assert_eq!(defined("XSKS"), Some(XSKS));
        assert_eq!(defined("BACKENDS"), Some(BACKENDS));
        assert_eq!(defined("EGRESSES"), Some(EGRESSES));
        assert_eq!(defined("OWN_BITS"), u32::try_from(OWN_BITS).ok());
    }

    #[test]
    fn outcomes_are_those_of_the_header() {
        let listed: Vec<String> = HEADER
            .lines()
            .filter_map(|line| line.trim().strip_prefix("OUTCOME_"))
            .filter_map(|rest| rest.split_once(','))
            .map(|(name, _)| name.to_lowercase())
            .collect();
        let ours: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        assert_eq!(listed, ours);
    }

    #[test]
    fn a_vip_survives_its_bytes() {
        let vip = Vip { instance: 7, ifindex: 0x0102_0304 };
        assert_eq!(Vip::from_bytes(&vip.to_bytes()), Some(vip));
        assert_eq!(vip.to_bytes()[..4], 7u32.to_ne_bytes());
        assert_eq!(Vip::from_bytes(&[0; 7]), None);
        assert_eq!(Vip::from_bytes(&[0; 9]), None);
    }
}
