//! Which traces are let through, decided by their ids: all agents, and all SDKs that decide likewise, decide alike on one trace.

use schemars::JsonSchema;
use serde::Serialize;
use std::str::FromStr;

/// A part of all traces, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Ratio(f64);

/// The random bits of a trace id: its last seven bytes (W3C Trace Context level 2, "Random Trace ID Flag").
const RANDOM_BITS: u32 = 56;

impl Ratio {
    /// No trace.
    pub const NONE: Self = Self(0.0);
    /// Every trace.
    pub const ALL: Self = Self(1.0);

    /// Random numbers below this are not let through (OpenTelemetry's consistent probability sampling: the rejection threshold). What
    /// is let through at a lower ratio is so at every higher one.
    pub(super) fn threshold(self) -> u64 {
        ((1.0 - self.0) * (1u64 << RANDOM_BITS) as f64) as u64
    }
}

/// Whether a trace is let through at that threshold.
pub(super) fn lets_through(threshold: u64, trace_id: u128) -> bool {
    trace_id as u64 & ((1 << RANDOM_BITS) - 1) >= threshold
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or_else(|| "expected a number from 0 to 1, as 0.01".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Random;

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        for (text, expected) in
            [("0", Ratio::NONE), ("1", Ratio::ALL), ("0.25", Ratio(0.25)), ("1e-3", Ratio(0.001))]
        {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "-0.1", "1.01", "NaN", "inf", "50%", "a"] {
            assert!(bad.parse::<Ratio>().is_err(), "{bad}");
        }
    }

    #[test]
    fn as_many_traces_are_let_through_as_the_ratio_says_and_those_of_a_lower_ratio_among_them() {
        let mut random = Random::new(1);
        let ids: Vec<u128> =
            (0..100_000).map(|_| u128::from(random.next()) << 64 | u128::from(random.next())).collect();
        let of = |ratio: f64| -> Vec<u128> {
            let threshold = Ratio(ratio).threshold();
            ids.iter().copied().filter(|id| lets_through(threshold, *id)).collect()
        };
        assert_eq!((of(0.0).len(), of(1.0).len()), (0, ids.len()));
        for ratio in [0.01, 0.1, 0.5] {
            let share = of(ratio).len() as f64 / ids.len() as f64;
            assert!((share - ratio).abs() < 0.01, "{share} of {ratio}");
        }
        let half = of(0.5);
        assert!(of(0.1).iter().all(|id| half.contains(id)));
    }

    #[test]
    fn ids_of_64_bits_are_decided_alike() {
        // The bytes before the last seven say nothing.
        let threshold = Ratio(0.5).threshold();
        for id in [0x0080_0000_0000_0000, 0xff80_0000_0000_0000, 0x1 << 64 | 0x80_0000_0000_0000] {
            assert!(lets_through(threshold, id), "{id:x}");
        }
        assert!(!lets_through(threshold, 0xff7f_ffff_ffff_ffff));
    }
}
