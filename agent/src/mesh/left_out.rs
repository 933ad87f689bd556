//! Which pods of the node pass an endpoint over at the moment, as it failed their calls.

use schemars::JsonSchema;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why an endpoint is left out for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EjectionReason {
    /// It failed so many calls in a row.
    ConsecutiveFailures,
    /// Its success rate is far below the others'.
    SuccessRate,
}

/// What a health check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckAnswer {
    /// It serves.
    Serving,
    /// It says that it does not.
    NotServing,
    /// It has said nothing, which counts for nothing.
    NoAnswer,
}

/// Who passes an endpoint over now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOutBy {
    /// How many sources.
    pub sources: usize,
    /// So many that all do.
    pub by_all: bool,
    /// When the last of them takes it back, in nanoseconds of the monotonic clock; 0 if none has it out.
    pub until_ns: u64,
    /// Why that one has it out.
    pub reason: Option<EjectionReason>,
}

/// Shared by the node's workers. What one pod has met is its own; what two or more have met holds for all.
///
/// The lock is taken when an endpoint is left out, and while it is, about once a second by each pod that calls it: never by a call.
#[derive(Debug, Default)]
pub struct LeftOut {
    by: Mutex<Vec<Entry>>,
    /// The last of all entries' ends.
    last_until_ns: AtomicU64,
    times: AtomicU64,
    /// Until when the answer to a health check takes it from everybody.
    unhealthy_until_ns: AtomicU64,
    /// The last health check's answer, and when it came.
    last_check: Mutex<Option<(CheckAnswer, u64)>>,
}

/// The end of the last ejection and the last bad health check of all that this process has known: until something fails, nobody has to
/// look at an endpoint for it.
static LAST_END_NS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy)]
struct Entry {
    source: u64,
    until_ns: u64,
    reason: EjectionReason,
}

impl LeftOut {
    /// Whether any endpoint of any Service may be left out by anybody.
    pub fn may_be_any(now_ns: u64) -> bool {
        LAST_END_NS.load(Relaxed) > now_ns
    }

    /// A source, by its hash, leaves the endpoint out until then.
    pub fn add(&self, source: u64, until_ns: u64, reason: EjectionReason, now_ns: u64) {
        let mut by = self.by();
        by.retain(|entry| entry.source != source && entry.until_ns > now_ns);
        by.push(Entry { source, until_ns, reason });
        self.last_until_ns.fetch_max(until_ns, Relaxed);
        LAST_END_NS.fetch_max(until_ns, Relaxed);
        self.times.fetch_add(1, Relaxed);
    }

    /// Until when a source leaves it out: because of what itself has met, or two others; 0 if it does not.
    pub fn until_for(&self, source: u64, now_ns: u64) -> u64 {
        let unhealthy_until_ns = self.unhealthy_until_ns();
        if self.last_until_ns.load(Relaxed) <= now_ns {
            return unhealthy_until_ns;
        }
        let by = self.by();
        let own = by.iter().find(|entry| entry.source == source).map_or(0, |entry| entry.until_ns);
        own.max(until_for_all(&by)).max(unhealthy_until_ns)
    }

    /// Who leaves it out now, and why.
    pub fn by_whom(&self, now_ns: u64) -> LeftOutBy {
        // Who looks takes no lock that a worker may want, unless there is something to see.
        if self.last_until_ns.load(Relaxed) <= now_ns {
            return LeftOutBy::default();
        }
        let by = self.by();
        let current = || by.iter().filter(|entry| entry.until_ns > now_ns);
        let last = current().max_by_key(|entry| entry.until_ns);
        LeftOutBy {
            sources: current().count(),
            by_all: until_for_all(&by) > now_ns,
            until_ns: last.map_or(0, |entry| entry.until_ns),
            reason: last.map(|entry| entry.reason),
        }
    }

    /// How many sources leave it out, and whether all do.
    pub fn sources(&self, now_ns: u64) -> (usize, bool) {
        let LeftOutBy { sources, by_all, .. } = self.by_whom(now_ns);
        (sources, by_all)
    }

    fn by(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its health check says that it does not serve, which holds until then; 0: that it does.
    pub fn set_unhealthy(&self, until_ns: u64) {
        self.unhealthy_until_ns.store(until_ns, Relaxed);
        LAST_END_NS.fetch_max(until_ns, Relaxed);
    }

    /// Until when its last health check takes it from everybody; 0: not at all.
    pub fn unhealthy_until_ns(&self) -> u64 {
        self.unhealthy_until_ns.load(Relaxed)
    }

    /// Whether its last health check said that it does not serve.
    pub fn is_unhealthy(&self, now_ns: u64) -> bool {
        self.unhealthy_until_ns() > now_ns
    }

    /// Notes what a health check came to.
    pub fn note_check(&self, answer: CheckAnswer, now_ns: u64) {
        *self.last_check.lock().unwrap_or_else(PoisonError::into_inner) = Some((answer, now_ns));
    }

    /// What the last health check came to, and when; `None` if there was none.
    pub fn last_check(&self) -> Option<(CheckAnswer, u64)> {
        *self.last_check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was left out by a source.
    pub fn times(&self) -> u64 {
        self.times.load(Relaxed)
    }
}

/// As long as two sources leave it out, all do.
fn until_for_all(by: &[Entry]) -> u64 {
    let (mut last, mut second) = (0, 0);
    for entry in by {
        second = second.max(last.min(entry.until_ns));
        last = last.max(entry.until_ns);
    }
    second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_source_has_met_is_its_own_and_what_two_have_met_is_everybodys() {
        let left_out = LeftOut::default();
        let failures = EjectionReason::ConsecutiveFailures;
        left_out.add(1, 100, failures, 10);
        assert_eq!([1, 2, 3].map(|source| left_out.until_for(source, 10)), [100, 0, 0]);
        // The same one again, as another worker's calls met it.
        left_out.add(1, 120, EjectionReason::SuccessRate, 20);
        assert_eq!((left_out.until_for(2, 20), left_out.sources(20)), (0, (1, false)));
        left_out.add(2, 80, failures, 30);
        assert_eq!([1, 2, 3].map(|source| left_out.until_for(source, 30)), [120, 80, 80]);
        assert_eq!(left_out.sources(30), (2, true));
        assert_eq!(left_out.sources(90), (1, false));
        assert_eq!([1, 2, 3].map(|source| left_out.until_for(source, 130)), [0, 0, 0]);
        let last = left_out.by_whom(30);
        assert_eq!((last.until_ns, last.reason), (120, Some(EjectionReason::SuccessRate)));
        assert_eq!(left_out.by_whom(130).reason, None);
        assert_eq!(left_out.times(), 3);
        left_out.set_unhealthy(200);
        assert_eq!((left_out.until_for(9, 130), left_out.is_unhealthy(130)), (200, true));
        left_out.set_unhealthy(0);
        assert_eq!((left_out.until_for(9, 130), left_out.is_unhealthy(130)), (0, false));
    }
}
