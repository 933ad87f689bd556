//! What the workers of the node share about a source of calls: what it holds and has under way, whichever of them serves it.
//!
//! Looked up once for a connection, counted in with atomics; nobody waits for anybody.

use crate::mesh::{PodKey, ServicePort};
use rustc_hash::FxHashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Release};
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
    /// Calls that were sent again because of the Service's retry policy.
    pub(super) retries: AtomicU32,
}

/// A source and the Service port that it calls; without a key, the agent itself.
pub(super) type CircuitKey = (Option<PodKey>, ServicePort);

/// Values by key, each for as long as somebody has it.
#[derive(Debug)]
pub(super) struct Registry<K, V>(Mutex<Known<K, V>>);

#[derive(Debug)]
struct Known<K, V> {
    values: FxHashMap<K, Weak<V>>,
    /// With so many, those that nobody has are cleared away.
    swept_at: usize,
}

/// The least number of values among which those that nobody has are looked for.
const LEAST_SWEPT: usize = 64;

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Known { values: FxHashMap::default(), swept_at: LEAST_SWEPT }))
    }
}

impl<K: Eq + Hash, V: Default> Registry<K, V> {
    /// The key's value, made where there is none.
    pub(super) fn of(&self, key: K) -> Arc<V> {
        let mut known = self.lock();
        if let Some(value) = known.values.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        // When they have doubled: workers wait for each other here, and a node has thousands.
        if known.values.len() >= known.swept_at {
            known.values.retain(|_, value| value.strong_count() > 0);
            known.swept_at = (known.values.len() * 2).max(LEAST_SWEPT);
        }
        let value = Arc::<V>::default();
        known.values.insert(key, Arc::downgrade(&value));
        value
    }

    /// The key's value, if somebody has it.
    pub(super) fn find(&self, key: &K) -> Option<Arc<V>> {
        self.lock().values.get(key).and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, Known<K, V>> {
        lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every statement: a panic of another thread leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where each pod stays under session affinity, for the pod's life: also while it has no connection, and whichever worker serves it.
#[derive(Debug, Default)]
pub(super) struct Homes {
    by_key: Mutex<FxHashMap<CircuitKey, SocketAddr>>,
    /// Counts up with each change.
    version: AtomicU64,
}

impl Homes {
    /// Where the pod stays, of each Service port under session affinity that it has called.
    pub(super) fn of(&self, pod: &PodKey) -> Vec<(ServicePort, SocketAddr)> {
        let homes = lock(&self.by_key);
        let its = homes.iter().filter(|((of, _), _)| of.as_ref() == Some(pod));
        its.map(|((_, port), address)| (port.clone(), *address)).collect()
    }

    /// The pod has ended.
    pub(super) fn forget(&self, pod: &Option<PodKey>) {
        lock(&self.by_key).retain(|(of, _), _| of != pod);
    }
}

/// A target's view of [`Homes`]: a call asks with one load of an atomic whether it is still true.
#[derive(Debug)]
pub(super) struct Home {
    all: Arc<Homes>,
    key: CircuitKey,
    address: Option<SocketAddr>,
    version: u64,
}

impl Home {
    pub(super) fn new(all: &Arc<Homes>, key: CircuitKey) -> Self {
        Self { all: Arc::clone(all), key, address: None, version: u64::MAX }
    }

    /// Where the pod stays; `None` before its first call.
    pub(super) fn address(&mut self) -> Option<SocketAddr> {
        let version = self.all.version.load(Acquire);
        if self.version != version {
            self.version = version;
            self.address = lock(&self.all.by_key).get(&self.key).copied();
        }
        self.address
    }

    /// It moves.
    pub(super) fn set(&mut self, address: SocketAddr) {
        let mut homes = lock(&self.all.by_key);
        homes.insert(self.key.clone(), address);
        self.all.version.fetch_add(1, Release);
    }
}

/// What the workers share about all sources.
#[derive(Debug, Default, Clone)]
pub(super) struct Ledger {
    pub(super) memory: Arc<Registry<Option<PodKey>, PodUse>>,
    pub(super) circuits: Arc<Registry<CircuitKey, Circuit>>,
    pub(super) homes: Arc<Homes>,
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
    }

    #[test]
    fn what_nobody_has_is_cleared_away_when_there_are_twice_as_many_and_not_with_each_new_one() {
        let registry = Registry::<usize, PodUse>::default();
        let held: Vec<_> = (0..LEAST_SWEPT).map(|key| registry.of(key)).collect();
        for key in LEAST_SWEPT..LEAST_SWEPT * 2 {
            registry.of(key);
            assert_eq!(registry.lock().values.len(), key + 1, "nobody looks at the others for it");
        }
        drop(held);
        let _last = registry.of(1_000);
        assert_eq!(registry.lock().values.len(), 1);
    }

    #[test]
    fn a_pods_home_is_the_same_for_all_workers_and_forgotten_with_the_pod() {
        let homes = Arc::<Homes>::default();
        let pod = Some(PodKey { uid: "u-1".into(), netns_cookie: 1 });
        let service_port = ServicePort { service: crate::mesh::ObjectName::new("shop", "cart"), port: 80 };
        let view = || Home::new(&homes, (pod.clone(), service_port.clone()));
        let (mut one, mut other) = (view(), view());
        assert_eq!((one.address(), other.address()), (None, None));
        let [first, second] = ["10.0.0.1:80", "10.0.0.2:80"].map(|text| text.parse().unwrap());
        one.set(first);
        assert_eq!((one.address(), other.address()), (Some(first), Some(first)));
        other.set(second);
        assert_eq!((one.address(), view().address()), (Some(second), Some(second)));
        assert_eq!(homes.of(pod.as_ref().unwrap()), [(service_port.clone(), second)]);
        homes.forget(&pod);
        assert_eq!(view().address(), None);
    }
}
