//! Series that worker threads write and scrapes read: where a scrape finds them. What stays of those whose writer is gone: [`super::past`].
//!
//! A writer owns an `Arc` of each of its series and takes no lock to write. To register a series it takes one that readers hold no longer
//! than a swap.

use super::past::Past;
use rustc_hash::FxHashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a worker thread writes.
pub(super) trait Series {
    /// What it is of.
    type Key: Clone + Debug + Eq + Hash;
    /// What of a key is told where it is told the most coarsely: keys of one of these end together.
    type Row: Clone + Debug + Eq + Hash;
    /// What series are summed up to.
    type Group: Clone + Debug + Eq + Hash;
    /// Whom a group is between. What is told of the groups of one of these is told of no other's, so they end together.
    type Pair: Clone + Debug + Eq + Hash;
    /// What a metric that knows no pair tells of a group, and where: it goes on when the group has ended, as long as anything is there.
    type Rest: Clone + Debug + Eq + Hash;
    /// Where that is.
    type Place: Clone + Debug + Eq + Hash;
    /// What is in it.
    type Counts: Clone + Debug + Default;

    fn key(&self) -> &Self::Key;
    fn row(key: &Self::Key) -> Self::Row;
    fn group(key: &Self::Key) -> Self::Group;
    fn pair(group: &Self::Group) -> Self::Pair;
    fn place(pair: &Self::Pair) -> Self::Place;
    /// `None`: every metric that tells of it knows its pair.
    fn rest(group: &Self::Group) -> Option<Self::Rest>;
    fn read(&self) -> Self::Counts;
    fn add(sum: &mut Self::Counts, more: &Self::Counts);
}

/// All series of one kind.
#[derive(Debug)]
pub(super) struct Family<S: Series> {
    /// Those that no reader has seen yet.
    new: Mutex<Vec<Arc<S>>>,
    /// For readers alone.
    known: Mutex<Known<S>>,
}

#[derive(Debug)]
struct Known<S: Series> {
    live: Vec<Arc<S>>,
    past: Past<S>,
}

impl<S: Series> Default for Family<S> {
    fn default() -> Self {
        let known = Known { live: Vec::new(), past: Past::default() };
        Self { new: Mutex::default(), known: Mutex::new(known) }
    }
}

/// Series by their keys.
pub(super) type Rows<S> = FxHashMap<<S as Series>::Key, <S as Series>::Counts>;
/// Series by their groups.
pub(super) type Groups<S> = FxHashMap<<S as Series>::Group, <S as Series>::Counts>;

/// What is told of one place without its pairs.
pub(super) type Remains<S> = FxHashMap<<S as Series>::Rest, <S as Series>::Counts>;

/// And of all places.
pub(super) type AllRemains<S> = Vec<((<S as Series>::Place, <S as Series>::Rest), <S as Series>::Counts)>;

/// Series, summed up.
#[derive(Debug)]
pub(super) struct Sums<S: Series> {
    pub(super) groups: Groups<S>,
    /// Of groups that have ended.
    pub(super) rest: AllRemains<S>,
}

impl<S: Series> Family<S> {
    /// Makes a series known to readers.
    pub(super) fn register(&self, series: S) -> Arc<S> {
        let series = Arc::new(series);
        lock(&self.new).push(Arc::clone(&series));
        series
    }

    /// All series, those of several writers that have one key summed up.
    pub(super) fn rows(&self, now: Instant) -> Rows<S> {
        let mut known = lock(&self.known);
        let mut rows = self.gather(now, &mut known);
        known.past.add_rows(&mut rows, now);
        rows
    }

    /// All series, summed up by their groups.
    pub(super) fn sums(&self, now: Instant) -> Sums<S> {
        let mut known = lock(&self.known);
        let mut rows = self.gather(now, &mut known);
        known.past.add_rows(&mut rows, now);
        let mut groups: Groups<S> = Groups::<S>::default();
        for (key, counts) in rows {
            S::add(groups.entry(S::group(&key)).or_default(), &counts);
        }
        known.past.add_groups(&mut groups, now);
        Sums { groups, rest: known.past.rest() }
    }

    /// How many series there are, with the former ones that are still told.
    pub(super) fn len(&self) -> usize {
        let known = lock(&self.known);
        lock(&self.new).len() + known.live.len() + known.past.len()
    }

    /// How many former ones were let go of before their time, as there were too many.
    pub(super) fn evicted(&self) -> u64 {
        lock(&self.known).past.evicted()
    }

    /// The series that have a writer. What those that have none any more hold is taken in.
    fn gather(&self, now: Instant, Known { live, past }: &mut Known<S>) -> Rows<S> {
        // All that a writer ever waits for.
        let mut new = std::mem::take(&mut *lock(&self.new));
        live.append(&mut new);
        let mut rows = Rows::<S>::default();
        let mut index = 0;
        while index < live.len() {
            if Arc::strong_count(&live[index]) > 1 {
                let series = &live[index];
                S::add(rows.entry(series.key().clone()).or_default(), &series.read());
                index += 1;
            } else if let Some(series) = Arc::into_inner(live.swap_remove(index)) {
                // The last reference, taken: everything that its writer wrote is seen.
                past.take_in(series.key(), &series.read(), now);
            }
        }
        rows
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts are whole after every statement: a panic of another thread leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Cell;
    use super::super::past::{KEPT_FOR, MOST_LEFT, MOST_SILENT_PAIRS, PAIR_KEPT_FOR};
    use super::*;
    use std::time::Duration;

    /// Of a pair at a place, of some kind, by some writer.
    type Key = (u8, u32, u8, u32);

    #[derive(Debug)]
    struct One {
        key: Key,
        count: Cell,
    }

    impl Series for One {
        type Key = Key;
        type Row = Key;
        type Group = (u8, u32, u8);
        type Pair = (u8, u32);
        type Rest = u8;
        type Place = u8;
        type Counts = u64;

        fn key(&self) -> &Key {
            &self.key
        }

        fn row(key: &Key) -> Key {
            *key
        }

        fn group(&(place, pair, kind, _): &Key) -> (u8, u32, u8) {
            (place, pair, kind)
        }

        fn pair(&(place, pair, _): &(u8, u32, u8)) -> (u8, u32) {
            (place, pair)
        }

        fn place(pair: &(u8, u32)) -> u8 {
            pair.0
        }

        fn rest(group: &(u8, u32, u8)) -> Option<u8> {
            Some(group.2)
        }

        fn read(&self) -> u64 {
            self.count.read()
        }

        fn add(sum: &mut u64, more: &u64) {
            *sum += more;
        }
    }

    fn series(family: &Family<One>, key: Key, count: u64) -> Arc<One> {
        let series = family.register(One { key, count: Cell::default() });
        series.count.add(count);
        series
    }

    /// What a metric tells that knows neither pair nor writer.
    fn of_kind(family: &Family<One>, place: u8, kind: u8, now: Instant) -> u64 {
        let sums = family.sums(now);
        let groups = sums.groups.iter().filter(|((at, _, of), _)| (*at, *of) == (place, kind));
        let rest = sums.rest.iter().filter(|((at, of), _)| (*at, *of) == (place, kind));
        groups.map(|(_, count)| count).chain(rest.map(|(_, count)| count)).sum()
    }

    /// What one tells that knows the pair, and not the kind.
    fn of_pair(family: &Family<One>, pair: (u8, u32), now: Instant) -> u64 {
        family
            .sums(now)
            .groups
            .iter()
            .filter(|(group, _)| One::pair(group) == pair)
            .map(|(_, count)| count)
            .sum()
    }

    #[test]
    fn a_row_stays_whole_while_it_has_a_writer_and_a_while_without_one() {
        let family = Family::default();
        let start = Instant::now();
        let (one, same, other) = (
            series(&family, (1, 1, 1, 1), 3),
            series(&family, (1, 1, 1, 1), 4),
            series(&family, (1, 1, 1, 2), 10),
        );
        assert_eq!((family.rows(start)[&(1, 1, 1, 1)], of_kind(&family, 1, 1, start)), (7, 17));
        drop((one, other));
        for minutes in [0, 10, 14, 16, 60, 1_000] {
            let now = start + Duration::from_secs(minutes * 60);
            assert_eq!(of_kind(&family, 1, 1, now), 17, "after {minutes} minutes");
            assert_eq!(family.rows(now)[&(1, 1, 1, 1)], 7, "one writer is left: its row stays whole");
            assert_eq!(family.rows(now).contains_key(&(1, 1, 1, 2)), minutes < 15, "after {minutes} minutes");
        }
        drop(same);
    }

    #[test]
    fn no_sum_falls_while_anything_of_it_goes_on_and_in_the_end_nothing_is_left() {
        let family = Family::default();
        let start = Instant::now();
        // A pair calls one kind once and goes on with another; a second pair's writers end.
        let once = series(&family, (1, 1, 1, 1), 5);
        let goes_on = series(&family, (1, 1, 2, 1), 7);
        let ends = series(&family, (1, 2, 1, 1), 11);
        assert_eq!((of_kind(&family, 1, 1, start), of_pair(&family, (1, 1), start)), (16, 12));
        drop((once, ends));
        let mut end = start;
        for minutes in (0..=600).step_by(10) {
            end = start + Duration::from_secs(minutes * 60);
            assert_eq!(of_kind(&family, 1, 1, end), 16, "after {minutes} minutes");
            assert_eq!(of_pair(&family, (1, 1), end), 12, "after {minutes} minutes");
            let of_second = of_pair(&family, (1, 2), end);
            assert_eq!(of_second, if minutes < 15 + 120 { 11 } else { 0 }, "after {minutes} minutes");
        }
        // The last writer goes: its row after a while, its pair after another, and what is left of the place at the very end.
        drop(goes_on);
        assert_eq!(of_pair(&family, (1, 1), end), 12);
        end += KEPT_FOR;
        assert_eq!((of_pair(&family, (1, 1), end), family.rows(end).len()), (12, 0));
        end += PAIR_KEPT_FOR;
        assert_eq!(
            (of_pair(&family, (1, 1), end), of_kind(&family, 1, 1, end)),
            (0, 16),
            "all of it at once"
        );
        end += PAIR_KEPT_FOR;
        assert_eq!(of_kind(&family, 1, 1, end), 0);
        assert_eq!(
            (family.len(), family.evicted()),
            (0, 0),
            "nothing is left over, nothing went before its time"
        );
    }

    #[test]
    fn a_writer_that_comes_back_goes_on_where_its_key_was() {
        let family = Family::default();
        let start = Instant::now();
        for time in 0..100 {
            let now = start + Duration::from_secs(60 * time);
            drop(series(&family, (1, 1, 1, 1), 1));
            assert_eq!(family.rows(now)[&(1, 1, 1, 1)], time + 1);
            assert_eq!(family.len(), 1, "what former writers left is one row");
        }
    }

    #[test]
    fn of_very_many_former_writers_the_last_stay_and_sums_do_not_fall() {
        let family = Family::default();
        let start = Instant::now();
        let stays = series(&family, (1, 0, 1, 0), 1);
        let most = MOST_LEFT as u32;
        let mut sum = 1;
        for (minute, pairs) in [0..most / 2, most / 2..most, most..most * 5 / 4].into_iter().enumerate() {
            for pair in pairs {
                drop(series(&family, (1, pair, 1, 1), 1));
                sum += 1;
            }
            let now = start + Duration::from_secs(60 * minute as u64);
            assert_eq!(of_kind(&family, 1, 1, now), sum);
            assert!(family.len() <= MOST_LEFT + MOST_SILENT_PAIRS + 10, "{}", family.len());
        }
        assert!(family.evicted() >= u64::from(most / 4), "{}", family.evicted());
        let rows = family.rows(start + Duration::from_secs(120));
        assert!(rows.contains_key(&(1, most, 1, 1)), "the last of them is there");
        assert_eq!(rows[&(1, 0, 1, 0)], 1, "what has a writer is no part of it");
        drop(stays);
    }

    #[test]
    fn a_writer_does_not_wait_for_a_reader_that_walks_all_series() {
        let family = Family::default();
        let known = lock(&family.known);
        // A reader is in the middle of its walk: this would wait for ever.
        let new = series(&family, (1, 1, 1, 1), 1);
        drop(known);
        assert_eq!(family.rows(Instant::now())[new.key()], 1);
    }
}
