//! How a Service's owner wants its calls spread over the endpoints, and what to do when they fail.

use super::{CircuitBreaker, RetryPolicy};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a Service says about its calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balancing {
    /// How an endpoint is chosen.
    pub picker: Picker,
    /// What the pickers that hash go by.
    pub hash_on: HashOn,
    /// When an endpoint that fails calls is left out for a time.
    pub ejection: Ejection,
    /// How long a new endpoint takes to get its whole share.
    pub slow_start: SlowStart,
    /// Whether and how its endpoints are asked for their health.
    pub health_check: HealthCheck,
    /// When a call that failed is sent again.
    pub retry: Option<RetryPolicy>,
    /// How much each source may have under way.
    pub circuit_breaker: CircuitBreaker,
}

impl From<Picker> for Balancing {
    fn from(picker: Picker) -> Self {
        Self { picker, ..Self::default() }
    }
}

/// How an endpoint is chosen for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Picker {
    /// The better of two random endpoints by EWMA latency × (active calls + 1).
    #[default]
    Ewma,
    /// The one of two random endpoints that has fewer calls under way.
    LeastRequest,
    /// Each endpoint in turn.
    RoundRobin,
    /// Any.
    Random,
    /// Equal hashes go to one endpoint, by the next point on a ring.
    RingHash,
    /// Equal hashes go to one endpoint, by a look-up table.
    Maglev,
    /// All calls of a source pod go to one endpoint, for as long as that may serve (`sessionAffinity: ClientIP`).
    SourceHash,
}

impl Picker {
    /// Those that a Service may ask for, by name.
    pub const NAMED: [(&'static str, Self); 6] = [
        ("ewma", Self::Ewma),
        ("least-request", Self::LeastRequest),
        ("round-robin", Self::RoundRobin),
        ("random", Self::Random),
        ("ring-hash", Self::RingHash),
        ("maglev", Self::Maglev),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let named = Self::NAMED.iter().find(|(_, picker)| *picker == self);
        named.map_or("source-hash", |(name, _)| name)
    }

    /// Whether it leads a key to one endpoint, of all that there are.
    pub fn is_by_hash(self) -> bool {
        self.has_table() || self == Self::SourceHash
    }

    /// Whether it goes by [`HashOn`], over a [`HashTable`](super::HashTable).
    pub fn has_table(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// When an endpoint that fails calls is left out for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ejection {
    /// When it has failed several in a row.
    #[default]
    ConsecutiveFailures,
    /// Then, and when its success rate is far below the others'.
    SuccessRate,
    /// Never.
    Off,
}

impl Ejection {
    /// By name.
    pub const NAMED: [(&'static str, Self); 3] = [
        ("consecutive-failures", Self::ConsecutiveFailures),
        ("success-rate", Self::SuccessRate),
        ("off", Self::Off),
    ];
}

/// Whether endpoints are asked for their health, by `grpc.health.v1.Health/Check`, and for which service of theirs: the empty name
/// stands for the server as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthCheck(pub Option<Arc<str>>);

impl FromStr for HealthCheck {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let name = if text == "grpc" { Some("") } else { text.strip_prefix("grpc:") };
        let name = name.filter(|name| name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_graphic()));
        Ok(Self(Some(name.ok_or("not \"grpc\" or \"grpc:SERVICE\" with the name of a gRPC service")?.into())))
    }
}

/// How long a new endpoint takes to get its whole share; by default no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlowStart {
    seconds: u32,
}

impl SlowStart {
    /// The longest: whoever waits longer waits for something else.
    pub const MOST_SECONDS: u32 = 3600;

    /// In nanoseconds.
    pub fn as_ns(self) -> u64 {
        u64::from(self.seconds) * 1_000_000_000
    }
}

impl FromStr for SlowStart {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "not a time of 1s to 3600s, as \"30s\" or \"2m\"";
        let (unit, digits) = match text.strip_suffix('m') {
            Some(digits) => (60, digits),
            None => (1, text.strip_suffix('s').ok_or(WRONG)?),
        };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let seconds =
            digits.parse().ok().filter(|_| is_number).and_then(|number: u32| number.checked_mul(unit));
        let seconds = seconds.filter(|seconds| (1..=Self::MOST_SECONDS).contains(seconds)).ok_or(WRONG)?;
        Ok(Self { seconds })
    }
}

/// What a call is hashed by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HashOn {
    /// The pod that sends it.
    #[default]
    Source,
    /// The request's fields of this name, which is in lower case. A request without one goes anywhere.
    Header(Arc<str>),
}

impl FromStr for HashOn {
    type Err = NoHashOn;

    fn from_str(text: &str) -> Result<Self, NoHashOn> {
        if text == "source" {
            return Ok(Self::Source);
        }
        let name = text.strip_prefix("header:").filter(|name| is_field_name(name)).ok_or(NoHashOn)?;
        Ok(Self::Header(name.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for HashOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("source"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// A text that says no [`HashOn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHashOn;

impl fmt::Display for NoHashOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not \"source\" or \"header:NAME\" with the name of a request header")
    }
}

impl std::error::Error for NoHashOn {}

/// A token (RFC 9110 §5.6.2).
fn is_field_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_start_is_a_time_with_its_unit() {
        for (text, seconds) in [("30s", Some(30)), ("2m", Some(120)), ("60m", Some(3600)), ("1s", Some(1))] {
            assert_eq!(text.parse().ok(), seconds.map(|seconds| SlowStart { seconds }), "{text}");
        }
        for wrong in
            ["", "s", "30", "0s", "61m", "3601s", "+5s", "-5s", "1h", "30ms", "99999999999s", "4294967295m"]
        {
            assert!(wrong.parse::<SlowStart>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_health_check_names_a_service_or_the_server_as_a_whole() {
        for (text, name) in [("grpc", ""), ("grpc:", ""), ("grpc:shop.Cart", "shop.Cart")] {
            assert_eq!(text.parse(), Ok(HealthCheck(Some(name.into()))), "{text}");
        }
        for wrong in ["", "http", "grpc:a b", "grpcs", "grpc:\u{e4}"] {
            assert!(wrong.parse::<HealthCheck>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_hashed_by_is_the_source_or_a_header_whose_name_can_be_one() {
        assert_eq!("source".parse(), Ok(HashOn::Source));
        assert_eq!("header:X-User".parse(), Ok(HashOn::Header("x-user".into())));
        for wrong in ["", "header", "header:", "header::path", "header:a b", "cookie:a", "Source"] {
            assert_eq!(wrong.parse::<HashOn>(), Err(NoHashOn), "{wrong}");
        }
        assert_eq!("header:X-User".parse::<HashOn>().unwrap().to_string(), "header:x-user");
    }
}
