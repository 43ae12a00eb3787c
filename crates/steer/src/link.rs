//! `BPF_LINK_CREATE` for XDP with a mode, and its opposite. libbpf-rs 0.25 can only leave the mode
//! to the kernel, or attach without a link, which outlives the process; this lies between the two.

#![expect(unsafe_code, reason = "libbpf-rs attaches XDP links without flags only")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys::{self, bpf_link_create_opts};

use crate::attach::AttachedMode;

/// Attaches `program` to the interface `ifindex` of the calling thread's network namespace. It
/// stays attached until the last duplicate of the returned descriptor is closed.
pub(crate) fn create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    mode: AttachedMode,
) -> io::Result<OwnedFd> {
    let target = c_int::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    let options = bpf_link_create_opts {
        sz: size_of::<bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: match mode {
            AttachedMode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            AttachedMode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        },
        ..Default::default()
    };
    // SAFETY: `options` is a whole structure of the size that it names, and outlives the call; the
    // other arguments are numbers that the kernel checks.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), target, libbpf_sys::BPF_XDP, &options)
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link, which the driver is told of; the kernel skips this for the
/// program that is there already.
pub(crate) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes two descriptors, which the arguments keep open; no options (null) is allowed.
    let result = unsafe {
        libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null())
    };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

/// Index of the interface that a link's program is attached to; 0 if it is not any more.
pub(crate) fn target(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut length = u32::try_from(size_of_val(&info)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `info` has room for `length` bytes, both outlive the call, and all bytes that the
    // kernel may write there are valid for the numbers that it consists of.
    let result = unsafe {
        libbpf_sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &raw mut info, &raw mut length)
    };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: it is the link of an XDP program, so this is the part that the kernel wrote, at most;
    // what it did not write is 0.
    Ok(unsafe { info.__bindgen_anon_1.xdp.ifindex })
}

/// Detaches the program of a link at once, even if a child that is just being started still has a
/// duplicate of its descriptor. Without effect on a link whose device is gone.
pub(crate) fn detach(link: BorrowedFd<'_>) {
    // SAFETY: takes a descriptor, which `link` keeps open, and no memory. There is nothing to do if
    // it fails: closing the descriptor detaches as well.
    unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
}
