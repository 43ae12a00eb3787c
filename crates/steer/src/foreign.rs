//! Other XDP programs on an interface. Looks only; replaces and removes nothing.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter};
use libbpf_rs::{Xdp, XdpFlags};

use crate::error::SteerError;

/// An XDP program that is not ours. As text: what it is and how to get rid of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The interface.
    pub interface: String,
    /// Where the program runs: `native`, `generic` or `offloaded`.
    pub mode: &'static str,
    /// Its id, as `bpftool prog show id` takes it.
    pub program_id: u32,
    /// Its name; empty if it could not be read.
    pub program_name: String,
    /// The `bpf_link` that holds it there; `None` if it was attached without one.
    pub link: Option<ForeignLink>,
}

/// What keeps a foreign program attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignLink {
    /// Its id, as `bpftool link show id` takes it.
    pub id: u32,
    /// The processes that hold a descriptor of it, as far as `/proc` tells. None: it is pinned, or
    /// they run in another PID namespace.
    pub holders: Vec<Process>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub name: String,
}

/// The program on the interface `ifindex` of this thread's network namespace, if there is one.
/// `any_fd` is not looked at.
pub(crate) fn find(
    interface: &str,
    ifindex: u32,
    any_fd: BorrowedFd<'_>,
) -> Result<Option<Foreign>, SteerError> {
    let index = i32::try_from(ifindex)
        .map_err(|_| SteerError::NoSuchInterface { interface: interface.to_owned(), ifindex })?;
    let query = Xdp::new(any_fd)
        .query(index, XdpFlags::NONE)
        .map_err(SteerError::map("ask which XDP program is attached"))?;
    let attached = [
        ("native", query.drv_prog_id),
        ("generic", query.skb_prog_id),
        ("offloaded", query.hw_prog_id),
        (mode_name(query.attach_mode), query.prog_id),
    ];
    let Some((mode, program_id)) = attached.into_iter().find(|(_, id)| *id != 0) else {
        return Ok(None);
    };
    Ok(Some(Foreign {
        interface: interface.to_owned(),
        mode,
        program_id,
        program_name: program_name(program_id),
        link: link(program_id, ifindex),
    }))
}

/// `IFLA_XDP_ATTACHED`, for kernels that name one program only.
fn mode_name(attached: u8) -> &'static str {
    match u32::from(attached) {
        libbpf_sys::XDP_ATTACHED_SKB => "generic",
        libbpf_sys::XDP_ATTACHED_HW => "offloaded",
        _ => "native",
    }
}

fn program_name(id: u32) -> String {
    ProgInfoIter::default()
        .find(|program| program.id == id)
        .map(|program| program.name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn link(program_id: u32, ifindex: u32) -> Option<ForeignLink> {
    LinkInfoIter::default()
        .find(|link| {
            link.prog_id == program_id
                && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == ifindex)
        })
        .map(|link| ForeignLink { id: link.id, holders: holders(link.id) })
}

/// Best effort: processes end while they are looked at, and others are not ours to look at.
fn holders(link_id: u32) -> Vec<Process> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| holds(*pid, link_id).unwrap_or(false))
        .map(|pid| Process { pid, name: comm(pid) })
        .collect()
}

fn holds(pid: u32, link_id: u32) -> io::Result<bool> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"))?;
    let texts = infos.flatten().filter_map(|info| fs::read_to_string(info.path()).ok());
    Ok(texts.into_iter().any(|text| names_link(&text, link_id)))
}

/// `fdinfo` of a link has the line `link_id:\tN` (`bpf_link_show_fdinfo` in the kernel).
fn names_link(fdinfo: &str, link_id: u32) -> bool {
    fdinfo
        .lines()
        .filter_map(|line| line.strip_prefix("link_id:"))
        .any(|id| id.trim().parse() == Ok(link_id))
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, mode, program_id, program_name, link } = self;
        write!(
            f,
            "{interface}: another XDP program is attached in {mode} mode: id {program_id}, name \
             {program_name:?}. It was left alone. Look at it with `bpftool prog show id \
             {program_id}`; "
        )?;
        match link {
            None => write!(f, "remove it with `ip link set dev {interface} {} off`", option(mode)),
            Some(link) => write!(f, "{link}"),
        }
    }
}

/// Without the mode, `ip` would ask the driver to remove what the driver does not have.
fn option(mode: &str) -> &'static str {
    match mode {
        "generic" => "xdpgeneric",
        "offloaded" => "xdpoffload",
        _ => "xdpdrv",
    }
}

impl fmt::Display for ForeignLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, holders } = self;
        write!(f, "it is held by bpf_link {id} (`ip link … xdp off` cannot remove it), ")?;
        if holders.is_empty() {
            return write!(
                f,
                "which no process seen from here has open: `bpftool link show id {id}` names \
                 where it is pinned, `bpftool link detach id {id}` detaches it"
            );
        }
        let names: Vec<String> = holders.iter().map(Process::to_string).collect();
        write!(f, "which goes when this process ends: {}", names.join(", "))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(mode: &'static str, link: Option<ForeignLink>) -> Foreign {
        Foreign {
            interface: "eth0".to_owned(),
            mode,
            program_id: 42,
            program_name: "xdp_dispatcher".to_owned(),
            link,
        }
    }

    #[test]
    fn without_a_link_the_advice_is_ip_link() {
        let text = foreign("generic", None).to_string();
        assert!(text.contains("eth0: another XDP program is attached in generic mode"), "{text}");
        assert!(text.contains("id 42, name \"xdp_dispatcher\""), "{text}");
        assert!(text.contains("bpftool prog show id 42"), "{text}");
        assert!(text.ends_with("`ip link set dev eth0 xdpgeneric off`"), "{text}");
    }

    #[test]
    fn with_a_link_the_advice_is_its_holder_or_its_pin() {
        let holder = Process { pid: 7, name: "xdp-filter".to_owned() };
        let text =
            foreign("native", Some(ForeignLink { id: 3, holders: vec![holder] })).to_string();
        assert!(text.contains("bpf_link 3"), "{text}");
        assert!(text.ends_with("xdp-filter (pid 7)"), "{text}");

        let text = foreign("native", Some(ForeignLink { id: 3, holders: vec![] })).to_string();
        assert!(text.contains("bpftool link detach id 3"), "{text}");
    }

    #[test]
    fn fdinfo_is_read_by_its_key() {
        let fdinfo = "pos:\t0\nflags:\t02000002\nlink_type:\txdp\nlink_id:\t12\nprog_id:\t3\n";
        assert!(names_link(fdinfo, 12));
        assert!(!names_link(fdinfo, 3));
        assert!(!names_link(fdinfo, 1));
    }
}
