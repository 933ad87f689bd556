//! Which pods of the node pass an endpoint over at the moment, as it failed their calls.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

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
}

/// The end of the last ejection and the last bad health check of all that this process has known: until something fails, nobody has to
/// look at an endpoint for it.
static LAST_END_NS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy)]
struct Entry {
    source: u64,
    until_ns: u64,
}

impl LeftOut {
    /// Whether any endpoint of any Service may be left out by anybody.
    pub fn may_be_any(now_ns: u64) -> bool {
        LAST_END_NS.load(Relaxed) > now_ns
    }

    /// A source, by its hash, leaves the endpoint out until then.
    pub fn add(&self, source: u64, until_ns: u64, now_ns: u64) {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        by.retain(|entry| entry.source != source && entry.until_ns > now_ns);
        by.push(Entry { source, until_ns });
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
        let by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let own = by.iter().find(|entry| entry.source == source).map_or(0, |entry| entry.until_ns);
        own.max(until_for_all(&by)).max(unhealthy_until_ns)
    }

    /// How many sources leave it out, and whether all do.
    pub fn sources(&self, now_ns: u64) -> (usize, bool) {
        let by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by.iter().filter(|entry| entry.until_ns > now_ns).count();
        (count, until_for_all(&by) > now_ns)
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
        left_out.add(1, 100, 10);
        assert_eq!([1, 2, 3].map(|source| left_out.until_for(source, 10)), [100, 0, 0]);
        // The same one again, as another worker's calls met it.
        left_out.add(1, 120, 20);
        assert_eq!((left_out.until_for(2, 20), left_out.sources(20)), (0, (1, false)));
        left_out.add(2, 80, 30);
        assert_eq!([1, 2, 3].map(|source| left_out.until_for(source, 30)), [120, 80, 80]);
        assert_eq!(left_out.sources(30), (2, true));
        assert_eq!(left_out.sources(90), (1, false));
        assert_eq!([1, 2, 3].map(|source| left_out.until_for(source, 130)), [0, 0, 0]);
        assert_eq!(left_out.times(), 3);
        left_out.set_unhealthy(200);
        assert_eq!((left_out.until_for(9, 130), left_out.is_unhealthy(130)), (200, true));
        left_out.set_unhealthy(0);
        assert_eq!((left_out.until_for(9, 130), left_out.is_unhealthy(130)), (0, false));
    }
}
