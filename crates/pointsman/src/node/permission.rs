//! What the process may do: found out before anything is touched, for what the kernel says later
//! does not name what is missing.

use rustix::thread::{CapabilitySet, capabilities};

/// The capabilities that are missing and what for, and how to get them; `None` when all are there.
pub(super) fn missing() -> Option<String> {
    // Where they cannot be read the kernel has the last word, as it has anyway.
    let held = capabilities(None).ok()?.effective;
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !need.met_by(held)).collect();
    if missing.is_empty() {
        return None;
    }
    let what: Vec<String> =
        missing.iter().map(|need| format!("{} (to {})", need.name, need.purpose)).collect();
    Some(format!(
        "no permission: this process lacks {}; run it as root or, under systemd, with \
         AmbientCapabilities={}",
        what.join(" and "),
        NEEDS.map(|need| need.name).join(" ")
    ))
}

/// A capability and what it is for.
struct Need {
    name: &'static str,
    purpose: &'static str,
    /// Any of these will do.
    any_of: CapabilitySet,
}

impl Need {
    fn met_by(&self, held: CapabilitySet) -> bool {
        held.intersects(self.any_of)
    }
}

/// CAP_SYS_ADMIN includes what Linux 5.8 took out of it.
const NEEDS: [Need; 4] = [
    Need {
        name: "CAP_NET_ADMIN",
        purpose: "attach the XDP program and keep neighbours resolved",
        any_of: CapabilitySet::NET_ADMIN,
    },
    Need { name: "CAP_NET_RAW", purpose: "open AF_XDP sockets", any_of: CapabilitySet::NET_RAW },
    Need {
        name: "CAP_BPF",
        purpose: "load the XDP program",
        any_of: CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN),
    },
    Need {
        name: "CAP_PERFMON",
        purpose: "let the XDP program compare packet pointers",
        any_of: CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_stands_for_bpf_and_perfmon_only() {
        let unmet = |held: CapabilitySet| -> Vec<&str> {
            NEEDS.iter().filter(|need| !need.met_by(held)).map(|need| need.name).collect()
        };
        assert_eq!(unmet(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(
            unmet(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW),
            ["CAP_BPF", "CAP_PERFMON"]
        );
        assert!(unmet(CapabilitySet::all()).is_empty());
    }
}
