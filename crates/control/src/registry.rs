//! Process-lifetime slots: a name keeps its slot, and a slot changes hands only when nothing can
//! mean its former owner any more.

use std::collections::BTreeMap;

/// Gives out slots below a limit.
#[derive(Debug)]
pub struct Registry<K> {
    limit: u16,
    owners: BTreeMap<K, u16>,
    /// Slots whose owner is gone, with the first generation that does not know it.
    retired: BTreeMap<u16, u64>,
    /// Slots never given out start here.
    fresh: u16,
    free: Vec<u16>,
}

impl<K: Ord + Clone> Registry<K> {
    /// A registry of slots `0..limit`.
    pub fn new(limit: u16) -> Self {
        Self {
            limit,
            owners: BTreeMap::new(),
            retired: BTreeMap::new(),
            fresh: 0,
            free: Vec::new(),
        }
    }

    /// The owner's slot; a new one if it has none. `None`: all are taken or still retired.
    pub fn claim(&mut self, owner: &K) -> Option<u16> {
        if let Some(slot) = self.owners.get(owner) {
            return Some(*slot);
        }
        let slot = self.free.pop().or_else(|| {
            let slot = self.fresh;
            (slot < self.limit).then(|| {
                self.fresh += 1;
                slot
            })
        })?;
        self.owners.insert(owner.clone(), slot);
        Some(slot)
    }

    /// Gives the slot of one owner to another one that has none.
    pub fn rename(&mut self, from: &K, to: K) {
        if let Some(slot) = self.owners.remove(from) {
            self.owners.insert(to, slot);
        }
    }

    /// The owner's slot, if it has one.
    pub fn slot(&self, owner: &K) -> Option<u16> {
        self.owners.get(owner).copied()
    }

    /// Keeps the owners that `keep` names; the others' slots retire with `generation`, the first
    /// snapshot without them.
    pub fn retain(&mut self, generation: u64, keep: impl Fn(&K) -> bool) {
        let Self { owners, retired, .. } = self;
        owners.retain(|owner, slot| {
            let kept = keep(owner);
            if !kept {
                retired.insert(*slot, generation);
            }
            kept
        });
    }

    /// Frees retired slots that every worker forgot (`acknowledged` or later) and that nothing
    /// names any more. Returns the freed slots.
    pub fn reclaim(&mut self, acknowledged: u64, named: impl Fn(u16) -> bool) -> Vec<u16> {
        let ready: Vec<u16> = self
            .retired
            .iter()
            .filter(|(slot, generation)| **generation <= acknowledged && !named(**slot))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in &ready {
            self.retired.remove(slot);
            self.free.push(*slot);
        }
        ready
    }

    /// Slots that wait for their last flow or template.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_keeps_its_slot() {
        let mut registry = Registry::new(3);
        assert_eq!(registry.claim(&"a"), Some(0));
        assert_eq!(registry.claim(&"b"), Some(1));
        assert_eq!(registry.claim(&"a"), Some(0));
        assert_eq!(registry.slot(&"b"), Some(1));
    }

    #[test]
    fn a_slot_waits_for_acknowledgement_and_for_its_last_user() {
        let mut registry = Registry::new(1);
        registry.claim(&"a");
        registry.retain(7, |_| false);
        assert_eq!(registry.claim(&"b"), None, "retired is not free");
        assert!(registry.reclaim(6, |_| false).is_empty(), "not acknowledged");
        assert!(registry.reclaim(7, |_| true).is_empty(), "a flow still names it");
        assert_eq!(registry.reclaim(7, |_| false), [0]);
        assert_eq!(registry.claim(&"b"), Some(0));
    }
}
