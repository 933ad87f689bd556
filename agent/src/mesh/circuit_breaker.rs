//! What a Service says of its circuit breakers; what it does not say, the agent's flags do.

use super::key_values::{number, pairs};
use super::protection::CircuitLimits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much each source may have under way to a port of the Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CircuitBreaker {
    /// Calls under way.
    pub requests: Option<u32>,
    /// Of these, calls that wait for an endpoint or a stream.
    pub pending: Option<u32>,
    /// Connections to servers.
    pub connections: Option<u32>,
}

impl CircuitBreaker {
    /// The limits that hold where the flags say these.
    pub fn over(self, flags: CircuitLimits) -> CircuitLimits {
        CircuitLimits {
            calls: self.requests.unwrap_or(flags.calls),
            pending: self.pending.unwrap_or(flags.pending),
            connections: self.connections.unwrap_or(flags.connections),
        }
    }
}

impl FromStr for CircuitBreaker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut breaker = Self::default();
        for (key, value) in pairs(text, &["requests", "pending", "connections"])? {
            let limit = Some(number(key, value, 1, u32::MAX)?);
            match key {
                "requests" => breaker.requests = limit,
                "pending" => breaker.pending = limit,
                _ => breaker.connections = limit,
            }
        }
        Ok(breaker)
    }
}

impl fmt::Display for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits =
            [("requests", self.requests), ("pending", self.pending), ("connections", self.connections)];
        let said: Vec<_> =
            limits.iter().filter_map(|(key, limit)| Some(format!("{key}={}", (*limit)?))).collect();
        f.write_str(&said.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_says_the_limits_that_it_wants_and_leaves_the_others() {
        let flags = CircuitLimits { calls: 1_000, pending: 100, connections: 10 };
        for (text, calls, pending, connections) in [
            ("requests=100 pending=10 connections=4", 100, 10, 4),
            ("pending=7", 1_000, 7, 10),
            ("connections=2000 requests=4294967295", u32::MAX, 100, 2_000),
        ] {
            let breaker: CircuitBreaker = text.parse().unwrap();
            assert_eq!(breaker.over(flags), CircuitLimits { calls, pending, connections }, "{text}");
            assert_eq!(breaker.to_string().parse(), Ok(breaker));
        }
        assert_eq!(CircuitBreaker::default().over(flags), flags);
        for wrong in
            ["", "10", "requests=0", "requests=-1", "requests=4294967296", "calls=1", "pending=1 pending=2"]
        {
            assert!(wrong.parse::<CircuitBreaker>().is_err(), "{wrong}");
        }
    }
}
