//! What stays of series whose writer is gone.
//!
//! Counters must not fall while anything of what they sum up is left: a monitoring system takes a smaller number for a new beginning, and the
//! rest for calls of that moment. So what a writer leaves stays, as numbers: under its own key, until nothing has been of its row for
//! [`KEPT_FOR`]; then as a part of its
//! group's sum, until nothing has been between the group's pair for [`PAIR_KEPT_FOR`], when all groups of the pair end together; and of what
//! is told without pairs, until nothing has been at the place for as long again.

use super::family::{AllRemains, Groups, Remains, Rows, Series};
use rustc_hash::{FxHashMap, FxHashSet};
use std::time::{Duration, Instant};

/// How long a series without a writer is still shown: several scrapes.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(15 * 60);
/// How long a pair of which no series is left is still told: clients of a batch job come back each hour.
pub(super) const PAIR_KEPT_FOR: Duration = Duration::from_secs(2 * 3600);

/// Former series by key, and groups of former ones: some hundred bytes each, 20 MB at most. Rolling a Service of a hundred endpoints leaves a
/// few hundred for each pod that calls it. Beyond, what has been silent for longest goes before its time.
pub(super) const MOST_LEFT: usize = 50_000;
/// Pairs of which no series is left: a scrape tells of each with 50 KB or more, under Istio's names.
pub(super) const MOST_SILENT_PAIRS: usize = 1_000;

/// What former writers left.
#[derive(Debug)]
pub(super) struct Past<S: Series> {
    keys: FxHashMap<S::Key, Left<S::Counts>>,
    pairs: FxHashMap<S::Pair, Left<Groups<S>>>,
    places: FxHashMap<S::Place, Left<Remains<S>>>,
    evicted: u64,
}

#[derive(Debug)]
struct Left<C> {
    counts: C,
    /// When a writer was last seen.
    seen: Instant,
}

impl<C: Default> Left<C> {
    fn at(seen: Instant) -> Self {
        Self { counts: C::default(), seen }
    }
}

impl<S: Series> Default for Past<S> {
    fn default() -> Self {
        let (keys, pairs, places) = (FxHashMap::default(), FxHashMap::default(), FxHashMap::default());
        Self { keys, pairs, places, evicted: 0 }
    }
}

impl<S: Series> Past<S> {
    /// A writer has gone.
    pub(super) fn take_in(&mut self, key: &S::Key, counts: &S::Counts, now: Instant) {
        let left = self.keys.entry(key.clone()).or_insert_with(|| Left::at(now));
        left.seen = now;
        S::add(&mut left.counts, counts);
    }

    /// Adds former series to those that have a writer.
    pub(super) fn add_rows(&mut self, rows: &mut Rows<S>, now: Instant) {
        let live: FxHashSet<S::Row> = rows.keys().map(S::row).collect();
        for (key, left) in &mut self.keys {
            if live.contains(&S::row(key)) {
                left.seen = now;
            }
        }
        let over = self.keys.extract_if(|_, left| now.duration_since(left.seen) >= KEPT_FOR);
        let mut gone: Vec<_> = over.collect();
        let surplus = self.keys.len().saturating_sub(MOST_LEFT);
        if surplus > 0 {
            let mut seen: Vec<_> = self.keys.iter().map(|(key, left)| (left.seen, key.clone())).collect();
            seen.select_nth_unstable_by_key(surplus - 1, |(seen, _)| *seen);
            let oldest = seen.drain(..surplus);
            gone.extend(oldest.filter_map(|(_, key)| self.keys.remove_entry(&key)));
            self.evicted += surplus as u64;
        }
        for (key, left) in gone {
            let group = S::group(&key);
            let pair = self.pairs.entry(S::pair(&group)).or_insert_with(|| Left::at(now));
            pair.seen = now;
            S::add(pair.counts.entry(group).or_default(), &left.counts);
        }
        for (key, left) in &self.keys {
            S::add(rows.entry(key.clone()).or_default(), &left.counts);
        }
    }

    /// Adds the groups of former series to those of [rows](Self::add_rows).
    pub(super) fn add_groups(&mut self, groups: &mut Groups<S>, now: Instant) {
        self.end_pairs(&groups.keys().map(S::pair).collect(), now);
        self.end_places(&groups.keys().map(|group| S::place(&S::pair(group))).collect(), now);
        for (group, counts) in self.pairs.values().flat_map(|pair| &pair.counts) {
            S::add(groups.entry(group.clone()).or_default(), counts);
        }
    }

    /// Ends what is left of pairs that have been silent for long, or for longest of too many.
    fn end_pairs(&mut self, live: &FxHashSet<S::Pair>, now: Instant) {
        for (_, left) in self.pairs.iter_mut().filter(|(pair, _)| live.contains(pair)) {
            left.seen = now;
        }
        let mut gone: Vec<_> =
            self.pairs.extract_if(|_, left| now.duration_since(left.seen) >= PAIR_KEPT_FOR).collect();
        let mut silent = self.pairs.keys().filter(|pair| !live.contains(pair)).count();
        let mut held: usize = self.pairs.values().map(|left| left.counts.len()).sum();
        if silent > MOST_SILENT_PAIRS || held > MOST_LEFT {
            let mut oldest: Vec<_> =
                self.pairs.iter().map(|(pair, left)| (left.seen, pair.clone())).collect();
            oldest.sort_unstable_by_key(|(seen, _)| *seen);
            for (_, pair) in oldest {
                if silent <= MOST_SILENT_PAIRS && held <= MOST_LEFT {
                    break;
                }
                let Some(entry) = self.pairs.remove_entry(&pair) else { continue };
                silent -= usize::from(!live.contains(&pair));
                held -= entry.1.counts.len();
                self.evicted += entry.1.counts.len() as u64;
                gone.push(entry);
            }
        }
        for (pair, left) in gone {
            for (group, counts) in left.counts {
                let Some(rest) = S::rest(&group) else { continue };
                let place = self.places.entry(S::place(&pair)).or_insert_with(|| Left::at(now));
                place.seen = now;
                S::add(place.counts.entry(rest).or_default(), &counts);
            }
        }
    }

    /// Ends what is left at places where nothing has been for long, or for longest where that is too much.
    fn end_places(&mut self, live: &FxHashSet<S::Place>, now: Instant) {
        let left_behind: FxHashSet<S::Place> = self.pairs.keys().map(S::place).collect();
        for (_, left) in
            self.places.iter_mut().filter(|(place, _)| live.contains(place) || left_behind.contains(place))
        {
            left.seen = now;
        }
        self.places.retain(|_, left| now.duration_since(left.seen) < PAIR_KEPT_FOR);
        let mut held: usize = self.places.values().map(|left| left.counts.len()).sum();
        while held > MOST_LEFT {
            let oldest = self.places.iter().min_by_key(|(_, left)| left.seen).map(|(place, _)| place.clone());
            let Some(left) = oldest.and_then(|place| self.places.remove(&place)) else { break };
            held -= left.counts.len();
            self.evicted += left.counts.len() as u64;
        }
    }

    /// What is left of groups that have ended.
    pub(super) fn rest(&self) -> AllRemains<S> {
        let of = |(place, left): (&S::Place, &Left<Remains<S>>)| {
            let at = |(rest, counts): (&S::Rest, &S::Counts)| ((place.clone(), rest.clone()), counts.clone());
            left.counts.iter().map(at).collect::<Vec<_>>()
        };
        self.places.iter().flat_map(of).collect()
    }

    /// How much there is of it.
    pub(super) fn len(&self) -> usize {
        let groups: usize = self.pairs.values().map(|left| left.counts.len()).sum();
        let rest: usize = self.places.values().map(|left| left.counts.len()).sum();
        self.keys.len() + groups + rest
    }

    /// What was let go of before its time.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}
