//! Distributions, in buckets of which several metrics can be made.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of times, in nanoseconds. All of OTel's for RPC (5 ms to 10 s) and all of Istio's (0.5 ms to an hour) are among them;
/// a few more below tell the calls of one cluster apart.
pub(in crate::telemetry) const DURATION_BOUNDS_NS: [u64; 26] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
    600_000_000_000,
    1_800_000_000_000,
    3_600_000_000_000,
];

/// Upper bounds of sizes, in bytes: Istio's, which are Envoy's. The first stands for its 0.5.
pub(in crate::telemetry) const SIZE_BOUNDS: [u64; 19] = [
    0, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000,
    1_800_000, 3_600_000,
];

/// For each length in bits, the first bucket that a number of so many bits can be in.
const fn first_buckets<const N: usize>(bounds: [u64; N]) -> [u8; 65] {
    let mut first = [0; 65];
    let mut bits = 1;
    while bits <= 64 {
        let least = 1_u64 << (bits - 1);
        let mut bucket = 0;
        while bucket < N && bounds[bucket] < least {
            bucket += 1;
        }
        first[bits] = bucket as u8;
        bits += 1;
    }
    first
}

const FIRST_OF_DURATION: [u8; 65] = first_buckets(DURATION_BOUNDS_NS);
const FIRST_OF_SIZE: [u8; 65] = first_buckets(SIZE_BOUNDS);

/// The bucket of a number: that of the first bound that is not below it. An octave has three bounds at most.
#[inline]
fn bucket(bounds: &[u64], first: &[u8; 65], number: u64) -> usize {
    let mut bucket = usize::from(first[(64 - number.leading_zeros()) as usize]);
    while bucket < bounds.len() && number > bounds[bucket] {
        bucket += 1;
    }
    bucket
}

/// The bucket of a time.
#[inline]
pub(super) fn of_duration(ns: u64) -> usize {
    bucket(&DURATION_BOUNDS_NS, &FIRST_OF_DURATION, ns)
}

/// The bucket of a size.
#[inline]
pub(super) fn of_size(bytes: u64) -> usize {
    bucket(&SIZE_BOUNDS, &FIRST_OF_SIZE, bytes)
}

/// A number that one thread alone writes, and others read.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    /// Adds, which is for the one writer alone: a load and a store, nothing that other cores have to agree on.
    #[inline]
    pub(super) fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Reads all.
pub(super) fn read<const N: usize>(cells: &[Cell; N]) -> [u64; N] {
    std::array::from_fn(|index| cells[index].read())
}

/// Adds, number by number.
pub(in crate::telemetry) fn add<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// Below which time a part of the calls was, in nanoseconds, taken to be spread evenly over their bucket; `None` where there are none.
/// Of those beyond the last bound nothing is known but that.
pub(in crate::telemetry) fn duration_quantile(
    buckets: &[u64; DURATION_BOUNDS_NS.len() + 1],
    part: f64,
) -> Option<u64> {
    let all: u64 = buckets.iter().sum();
    let wanted = all as f64 * part;
    let mut below = 0;
    for (index, &count) in buckets.iter().enumerate() {
        if count > 0 && (below + count) as f64 >= wanted {
            let from = if index == 0 { 0 } else { DURATION_BOUNDS_NS[index - 1] };
            let to = DURATION_BOUNDS_NS.get(index).copied().unwrap_or(from);
            let share = (wanted - below as f64) / count as f64;
            return Some(from + ((to - from) as f64 * share.clamp(0.0, 1.0)) as u64);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_the_bucket_of_the_first_bound_that_is_not_below_it() {
        for bounds in [&DURATION_BOUNDS_NS[..], &SIZE_BOUNDS[..]] {
            let of = |number| if bounds.len() == 19 { of_size(number) } else { of_duration(number) };
            let around = bounds.iter().flat_map(|bound| [bound.saturating_sub(1), *bound, bound + 1]);
            for number in around.chain([0, 1, 2, 3, u64::MAX, 1 << 63]) {
                let expected = bounds.iter().position(|bound| number <= *bound).unwrap_or(bounds.len());
                assert_eq!(of(number), expected, "{number}");
            }
        }
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let mut buckets = [0; DURATION_BOUNDS_NS.len() + 1];
        assert_eq!(duration_quantile(&buckets, 0.5), None);
        buckets[of_duration(3_000_000)] = 90;
        buckets[of_duration(40_000_000)] = 10;
        for (part, from, to) in
            [(0.5, 2_500_000, 5_000_000), (0.9, 2_500_000, 5_000_000), (0.99, 25_000_000, 50_000_000)]
        {
            let found = duration_quantile(&buckets, part).expect("there are calls");
            assert!((from..=to).contains(&found), "{part}: {found}");
        }
        buckets[DURATION_BOUNDS_NS.len()] = 900;
        assert_eq!(duration_quantile(&buckets, 0.99), Some(3_600_000_000_000), "nothing more is known");
    }
}
