//! Who is connected: an id may be given to another destination only when nothing carries it any more.
//!
//! Locked when a connection comes or goes, never by a call.

use crate::mesh::{DestinationId, PodKey};
use rustc_hash::FxHashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Client connections of all workers, from accept to the socket's close.
#[derive(Debug, Default)]
pub(super) struct Census(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    destinations: FxHashMap<DestinationId, u64>,
    pods: FxHashMap<PodKey, u64>,
}

impl Census {
    pub(super) fn enter(&self, destination: DestinationId, pod: Option<&PodKey>) {
        let counts = &mut *self.lock();
        *counts.destinations.entry(destination).or_default() += 1;
        if let Some(pod) = pod {
            *counts.pods.entry(pod.clone()).or_default() += 1;
        }
    }

    pub(super) fn leave(&self, destination: DestinationId, pod: Option<&PodKey>) {
        let counts = &mut *self.lock();
        one_less(&mut counts.destinations, &destination);
        if let Some(pod) = pod {
            one_less(&mut counts.pods, pod);
        }
    }

    pub(super) fn of_destination(&self, destination: DestinationId) -> u64 {
        self.lock().destinations.get(&destination).copied().unwrap_or(0)
    }

    pub(super) fn of_pod(&self, pod: &PodKey) -> u64 {
        self.lock().pods.get(pod).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are whole after every statement: a panic of another thread leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_less<K: Eq + Hash>(counts: &mut FxHashMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
