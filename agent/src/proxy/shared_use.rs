//! What the workers of the node share about a source of calls: what it holds and has under way, whichever of them serves it.
//!
//! Looked up once for a connection, counted in with atomics; nobody waits for anybody.

use crate::mesh::{PodKey, ServicePort};
use rustc_hash::FxHashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What a source's connections and calls hold on all workers.
#[derive(Debug, Default)]
pub(super) struct PodUse {
    /// Bytes, as of each worker's last turn.
    pub(super) held: AtomicU64,
    /// Calls that were answered or ended because that was too much.
    pub(super) refused: AtomicU64,
}

/// What a source has under way to a Service port on all workers: what circuit breakers count.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    pub(super) calls: AtomicU32,
    pub(super) pending: AtomicU32,
    pub(super) connections: AtomicU32,
}

/// A source and the Service port that it calls; without a key, the agent itself.
pub(super) type CircuitKey = (Option<PodKey>, ServicePort);

/// Values by key, each for as long as somebody has it.
#[derive(Debug)]
pub(super) struct Registry<K, V>(Mutex<FxHashMap<K, Weak<V>>>);

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Default> Registry<K, V> {
    /// The key's value, made where there is none.
    pub(super) fn of(&self, key: K) -> Arc<V> {
        let mut known = self.lock();
        if let Some(value) = known.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        known.retain(|_, value| value.strong_count() > 0);
        let value = Arc::<V>::default();
        known.insert(key, Arc::downgrade(&value));
        value
    }

    /// The key's value, if somebody has it.
    pub(super) fn find(&self, key: &K) -> Option<Arc<V>> {
        self.lock().get(key).and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<K, Weak<V>>> {
        // Whole after every statement: a panic of another thread leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the workers share about all sources.
#[derive(Debug, Default, Clone)]
pub(super) struct Ledger {
    pub(super) memory: Arc<Registry<Option<PodKey>, PodUse>>,
    pub(super) circuits: Arc<Registry<CircuitKey, Circuit>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_for_all_who_have_it_and_forgotten_with_the_last() {
        let registry = Registry::<u32, PodUse>::default();
        let (one, other) = (registry.of(1), registry.of(1));
        assert!(Arc::ptr_eq(&one, &other));
        drop((one, other));
        assert!(registry.find(&1).is_none());
        let _two = registry.of(2);
        assert_eq!(registry.lock().len(), 1, "what nobody has is cleared away");
    }
}
