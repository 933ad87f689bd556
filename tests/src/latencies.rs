//! How long calls took, as a histogram that clients print and tests subtract.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Steps from one duration to its double: a quantile is off by less than a tenth.
const STEPS: f64 = 8.0;

/// Counts of calls by how long they took, in microseconds, on a logarithmic scale of [`STEPS`] to the doubling.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies(BTreeMap<u16, u64>);

impl Latencies {
    /// Counts a call that took so long.
    pub fn record(&mut self, took: Duration) {
        let step = (took.as_micros().max(1) as f64).log2() * STEPS;
        *self.0.entry(step.round() as u16).or_default() += 1;
    }

    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(super::tally::minus(&self.0, &earlier.0))
    }

    /// Half of the calls took no longer; none without a call. A pause of the whole machine, which lengthens a few calls by much, moves it
    /// little.
    pub fn median(&self) -> Option<Duration> {
        let calls: u64 = self.0.values().sum();
        let mut passed = 0;
        let (&step, _) = self.0.iter().find(|&(_, &count)| {
            passed += count;
            passed * 2 >= calls
        })?;
        Some(Duration::from_micros((f64::from(step) / STEPS).exp2().round() as u64))
    }

    /// How many times as long as `before` the median is; none where either has no call.
    pub fn ratio_to(&self, before: &Self) -> Option<f64> {
        Some(self.median()?.as_secs_f64() / before.median()?.as_secs_f64())
    }
}

/// Short, as it stands among all else that a failed test has counted.
impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.median() {
            Some(median) => write!(f, "median {median:.1?}"),
            None => f.write_str("no call"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: &[u64]) -> Latencies {
        let mut latencies = Latencies::default();
        for &milliseconds in millis {
            latencies.record(Duration::from_millis(milliseconds));
        }
        latencies
    }

    fn is_near(latencies: &Latencies, milliseconds: f64) -> bool {
        let median = latencies.median().expect("there are calls").as_secs_f64() * 1e3;
        (median / milliseconds - 1.0).abs() < 0.1
    }

    #[test]
    fn the_median_is_that_of_the_calls_within_a_tenth() {
        for milliseconds in [1, 2, 3, 10, 70, 900] {
            assert!(is_near(&of(&[milliseconds]), milliseconds as f64), "{milliseconds}");
        }
        assert!(is_near(&of(&[1, 2, 10, 500, 5_000]), 10.0));
        assert_eq!(Latencies::default().median(), None);
    }

    #[test]
    fn what_was_counted_before_is_left_out_and_the_ratio_is_that_of_the_medians() {
        let before = of(&[1, 1, 1]);
        let now = of(&[1, 1, 1, 4, 4]);
        let beside = now.since(&before);
        assert!(is_near(&beside, 4.0));
        let ratio = beside.ratio_to(&before).expect("there are calls");
        assert!((ratio - 4.0).abs() < 0.5, "{ratio}");
    }
}
