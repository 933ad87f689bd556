//! Distributions, as they are written.

use crate::telemetry::calls::histogram::{DURATION_BOUNDS_NS, SIZE_BOUNDS};
use crate::telemetry::{DurationBuckets, SizeBuckets};
use std::fmt::{self, Write as _};

/// A histogram of times, at some of the bounds that they are counted by; `unit_ns` is the unit that the metric has.
pub(super) fn durations(
    text: &mut String,
    name: &str,
    labels: &str,
    buckets: &DurationBuckets,
    bounds_ns: &[u64],
    sum_ns: u64,
    unit_ns: f64,
) -> fmt::Result {
    let (mut below, mut wanted) = (0, bounds_ns.iter().peekable());
    for (count, bound_ns) in buckets.iter().zip(DURATION_BOUNDS_NS) {
        below += count;
        if wanted.next_if_eq(&&bound_ns).is_some() {
            writeln!(text, "{name}_bucket{{{labels},le=\"{:?}\"}} {below}", bound_ns as f64 / unit_ns)?;
        }
    }
    debug_assert!(wanted.next().is_none(), "a bound that is not counted by");
    let all: u64 = buckets.iter().sum();
    writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {all}")?;
    writeln!(text, "{name}_sum{{{labels}}} {:?}\n{name}_count{{{labels}}} {all}", sum_ns as f64 / unit_ns)
}

/// A histogram of sizes.
pub(super) fn sizes(
    text: &mut String,
    name: &str,
    labels: &str,
    buckets: &SizeBuckets,
    sum: u64,
) -> fmt::Result {
    let mut below = 0;
    for (count, bound) in buckets.iter().zip(SIZE_BOUNDS) {
        below += count;
        let bound = if bound == 0 { 0.5 } else { bound as f64 };
        writeln!(text, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {below}")?;
    }
    let all: u64 = buckets.iter().sum();
    writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {all}")?;
    writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {all}")
}
