//! What the steering program counts. Order and names are those of `enum outcome` in `bpf/abi.h`.

use std::ops::Index;

label::labels! {
    /// What became of a frame. Every frame that the program sees is exactly one of these. Counter,
    /// metric label and documentation come from here.
    pub enum Outcome {
        Passed => "passed", "Not about a VIP: left to the kernel.";
        Malformed => "malformed", "A header is cut off or contradicts itself: left to the kernel.";
        Group => "group", "For a VIP, but sent to an Ethernet group address: left to the kernel.";
        OtherInterface => "other_interface", "The VIP belongs to another interface: left to the kernel.";
        OtherHost => "other_host",
            "For a VIP, but sent to the MAC address of another host: left to the kernel.";
        Forwarded => "forwarded", "Next packet of a known flow: sent to its backend by the XDP program.";
        Redirected => "redirected", "IP packet for an active VIP: handed to the worker of its queue.";
        NeighbourRedirected => "neighbour_redirected",
            "ARP request or neighbour solicitation for an active VIP: handed to the worker.";
        Unbound => "unbound",
            "For an active VIP, but no socket is bound to the queue: left to the kernel.";
        Inactive => "inactive", "IP packet for a VIP that is not active on this node: dropped.";
        NeighbourInactive => "neighbour_inactive",
            "ARP request or neighbour solicitation for a VIP that is not active on this node: dropped.";
    }
}

impl Outcome {
    /// Whether the frame was left to the kernel's network stack (`XDP_PASS`).
    pub const fn is_passed(self) -> bool {
        match self {
            Self::Passed
            | Self::Malformed
            | Self::Group
            | Self::OtherInterface
            | Self::OtherHost
            | Self::Unbound => true,
            Self::Forwarded
            | Self::Redirected
            | Self::NeighbourRedirected
            | Self::Inactive
            | Self::NeighbourInactive => false,
        }
    }

    /// How many of the frames counted in `sums`, by outcome, were left to the kernel.
    pub fn passed(sums: &[u64; Self::COUNT]) -> u64 {
        let passed = Self::ALL.iter().filter(|outcome| outcome.is_passed());
        passed.map(|outcome| sums[outcome.index()]).sum()
    }

    /// The key of the outcome's counter.
    pub(crate) const fn key(self) -> [u8; 4] {
        (self as u32).to_ne_bytes()
    }
}

/// Frames per outcome since the program was attached, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; Outcome::COUNT]);

impl Counters {
    /// The counters, in the order of [`Outcome::ALL`].
    pub const fn as_array(&self) -> &[u64; Outcome::COUNT] {
        &self.0
    }

    /// All frames that the program saw.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds the values that the CPUs have for one outcome.
    pub(crate) fn add(&mut self, outcome: Outcome, cpus: &[Vec<u8>]) {
        let values = cpus.iter().filter_map(|value| value.as_slice().try_into().ok());
        self.0[outcome.index()] += values.map(u64::from_ne_bytes).sum::<u64>();
    }
}

impl Index<Outcome> for Counters {
    type Output = u64;

    fn index(&self, outcome: Outcome) -> &u64 {
        &self.0[outcome.index()]
    }
}

/// As in `bpf/abi.h`.
const _: () = assert!(Outcome::COUNT == 11);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_that_is_left_to_the_kernel_counts_as_passed() {
        for outcome in Outcome::ALL {
            let mut sums = [0; Outcome::COUNT];
            sums[outcome.index()] = 100;
            let left = outcome.help().ends_with("left to the kernel.");
            assert_eq!(Outcome::passed(&sums), if left { 100 } else { 0 }, "{outcome:?}");
        }
    }

    #[test]
    fn cpus_are_summed() {
        let mut counters = Counters::default();
        let cpus = [1u64, 40].map(|value| value.to_ne_bytes().to_vec());
        counters.add(Outcome::Inactive, &cpus);
        counters.add(Outcome::Passed, &cpus[..1]);
        assert_eq!(counters[Outcome::Inactive], 41);
        assert_eq!(counters[Outcome::Passed], 1);
        assert_eq!(counters.total(), 42);
        assert_eq!(counters.as_array()[Outcome::Inactive.index()], 41);
    }
}
