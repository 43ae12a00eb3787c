//! How many RX queues a device was made with, for devices whose driver does not tell how many it
//! uses: one question to rtnetlink.

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// `IFLA_NUM_RX_QUEUES` of a device of the calling thread's network namespace.
///
/// # Errors
/// What the kernel answers, and `EBADMSG` if that is no answer.
pub(super) fn rx_queues(ifindex: u32) -> Result<u32, Errno> {
    let flags = SocketFlags::CLOEXEC;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &question(ifindex), SendFlags::empty(), &kernel)?;
    // The kernel answers within the call above.
    let mut answer = vec![0; ANSWER];
    let (len, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    rx_queues_in(answer.get(..len).unwrap_or_default()).ok_or(Errno::BADMSG)
}

/// `RTM_GETLINK`: `struct nlmsghdr` and `struct ifinfomsg` of `linux/netlink.h`.
fn question(ifindex: u32) -> Vec<u8> {
    let length = u32::try_from(HEADER + IFINFO).unwrap_or(0);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(libc::RTM_GETLINK.to_ne_bytes());
    message.extend(u16::try_from(libc::NLM_F_REQUEST).unwrap_or(0).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 8]);
    message
}

/// The attribute in `RTM_NEWLINK`.
fn rx_queues_in(message: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind != libc::RTM_NEWLINK {
        return None;
    }
    let mut attributes = message.get(HEADER + IFINFO..)?;
    loop {
        let word =
            |at: usize| Some(u16::from_ne_bytes(attributes.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(word(0)?), word(2)?);
        let value = attributes.get(4..length)?;
        if kind == libc::IFLA_NUM_RX_QUEUES {
            return Some(u32::from_ne_bytes(value.try_into().ok()?));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

const HEADER: usize = 16;
const IFINFO: usize = 16;
/// As much as iproute2 reads at once; without statistics of virtual functions it is a few KiB.
const ANSWER: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_was_made_with_one_queue_and_other_answers_are_errors() {
        assert_eq!(rx_queues(1), Ok(1));
        assert_eq!(rx_queues(u32::from(u16::MAX)), Err(Errno::BADMSG));
    }

    #[test]
    fn no_bytes_make_a_panic() {
        let mut message = question(1);
        message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).expect("short");
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        message.extend(attribute(3, b"eth0\0"));
        message.extend(attribute(libc::IFLA_NUM_RX_QUEUES, &4_u32.to_ne_bytes()));
        assert_eq!(rx_queues_in(&message), Some(4));
        for cut in 0..message.len() {
            assert_eq!(rx_queues_in(&message[..cut]), None, "{cut}");
            let mut bytes = message.clone();
            bytes[cut] ^= 0xff;
            rx_queues_in(&bytes);
        }
    }
}
