//! Services that share their templates: one client, several ports.
//!
//! A template names a backend *slot*, and a slot is one backend of one service. Services of a group
//! have the same machines as backends, each under a slot of its own: what their templates and their
//! sources' pending choices name is the *member*, a machine of the group.

use crate::slots::{BackendSlot, ServiceSlot};

/// A persistence group, shared by its services. Never edited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Under which its templates are kept; no service has this slot.
    pub slot: ServiceSlot,
    /// A backend of a service and the member that it is, sorted by the former.
    members: Vec<(BackendSlot, BackendSlot)>,
    /// The same the other way round, sorted.
    backends: Vec<(BackendSlot, BackendSlot)>,
}

impl Group {
    /// A group of backends, each with the member that it is, in any order. No backend has the slot of
    /// a member.
    pub fn new(
        slot: ServiceSlot,
        backends: impl IntoIterator<Item = (BackendSlot, BackendSlot)>,
    ) -> Self {
        let mut members: Vec<_> = backends.into_iter().collect();
        members.sort_unstable();
        let mut backends: Vec<_> = members.iter().map(|&(own, member)| (member, own)).collect();
        backends.sort_unstable();
        Self { slot, members, backends }
    }

    /// The member that a backend of one of the services is.
    pub fn member(&self, backend: BackendSlot) -> Option<BackendSlot> {
        let at = self.members.binary_search_by_key(&backend, |&(own, _)| own).ok()?;
        self.members.get(at).map(|&(_, member)| member)
    }

    /// What a member is in the services, each of which has it once at most.
    pub fn backends_of(&self, member: BackendSlot) -> impl Iterator<Item = BackendSlot> {
        let first = self.backends.partition_point(|&(other, _)| other < member);
        let rest = self.backends.get(first..).unwrap_or_default().iter();
        rest.take_while(move |&&(other, _)| other == member).map(|&(_, own)| own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_their_backends() {
        let pairs = [(7, 101), (3, 100), (9, 100), (4, 102)];
        let pairs = pairs.map(|(own, member)| (BackendSlot(own), BackendSlot(member)));
        let group = Group::new(ServiceSlot(5000), pairs);
        assert_eq!(group.member(BackendSlot(9)), Some(BackendSlot(100)));
        assert_eq!(group.member(BackendSlot(100)), None);
        let of = |member| group.backends_of(BackendSlot(member)).map(|slot| slot.0);
        assert_eq!(of(100).collect::<Vec<_>>(), [3, 9]);
        assert_eq!(of(102).collect::<Vec<_>>(), [4]);
        assert_eq!(of(103).count(), 0);
    }
}
