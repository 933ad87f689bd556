//! The API server's version, and what follows from it.

use super::access;
use super::fault::Fault;
use kube::Client;
use serde::Deserialize;
use std::fmt;

/// The first minor version of Kubernetes 1 that knows streaming lists; a server without them in force says so.
const STREAMING_LISTS: u32 = 27;

/// The oldest minor version of Kubernetes 1 that has all that the agent reads: EndpointSlices of `discovery.k8s.io/v1` (1.21), and
/// `internalTrafficPolicy` in force (1.22).
pub(super) const OLDEST_MINOR: u32 = 22;

/// The API server's version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// As it calls itself.
    text: String,
    /// The numbers of it, if they are some.
    number: Option<(u32, u32)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    git_version: String,
    major: String,
    minor: String,
}

/// Asks for it.
pub(super) async fn of(client: &Client) -> Result<Version, Fault> {
    access::object::<Answer>(client, access::get("/version", "application/json")?).await.map(Version::from)
}

impl From<Answer> for Version {
    fn from(answer: Answer) -> Self {
        // Some distributions write "27+".
        let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
        Self { text: answer.git_version, number: number(&answer.major).zip(number(&answer.minor)) }
    }
}

impl Version {
    /// Whether it may have streaming lists. One that does not tell its numbers is taken for a recent one.
    pub(super) fn has_streaming_lists(&self) -> bool {
        self.number.is_none_or(|number| number >= (1, STREAMING_LISTS))
    }

    /// Whether it is too old to be of use.
    pub(super) fn is_too_old(&self) -> bool {
        self.number.is_some_and(|number| number < (1, OLDEST_MINOR))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_whatever_distributions_write() {
        let version = |major: &str, minor: &str| {
            Version::from(Answer { git_version: "v".into(), major: major.into(), minor: minor.into() })
        };
        for (major, minor, streaming, too_old) in [
            ("1", "36", true, false),
            ("1", "27+", true, false),
            ("1", "26", false, false),
            ("1", "21", false, true),
            ("1", "22", false, false),
            ("2", "0", true, false),
            ("", "", true, false),
        ] {
            let version = version(major, minor);
            assert_eq!(version.has_streaming_lists(), streaming, "{major}.{minor}");
            assert_eq!(version.is_too_old(), too_old, "{major}.{minor}");
        }
    }
}
