//! The UIDs in the paths of the wanted pods' cgroups, each with the one pod that it stands for. A pod's row may name one that is
//! another's (`kubernetes.io/config.mirror`): the first that has it keeps it, and the other learns whose it is. After a restart of the
//! worker process either may be the first: nothing in two mirrors' rows says which is false, until the kubelet deletes that.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// The pods' UIDs, by those in the path of their cgroups.
#[derive(Debug, Default)]
pub(super) struct CgroupUids(HashMap<Arc<str>, Arc<str>>);

impl CgroupUids {
    /// The UID of the pod that has the cgroup.
    pub(super) fn pod(&self, cgroup_uid: &str) -> Option<&Arc<str>> {
        self.0.get(cgroup_uid)
    }

    /// The pod has the cgroup from now on, if no other has.
    ///
    /// # Errors
    /// The UID of the pod that has it.
    pub(super) fn claim(&mut self, cgroup_uid: &Arc<str>, pod: &Arc<str>) -> Result<(), Arc<str>> {
        match self.0.entry(cgroup_uid.clone()) {
            Entry::Vacant(place) => drop(place.insert(pod.clone())),
            Entry::Occupied(owner) if owner.get() == pod => {}
            Entry::Occupied(owner) => return Err(owner.get().clone()),
        }
        Ok(())
    }

    /// The pod has it no more, if it had it.
    pub(super) fn release(&mut self, cgroup_uid: &str, pod: &str) {
        if self.0.get(cgroup_uid).is_some_and(|owner| **owner == *pod) {
            self.0.remove(cgroup_uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_one_pods_until_that_goes_and_no_other_can_take_it_away() {
        let mut uids = CgroupUids::default();
        let [cgroup, victim, other] = ["c", "victim", "other"].map(Arc::<str>::from);
        assert_eq!(uids.claim(&cgroup, &victim), Ok(()));
        assert_eq!(uids.claim(&cgroup, &other), Err(victim.clone()));
        uids.release(&cgroup, &other);
        assert_eq!(uids.pod(&cgroup), Some(&victim));
        assert_eq!(uids.claim(&cgroup, &victim), Ok(()));
        uids.release(&cgroup, &victim);
        assert_eq!(uids.pod(&cgroup), None);
        assert_eq!(uids.claim(&cgroup, &other), Ok(()));
    }
}
