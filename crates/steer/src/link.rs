//! `BPF_LINK_CREATE` for XDP with a mode and for the ingress hook, and its opposite. libbpf-rs 0.25 can
//! only leave the mode to the kernel, or attach without a link, which outlives the process; this lies
//! between the two. Of ingress hooks (TCX) it knows nothing.

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
    let flags = match mode {
        AttachedMode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
        AttachedMode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
    };
    attach(program, ifindex, libbpf_sys::BPF_XDP, flags)
}

/// The same at the interface's ingress hook, before all programs and filters that are there.
///
/// # Errors
/// `EINVAL` before Linux 6.6.
pub(crate) fn create_ingress(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    attach(program, ifindex, libbpf_sys::BPF_TCX_INGRESS, libbpf_sys::BPF_F_BEFORE)
}

fn attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    hook: libbpf_sys::bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    let target = c_int::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    let options = bpf_link_create_opts {
        sz: size_of::<bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    // SAFETY: `options` is a whole structure of the size that it names, and outlives the call; the
    // other arguments are numbers that the kernel checks.
    let fd = unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), target, hook, &options) };
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
    // SAFETY: it is the link of an XDP program or of one at an ingress hook, both of which begin with
    // the index, so this is the part that the kernel wrote, at most; what it did not write is 0.
    Ok(unsafe { info.__bindgen_anon_1.xdp.ifindex })
}

/// Detaches the program of a link at once, even if a child that is just being started still has a
/// duplicate of its descriptor. Without effect on a link whose device is gone.
pub(crate) fn detach(link: BorrowedFd<'_>) {
    // SAFETY: takes a descriptor, which `link` keeps open, and no memory. There is nothing to do if
    // it fails: closing the descriptor detaches as well.
    unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
}
