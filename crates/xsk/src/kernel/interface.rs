//! What opening asks of an interface. By ioctl rather than sysfs: that shows the namespace it was
//! mounted in, not the caller's.
#![expect(unsafe_code, reason = "ioctls on struct ifreq")]

use std::fs;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::allocated;

/// An interface of the calling thread's network namespace.
#[derive(Debug)]
pub(super) struct InterfaceView {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl InterfaceView {
    /// # Errors
    /// `ENODEV` for a name that no interface can have; else what socket(2) reports.
    pub(super) fn new(interface: &str) -> Result<Self, Errno> {
        let bytes = interface.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return Err(Errno::NODEV);
        }
        let mut name = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(bytes) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket, name })
    }

    /// The MTU in bytes.
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface.
    pub(super) fn mtu(&self) -> Result<u32, Errno> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: SIOCGIFMTU succeeded and so wrote this field of the union.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        u32::try_from(mtu).map_err(|_| Errno::RANGE)
    }

    /// The interface index.
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface.
    pub(super) fn index(&self) -> Result<u32, Errno> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: SIOCGIFINDEX succeeded and so wrote this field of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        u32::try_from(index).map_err(|_| Errno::RANGE)
    }

    /// How many queues can be bound, if the driver tells.
    pub(super) fn queues(&self) -> Option<u32> {
        let channels = self.channels()?;
        Some(channels.combined_count + channels.rx_count.max(channels.tx_count))
    }

    fn channels(&self) -> Option<EthtoolChannels> {
        let mut channels = EthtoolChannels { cmd: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
        let mut request = self.request();
        request.ifr_ifru.ifru_data = (&raw mut channels).cast();
        self.ioctl(libc::SIOCETHTOOL, &mut request).ok()?;
        // Reads what the kernel wrote through the pointer, not what was put there above.
        // SAFETY: `channels` is alive, initialised and no other reference to it exists.
        Some(unsafe { (&raw const channels).read_volatile() })
    }

    /// Runs an ethtool command, the first of `words`, which the kernel answers in place.
    ///
    /// # Safety
    /// `words` must be as long as the command's structure with all that the kernel writes behind
    /// it.
    ///
    /// # Errors
    /// What ioctl(2) reports.
    pub(super) unsafe fn ethtool(&self, words: &mut [u32]) -> Result<(), Errno> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        self.ioctl(libc::SIOCETHTOOL, &mut request)
    }

    /// RX queues that sysfs shows, if what it shows is this interface: it may be of another network
    /// namespace, where another interface may have the same name and index.
    fn shown(&self, interface: &str, index: u32) -> Option<u32> {
        let folder = Path::new("/sys/class/net").join(interface);
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let same = read("ifindex")?.trim() == index.to_string()
            && read("address")?.trim() == self.address()?;
        let queues = fs::read_dir(folder.join("queues")).ok().filter(|_| same)?;
        let names = queues.filter_map(|queue| queue.ok()?.file_name().into_string().ok());
        u32::try_from(names.filter(|name| name.starts_with("rx-")).count()).ok()
    }

    /// The MAC as sysfs writes it.
    fn address(&self) -> Option<String> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFHWADDR, &mut request).ok()?;
        // SAFETY: SIOCGIFHWADDR succeeded and so wrote this field of the union.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let bytes =
            address.sa_data.iter().take(6).map(|byte| format!("{:02x}", byte.cast_unsigned()));
        Some(bytes.collect::<Vec<_>>().join(":"))
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: all zeroes is a valid `ifreq`: integers, arrays of them and a null pointer.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        request.ifr_name = self.name;
        request
    }

    fn ioctl(&self, number: libc::Ioctl, request: &mut libc::ifreq) -> Result<(), Errno> {
        // SAFETY: the descriptor is open, `number` is one of those above, which all take an
        // `ifreq`; what it points to outlives the call and has the size the command asks for.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), number, request) };
        if result < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

/// RX queues that an interface uses now: its combined channels and the ones that only receive
/// (`ethtool -l`). Where the driver does not tell, as many as sysfs shows, or else as many as the
/// interface was made with (`ip -details link`).
///
/// # Errors
/// `ENODEV` if there is no such interface; else what socket(2) reports.
pub fn rx_queues(interface: &str) -> Result<u32, Errno> {
    let view = InterfaceView::new(interface)?;
    let index = view.index()?;
    let told = view.channels().map(|channels| channels.combined_count + channels.rx_count);
    let queues = match told {
        Some(queues) => queues,
        None => {
            let allocated = allocated::rx_queues(index).unwrap_or(1);
            view.shown(interface, index).map_or(allocated, |shown| shown.min(allocated))
        }
    };
    Ok(queues.max(1))
}

/// The calling thread's `errno`.
pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// `struct ethtool_channels` of `linux/ethtool.h`.
#[repr(C)]
#[derive(Debug, Default)]
struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

const ETHTOOL_GCHANNELS: u32 = 0x3c;

const _: () = assert!(size_of::<EthtoolChannels>() == 36);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_an_mtu_and_a_wrong_name_has_none() {
        let loopback = InterfaceView::new("lo").and_then(|view| view.mtu());
        assert!(loopback.is_ok_and(|mtu| mtu >= 1500), "{loopback:?}");
        let missing = InterfaceView::new("no-such-if").and_then(|view| view.mtu());
        assert_eq!(missing, Err(Errno::NODEV));
        assert_eq!(rx_queues("lo"), Ok(1));
        assert_eq!(rx_queues("no-such-if"), Err(Errno::NODEV));
        for name in ["", "a-name-that-is-too-long", "nul\0"] {
            assert_eq!(InterfaceView::new(name).err(), Some(Errno::NODEV), "{name:?}");
        }
    }
}
