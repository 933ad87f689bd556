//! What a client counted.

use crate::latencies::Latencies;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Calls by the server that answered, and errors by status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Completed calls by the name in the reply.
    pub calls: BTreeMap<String, u64>,
    /// Failed calls by gRPC status and message.
    pub errors: BTreeMap<String, u64>,
    /// Client addresses that servers saw.
    pub seen_as: BTreeMap<String, u64>,
    /// Connections that the client opened.
    #[serde(default)]
    pub connections: u64,
    /// Calls that the client cancelled.
    #[serde(default)]
    pub cancelled: u64,
    /// How long completed calls took; of the tonic client alone.
    #[serde(default)]
    pub latencies: Latencies,
}

impl Tally {
    /// The count of a line that a client printed, if it is one and whole.
    pub fn told(line: &str) -> Option<Self> {
        let json = line.strip_prefix("tally ").or_else(|| line.strip_prefix("done "))?;
        serde_json::from_str(json).ok()
    }

    /// Completed calls.
    pub fn completed(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Failed calls.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            calls: minus(&self.calls, &earlier.calls),
            errors: minus(&self.errors, &earlier.errors),
            seen_as: minus(&self.seen_as, &earlier.seen_as),
            connections: self.connections.saturating_sub(earlier.connections),
            cancelled: self.cancelled.saturating_sub(earlier.cancelled),
            latencies: self.latencies.since(&earlier.latencies),
        }
    }

    /// Checks that each of `servers`, and nobody else, got its share of the calls, ± `tolerance` of it.
    ///
    /// # Errors
    /// With the whole tally.
    pub fn is_even(&self, servers: &[&str], tolerance: f64) -> Result<()> {
        let names: Vec<&str> = self.calls.keys().map(String::as_str).collect();
        let mut expected = servers.to_vec();
        expected.sort_unstable();
        ensure!(names == expected, "calls went to {names:?}, not to {expected:?}: {self:?}");
        let share = self.completed() as f64 / servers.len() as f64;
        for (server, &calls) in &self.calls {
            let off = (calls as f64 - share).abs() / share;
            ensure!(off <= tolerance, "{server} got {calls} calls, its share is {share:.0}: {self:?}");
        }
        Ok(())
    }

    /// Checks that no call failed.
    ///
    /// # Errors
    /// With the whole tally.
    pub fn is_clean(&self) -> Result<()> {
        ensure!(self.failed() == 0, "calls failed: {self:?}");
        Ok(())
    }
}

pub(crate) fn minus<K: Clone + Ord>(
    later: &BTreeMap<K, u64>,
    earlier: &BTreeMap<K, u64>,
) -> BTreeMap<K, u64> {
    later
        .iter()
        .map(|(key, &count)| (key.clone(), count - earlier.get(key).copied().unwrap_or(0)))
        .filter(|&(_, count)| count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(calls: &[(&str, u64)]) -> Tally {
        Tally {
            calls: calls.iter().map(|&(name, count)| (name.to_owned(), count)).collect(),
            ..Tally::default()
        }
    }

    #[test]
    fn a_share_beyond_the_tolerance_is_not_even() {
        assert!(tally(&[("a", 95), ("b", 105)]).is_even(&["a", "b"], 0.1).is_ok());
        assert!(tally(&[("a", 80), ("b", 120)]).is_even(&["a", "b"], 0.1).is_err());
    }

    #[test]
    fn a_server_without_a_call_or_unknown_is_not_even() {
        assert!(tally(&[("a", 100)]).is_even(&["a", "b"], 0.1).is_err());
        assert!(tally(&[("a", 100), ("c", 100)]).is_even(&["a"], 0.1).is_err());
    }

    #[test]
    fn servers_without_calls_since_are_left_out() {
        let since = tally(&[("a", 5), ("b", 9)]).since(&tally(&[("a", 5), ("b", 2)]));
        assert_eq!(since, tally(&[("b", 7)]));
    }
}
