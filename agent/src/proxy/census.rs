//! Who is connected: an id may be given to another destination only when nothing carries it any more, and a pod with too many
//! connections has further ones go straight.
//!
//! Locked when a connection comes or goes, never by a call.

use crate::mesh::{DestinationId, PodKey};
use rustc_hash::{FxHashMap, FxHashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A pod that was at its limit is below it again when so much of the limit is free: the kernel is not told with each connection
/// that comes or goes.
const FREE_SHARE: u64 = 16;

/// Client connections of all workers, from accept to the socket's close.
#[derive(Debug)]
pub(super) struct Census {
    counts: Mutex<Counts>,
    pod_limit: u64,
    /// A pod has come to its limit, or is below it again.
    pub(super) crossings: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Counts {
    destinations: FxHashMap<DestinationId, u64>,
    pods: FxHashMap<PodKey, u64>,
    at_limit: FxHashSet<PodKey>,
}

impl Census {
    pub(super) fn new(pod_limit: u32) -> Self {
        Self { counts: Mutex::default(), pod_limit: pod_limit.into(), crossings: Arc::default() }
    }

    pub(super) fn enter(&self, destination: DestinationId, pod: Option<&PodKey>) {
        let counts = &mut *self.lock();
        *counts.destinations.entry(destination).or_default() += 1;
        if let Some(pod) = pod {
            let connections = counts.pods.entry(pod.clone()).or_default();
            *connections += 1;
            if *connections >= self.pod_limit && counts.at_limit.insert(pod.clone()) {
                self.crossings.notify_one();
            }
        }
    }

    pub(super) fn leave(&self, destination: DestinationId, pod: Option<&PodKey>) {
        let counts = &mut *self.lock();
        one_less(&mut counts.destinations, &destination);
        if let Some(pod) = pod {
            let left = one_less(&mut counts.pods, pod);
            if left < self.pod_limit - self.pod_limit / FREE_SHARE && counts.at_limit.remove(pod) {
                self.crossings.notify_one();
            }
        }
    }

    pub(super) fn of_destination(&self, destination: DestinationId) -> u64 {
        self.lock().destinations.get(&destination).copied().unwrap_or(0)
    }

    pub(super) fn of_pod(&self, pod: &PodKey) -> u64 {
        self.lock().pods.get(pod).copied().unwrap_or(0)
    }

    pub(super) fn is_at_limit(&self, pod: &PodKey) -> bool {
        self.lock().at_limit.contains(pod)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are whole after every statement: a panic of another thread leaves nothing half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many are left.
fn one_less<K: Eq + Hash>(counts: &mut FxHashMap<K, u64>, key: &K) -> u64 {
    let Some(count) = counts.get_mut(key) else { return 0 };
    *count -= 1;
    let left = *count;
    if left == 0 {
        counts.remove(key);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_at_its_limit_until_a_part_of_it_is_free_again() {
        let census = Census::new(32);
        let pod = PodKey { uid: "u".into(), netns_cookie: 1 };
        let id = DestinationId::new(1).expect("in the space");
        let at_limit: Vec<bool> = (0..33)
            .map(|_| {
                census.enter(id, Some(&pod));
                census.is_at_limit(&pod)
            })
            .collect();
        assert_eq!(at_limit.iter().position(|at| *at), Some(31), "the 32nd is the last that is taken");
        let at_limit: Vec<bool> = (0..33)
            .map(|_| {
                census.leave(id, Some(&pod));
                census.is_at_limit(&pod)
            })
            .collect();
        assert_eq!(at_limit.iter().filter(|at| **at).count(), 3, "32, 31 and 30 are left");
        assert_eq!((census.of_pod(&pod), census.of_destination(id)), (0, 0));
    }

    #[test]
    fn a_limit_of_one_is_one() {
        let census = Census::new(1);
        let pod = PodKey { uid: "u".into(), netns_cookie: 1 };
        let id = DestinationId::new(1).expect("in the space");
        census.enter(id, Some(&pod));
        assert!(census.is_at_limit(&pod));
        census.leave(id, Some(&pod));
        assert!(!census.is_at_limit(&pod));
    }
}
