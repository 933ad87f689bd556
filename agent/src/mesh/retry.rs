//! When a Service wants a call that has failed to be sent again: a server may have processed it, so only who owns the Service can
//! know.

use super::key_values::{number, pairs, wrong};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The policy of gRFC A6, less its service-wide throttling, in whose place a share of the live calls stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How often a call is sent at most, the first time included.
    pub attempts: u8,
    /// After which statuses it is sent again.
    pub on: StatusSet,
    /// How long the first retry waits, in milliseconds; each further one twice as long.
    pub first_backoff_ms: u32,
    /// And none longer.
    pub most_backoff_ms: u32,
    /// Of a source's live calls to the Service port, the part that may be ones that were sent again, in percent.
    pub budget_percent: u8,
}

impl RetryPolicy {
    /// gRFC A6 takes no policy for more.
    pub const MOST_ATTEMPTS: u32 = 5;
    /// Where nothing is said: two retries.
    pub const ATTEMPTS: u8 = 3;
    /// Where nothing is said: longer than a hiccup, shorter than a client's patience.
    pub const FIRST_BACKOFF_MS: u32 = 100;
    /// See [`FIRST_BACKOFF_MS`](Self::FIRST_BACKOFF_MS).
    pub const MOST_BACKOFF_MS: u32 = 1_000;
    /// No policy waits longer between two attempts: the pod holds the request meanwhile.
    pub const LONGEST_BACKOFF_MS: u32 = 60_000;
    /// Where nothing is said: Envoy's share, with which retries add a quarter to a load that is failing.
    pub const BUDGET_PERCENT: u8 = 20;
}

impl FromStr for RetryPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut policy = Self {
            attempts: Self::ATTEMPTS,
            on: StatusSet::default(),
            first_backoff_ms: Self::FIRST_BACKOFF_MS,
            most_backoff_ms: Self::MOST_BACKOFF_MS,
            budget_percent: Self::BUDGET_PERCENT,
        };
        for (key, value) in pairs(text, &["on", "attempts", "backoff", "budget"])? {
            match key {
                "attempts" => policy.attempts = number(key, value, 2, Self::MOST_ATTEMPTS)? as u8,
                "on" => policy.on = value.parse()?,
                "backoff" => {
                    let expected = "two times of 1ms to 60s, as 100ms..1s";
                    let times = value.split_once("..");
                    let times =
                        times.and_then(|(first, most)| Some((milliseconds(first)?, milliseconds(most)?)));
                    let ordered = times.filter(|(first, most)| first <= most);
                    (policy.first_backoff_ms, policy.most_backoff_ms) =
                        ordered.ok_or_else(|| wrong(key, value, expected))?;
                }
                _ => {
                    let share =
                        value.strip_suffix('%').ok_or_else(|| wrong(key, value, "a share, as 20%"))?;
                    policy.budget_percent = number(key, share, 1, 100)? as u8;
                }
            }
        }
        if policy.on == StatusSet::default() {
            return Err("which does not say on which statuses, as on=unavailable".into());
        }
        Ok(policy)
    }
}

impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, on, first_backoff_ms, most_backoff_ms, budget_percent } = self;
        write!(f, "attempts={attempts} on={on} ")?;
        write!(f, "backoff={first_backoff_ms}ms..{most_backoff_ms}ms budget={budget_percent}%")
    }
}

fn milliseconds(text: &str) -> Option<u32> {
    let (unit, digits) = match text.strip_suffix("ms") {
        Some(digits) => (1, digits),
        None => (1_000, text.strip_suffix('s')?),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u32>().ok().filter(|_| is_number)?.checked_mul(unit)?;
    Some(number).filter(|number| (1..=RetryPolicy::LONGEST_BACKOFF_MS).contains(number))
}

/// gRPC's statuses but OK, in the order of their codes, which begin with 1.
const STATUSES: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

/// Some of gRPC's statuses: a bit for each code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatusSet(u32);

impl StatusSet {
    /// Whether a status is one of them.
    pub fn contains(self, code: u8) -> bool {
        1_u32.checked_shl(u32::from(code)).is_some_and(|bit| self.0 & bit != 0)
    }
}

impl FromStr for StatusSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = 0;
        for name in text.split(',') {
            let index = STATUSES.iter().position(|status| *status == name);
            let index =
                index.ok_or_else(|| wrong("on", name, format_args!("one of {}", STATUSES.join(", "))))?;
            set |= 2 << index;
        }
        Ok(Self(set))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes = (1..).zip(STATUSES).filter(|(code, _)| self.contains(*code));
        let names: Vec<_> = codes.map(|(_, name)| name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_says_on_which_statuses_and_may_leave_the_rest_to_the_defaults() {
        let parse = |text: &str| text.parse::<RetryPolicy>().map(|policy| policy.to_string());
        assert_eq!(
            parse("on=unavailable").unwrap(),
            "attempts=3 on=unavailable backoff=100ms..1000ms budget=20%"
        );
        let whole = "attempts=5 on=resource-exhausted,unavailable backoff=5ms..60000ms budget=100%";
        assert_eq!(parse(whole).unwrap(), whole);
        assert_eq!(
            parse("  backoff=1s..2s\ton=aborted ").unwrap(),
            "attempts=3 on=aborted backoff=1000ms..2000ms budget=20%"
        );
        let policy: RetryPolicy = "on=cancelled,unauthenticated".parse().unwrap();
        let held: Vec<u8> = (0..=255).filter(|code| policy.on.contains(*code)).collect();
        assert_eq!(held, [1, 16]);
    }

    #[test]
    fn a_slip_in_a_policy_is_named() {
        for (text, expected) in [
            ("", "which has none of on, attempts, backoff, budget"),
            ("attempts=3", "does not say on which statuses"),
            ("on=unavailable 3", "\"3\" is not KEY=VALUE"),
            ("on=", "\"on=\" is not KEY=VALUE"),
            ("on=unavailable on=aborted", "\"on\" is there twice"),
            ("on=unavailable retries=3", "\"retries\" is none of"),
            ("on=ok", "on is \"ok\", not one of cancelled"),
            ("on=unavailable,", "on is \"\", not one of"),
            ("on=UNAVAILABLE", "on is \"UNAVAILABLE\", not one of"),
            ("on=unavailable attempts=1", "attempts is \"1\", not a number from 2 to 5"),
            ("on=unavailable attempts=6", "not a number from 2 to 5"),
            ("on=unavailable attempts=+3", "not a number from 2 to 5"),
            ("on=unavailable backoff=1s", "backoff is \"1s\", not two times"),
            ("on=unavailable backoff=1s..100ms", "not two times"),
            ("on=unavailable backoff=0ms..1s", "not two times"),
            ("on=unavailable backoff=1s..61s", "not two times"),
            ("on=unavailable backoff=ms..s", "not two times"),
            ("on=unavailable budget=20", "budget is \"20\", not a share, as 20%"),
            ("on=unavailable budget=101%", "not a number from 1 to 100"),
        ] {
            let error = text.parse::<RetryPolicy>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
