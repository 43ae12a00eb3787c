//! Full neighbour tables, which the kernel tells in its own log only (`neighbor table overflow!`).
//!
//! Backends' entries are kept whatever else comes (`NTF_EXT_LEARNED`), so that VIPs are served all the
//! same; gateways, unicast VRRP peers and other hosts may not be reached.

use std::fs;

use control::Repeats;
use dataplane::Tick;
use tracing::warn;

use super::Node;

/// What was seen of the tables of both families.
#[derive(Clone, Copy, Debug)]
pub(super) struct NeighbourTables([Table; 2]);

#[derive(Clone, Copy, Debug)]
struct Table {
    statistics: &'static str,
    threshold: &'static str,
    /// How often the kernel had no room; `None` before the first look.
    full: Option<u64>,
    lines: Repeats,
}

impl Default for NeighbourTables {
    fn default() -> Self {
        let table = |statistics, threshold| Table {
            statistics,
            threshold,
            full: None,
            lines: Repeats::default(),
        };
        Self([
            table("/proc/net/stat/arp_cache", "net.ipv4.neigh.default.gc_thresh3"),
            table("/proc/net/stat/ndisc_cache", "net.ipv6.neigh.default.gc_thresh3"),
        ])
    }
}

impl Node {
    /// Says once a minute that a table is full. All network namespaces share the tables, and only the
    /// first one has the statistics.
    pub(super) fn look_at_neighbour_tables(&mut self, now: Tick) {
        for table in &mut self.neighbour_tables.0 {
            let Some(full) = fs::read_to_string(table.statistics).ok().and_then(|t| refused(&t))
            else {
                continue;
            };
            let before = table.full.replace(full).unwrap_or(full);
            if full > before && table.lines.admit(now).is_some() {
                let (key, limit) = (table.threshold, limit(table.threshold));
                warn!(
                    "the kernel's neighbour table is full ({key} = {limit}): new hosts cannot be \
                     resolved; backends stay reachable. Raise {key}, or find who sends ARP or \
                     neighbour solicitations from so many addresses"
                );
            }
        }
    }
}

/// How often the kernel had no room for an entry: the column `table_fulls`, a line per CPU.
fn refused(statistics: &str) -> Option<u64> {
    let mut lines = statistics.lines();
    let column = lines.next()?.split_ascii_whitespace().position(|name| name == "table_fulls")?;
    let of_cpu =
        |line: &str| u64::from_str_radix(line.split_ascii_whitespace().nth(column)?, 16).ok();
    Some(lines.filter_map(of_cpu).sum())
}

fn limit(key: &str) -> String {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cpus_count_and_an_unknown_format_does_not() {
        let text = "entries  allocs   unresolved_discards table_fulls\n\
                    0000001a 0025e14a 00000021            0000000f\n\
                    0000001a 00000000 00000000            00000010\n";
        assert_eq!(refused(text), Some(31));
        assert_eq!(refused("entries  allocs\n0000001a 0025e14a\n"), None);
        assert_eq!(refused(""), None);
    }
}
