//! Series that worker threads write and scrapes read: where a scrape finds them, and what stays of those whose writer is gone.
//!
//! A writer owns an `Arc` of each of its series and takes no lock to write. Locked are a new series' registration, and the moment in which
//! a reader copies the list.
//!
//! Counters must not fall while anything of what they sum up is left: a monitoring system takes a smaller number for a new beginning. So
//! what a writer leaves stays, as numbers, for [`KEPT_FOR`] under its own key, and then as a part of its group's sum, until the whole group
//! has been silent for [`GROUP_KEPT_FOR`].

use rustc_hash::FxHashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a series without a writer is still shown: several scrapes.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(15 * 60);
/// How long a group of which no series is left is still shown: clients of a batch job come back each hour.
pub(super) const GROUP_KEPT_FOR: Duration = Duration::from_secs(2 * 3600);

/// What a worker thread writes.
pub(super) trait Series {
    /// What it is of.
    type Key: Clone + Debug + Eq + Hash;
    /// What series are summed up to.
    type Group: Clone + Debug + Eq + Hash;
    /// What is in it.
    type Counts: Clone + Debug + Default;

    fn key(&self) -> &Self::Key;
    fn group(key: &Self::Key) -> Self::Group;
    fn read(&self) -> Self::Counts;
    fn add(sum: &mut Self::Counts, more: &Self::Counts);
}

/// All series of one kind.
#[derive(Debug)]
pub(super) struct Family<S: Series> {
    live: Mutex<Vec<Arc<S>>>,
    /// For readers alone.
    past: Mutex<Past<S>>,
}

#[derive(Debug)]
struct Past<S: Series> {
    keys: FxHashMap<S::Key, Left<S::Counts>>,
    groups: FxHashMap<S::Group, Left<S::Counts>>,
}

/// What former writers left.
#[derive(Debug)]
struct Left<C> {
    counts: C,
    /// When a writer was last seen.
    seen: Instant,
}

impl<S: Series> Default for Family<S> {
    fn default() -> Self {
        let past = Past { keys: FxHashMap::default(), groups: FxHashMap::default() };
        Self { live: Mutex::default(), past: Mutex::new(past) }
    }
}

type Rows<S> = FxHashMap<<S as Series>::Key, <S as Series>::Counts>;

impl<S: Series> Family<S> {
    /// Makes a series known to readers.
    pub(super) fn register(&self, series: S) -> Arc<S> {
        let series = Arc::new(series);
        lock(&self.live).push(Arc::clone(&series));
        series
    }

    /// All series, those of several writers that have one key summed up.
    pub(super) fn rows(&self, now: Instant) -> Rows<S> {
        self.gather(now, &mut lock(&self.past))
    }

    /// All series, summed up by their groups.
    pub(super) fn groups(&self, now: Instant) -> FxHashMap<S::Group, S::Counts> {
        let mut past = lock(&self.past);
        let mut groups: FxHashMap<S::Group, S::Counts> = FxHashMap::default();
        for (key, counts) in self.gather(now, &mut past) {
            S::add(groups.entry(S::group(&key)).or_default(), &counts);
        }
        past.groups.retain(|group, left| {
            if groups.contains_key(group) {
                left.seen = now;
            }
            now.duration_since(left.seen) < GROUP_KEPT_FOR
        });
        for (group, left) in &past.groups {
            S::add(groups.entry(group.clone()).or_default(), &left.counts);
        }
        groups
    }

    /// Takes in what writers have left, so that it does not pile up where nobody reads.
    pub(super) fn tidy(&self, now: Instant) {
        drop(self.groups(now));
    }

    /// How many series there are, with the former ones that are still shown.
    pub(super) fn len(&self) -> usize {
        let past = lock(&self.past);
        lock(&self.live).len() + past.keys.len() + past.groups.len()
    }

    fn gather(&self, now: Instant, past: &mut Past<S>) -> Rows<S> {
        let (live, left) = self.take_left();
        for series in left {
            let found = past.keys.entry(series.key().clone());
            let found = found.or_insert_with(|| Left { counts: S::Counts::default(), seen: now });
            found.seen = now;
            S::add(&mut found.counts, &series.read());
        }
        let mut rows: Rows<S> = FxHashMap::default();
        for series in &live {
            S::add(rows.entry(series.key().clone()).or_default(), &series.read());
        }
        let groups = &mut past.groups;
        past.keys.retain(|key, left| {
            if rows.contains_key(key) {
                left.seen = now;
            }
            let stays = now.duration_since(left.seen) < KEPT_FOR;
            if !stays {
                let group = groups.entry(S::group(key));
                let group = group.or_insert_with(|| Left { counts: S::Counts::default(), seen: now });
                S::add(&mut group.counts, &left.counts);
                group.seen = now;
            }
            stays
        });
        for (key, left) in &past.keys {
            S::add(rows.entry(key.clone()).or_default(), &left.counts);
        }
        rows
    }

    /// The series that have a writer, and those that have none any more, which are off the list now.
    fn take_left(&self) -> (Vec<Arc<S>>, Vec<S>) {
        let mut live = lock(&self.live);
        let mut left = Vec::new();
        let mut index = 0;
        while index < live.len() {
            if Arc::strong_count(&live[index]) > 1 {
                index += 1;
            } else if let Some(series) = Arc::into_inner(live.swap_remove(index)) {
                // The last reference, taken: everything that its writer wrote is seen.
                left.push(series);
            }
        }
        (live.clone(), left)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts are whole after every statement: a panic of another thread leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Cell;
    use super::*;

    struct One {
        key: (u8, u8),
        count: Cell,
    }

    impl Series for One {
        type Key = (u8, u8);
        type Group = u8;
        type Counts = u64;

        fn key(&self) -> &(u8, u8) {
            &self.key
        }

        fn group(key: &(u8, u8)) -> u8 {
            key.0
        }

        fn read(&self) -> u64 {
            self.count.read()
        }

        fn add(sum: &mut u64, more: &u64) {
            *sum += more;
        }
    }

    fn series(family: &Family<One>, key: (u8, u8), count: u64) -> Arc<One> {
        let series = family.register(One { key, count: Cell::default() });
        series.count.add(count);
        series
    }

    #[test]
    fn a_groups_sum_never_falls_while_anything_of_it_is_left() {
        let family = Family::default();
        let start = Instant::now();
        let (one, same, other) =
            (series(&family, (1, 1), 3), series(&family, (1, 1), 4), series(&family, (1, 2), 10));
        assert_eq!((family.rows(start)[&(1, 1)], family.groups(start)[&1]), (7, 17));
        drop((one, other));
        for minutes in [0, 10, 14, 16, 60, 1_000] {
            let now = start + Duration::from_secs(minutes * 60);
            assert_eq!(family.groups(now)[&1], 17, "after {minutes} minutes");
            assert_eq!(family.rows(now)[&(1, 1)], 7, "one writer is left: its row stays whole");
            assert_eq!(family.rows(now).contains_key(&(1, 2)), minutes < 15, "after {minutes} minutes");
        }
        // The last writer goes: its row after a while, and the group after another.
        drop(same);
        let end = start + Duration::from_secs(1_000 * 60);
        assert_eq!(family.groups(end)[&1], 17);
        let end = end + KEPT_FOR;
        assert_eq!((family.groups(end)[&1], family.rows(end).len()), (17, 0));
        assert!(family.groups(end + GROUP_KEPT_FOR).is_empty());
        assert_eq!(family.len(), 0, "nothing is left over");
    }

    #[test]
    fn a_writer_that_comes_back_goes_on_where_its_key_was() {
        let family = Family::default();
        let start = Instant::now();
        for time in 0..100 {
            let now = start + Duration::from_secs(60 * time);
            drop(series(&family, (1, 1), 1));
            assert_eq!(family.rows(now)[&(1, 1)], time + 1);
            assert_eq!(family.len(), 1, "what former writers left is one row");
        }
    }
}
