//! Everything that is counted of calls, for those who read it. Who writes: [`Recorder`](super::Recorder).

use super::Status;
use super::admission::Admission;
use super::family::{Family, Sums};
use super::series::{
    CallCounts, CallGroup, CallKey, CallSeries, EdgeCounts, EdgeGroup, EdgeSeries, Link, WorkloadName,
    name_of,
};
use crate::mesh::ServicePort;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How often what writers have left is taken in, if nobody reads.
pub const TIDY_EVERY: Duration = Duration::from_secs(30);

/// Everything that is counted of calls.
#[derive(Debug)]
pub struct Telemetry {
    pub(super) calls: Family<CallSeries>,
    pub(super) edges: Family<EdgeSeries>,
    has_sizes: bool,
    bounds: Mutex<Bounds>,
}

/// What holds for all of a pod's, or a workload's, recorders together.
#[derive(Debug, Default)]
struct Bounds {
    admissions: FxHashMap<Between, Arc<Admission>>,
    /// The series of each pod that calls, by its UID.
    pods: FxHashMap<Option<Arc<str>>, Weak<AtomicUsize>>,
}

/// A workload that calls, and the Service port.
type Between = (Option<WorkloadName>, ServicePort);

/// Calls, summed up so that no sum of theirs ever falls.
#[derive(Debug)]
pub struct CallSums {
    /// By workloads, Service port, method and status.
    pub groups: Vec<(CallGroup, CallCounts)>,
    /// Calls between workloads that have long been silent, by Service port, method and status alone.
    pub rest: Vec<(ServicePort, Arc<str>, Status, CallCounts)>,
}

impl Telemetry {
    /// Nothing counted yet. The distributions of sizes are Istio's metrics' alone: counted where those are wanted.
    pub fn new(has_sizes: bool) -> Self {
        Self { calls: Family::default(), edges: Family::default(), has_sizes, bounds: Mutex::default() }
    }

    /// Whether [`Self::sizes`] are counted.
    pub fn has_sizes(&self) -> bool {
        self.has_sizes
    }

    /// Calls by pod, Service port, endpoint, method and status.
    pub fn calls(&self) -> Vec<(CallKey, CallCounts)> {
        self.calls_at(Instant::now())
    }

    /// The same as of a moment.
    pub(in crate::telemetry) fn calls_at(&self, now: Instant) -> Vec<(CallKey, CallCounts)> {
        self.calls.rows(now).into_iter().collect()
    }

    /// Calls, summed up as metrics tell of them at a moment: not before one that was asked for.
    pub fn call_sums(&self, now: Instant) -> CallSums {
        let Sums { groups, rest } = self.calls.sums(now);
        let rest = rest.into_iter();
        CallSums {
            groups: groups.into_iter().collect(),
            rest: rest.map(|((at, (method, status)), counts)| (at, method, status, counts)).collect(),
        }
    }

    /// Calls' sizes by workloads, Service port and status.
    pub fn sizes(&self, now: Instant) -> Vec<(EdgeGroup, EdgeCounts)> {
        self.edges.sums(now).groups.into_iter().collect()
    }

    /// Takes in what former writers left. To be called every [`TIDY_EVERY`].
    pub fn tidy(&self) {
        self.tidy_at(Instant::now());
    }

    pub(super) fn tidy_at(&self, now: Instant) {
        let told = self.calls.sums(now).groups;
        self.edges.sums(now);
        let told: FxHashSet<Between> =
            told.into_keys().map(|CallGroup { edge, .. }| (edge.source_name(), edge.service_port)).collect();
        let mut bounds = self.bounds();
        // Somebody may have taken one meanwhile, and counted nothing yet.
        bounds
            .admissions
            .retain(|between, admission| Arc::strong_count(admission) > 1 || told.contains(between));
        bounds.pods.retain(|_, series| series.strong_count() > 0);
    }

    /// How many series there are, with what is left of former ones.
    pub fn series(&self) -> usize {
        self.calls.len() + self.edges.len()
    }

    /// How many of those that former writers left were let go of before their time, as there were too many.
    pub fn evicted_series(&self) -> u64 {
        self.calls.evicted() + self.edges.evicted()
    }

    /// What is told apart of a pod's calls, and how many series all of its recorders have.
    pub(super) fn bounds_of(&self, link: &Link) -> (Arc<Admission>, Arc<AtomicUsize>) {
        let mut bounds = self.bounds();
        let caller = link.caller.as_ref();
        let between = (caller.map(|caller| name_of(&caller.workload)), link.service_port.clone());
        let admission = Arc::clone(bounds.admissions.entry(between).or_default());
        let series = bounds.pods.entry(caller.map(|caller| Arc::clone(&caller.uid))).or_default();
        let of_pod = series.upgrade().unwrap_or_default();
        *series = Arc::downgrade(&of_pod);
        (admission, of_pod)
    }

    fn bounds(&self) -> MutexGuard<'_, Bounds> {
        // Maps are whole after every statement.
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
