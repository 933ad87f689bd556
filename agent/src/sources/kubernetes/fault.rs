//! What can be wrong between the agent and the API server, in words for people and in kinds that say what to do next.

use super::version::OLDEST_MINOR;
use http::StatusCode;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// The longest text of a server's that is passed on.
const MAX_TEXT_BYTES: usize = 512;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The files that say where the API server is, or who we are, can't be used.
    Config(String),
    /// No connection, or it broke.
    Unreachable(String),
    /// A connection on which nothing comes any more.
    Silent,
    /// 401: it does not know us.
    Unauthorized(String),
    /// 403: it knows us, and we may not.
    Forbidden(String),
    /// 403: the namespace is being deleted, and takes nothing new.
    NamespaceGoes,
    /// 404: it has no such kind.
    UnknownKind,
    /// 404: it has the kind, and no such object.
    NotFound(String),
    /// 409: the object is another by now than the one that was meant.
    Conflict(String),
    /// 400, 422: it does not accept what is asked of it.
    Refused(String),
    /// 410: what we ask for is too old.
    Expired,
    /// It has not yet, or no more, what we have seen already.
    Behind,
    /// It does not know streaming lists.
    NoStreamingLists,
    /// 429 or 5xx: not now.
    Busy(String, Option<Duration>),
    /// It answers what is no answer.
    Malformed(String),
}

/// `metav1.Status`, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: u16,
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    name: String,
    causes: Vec<Cause>,
    retry_after_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

impl Fault {
    pub(super) fn unreachable(cause: &str) -> Self {
        Fault::Unreachable(cut(cause))
    }

    /// Of an answer that isn't 2xx.
    pub(super) fn of_answer(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let said: Status = serde_json::from_slice(body).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(body).into(),
            ..Status::default()
        });
        Self::of_status(&Status { code: status.as_u16(), ..said }, retry_after)
    }

    /// Of what the server says.
    pub(super) fn of_status(status: &Status, retry_after: Option<Duration>) -> Self {
        let text = || cut(if status.message.is_empty() { &status.reason } else { &status.message });
        let causes = || status.details.iter().flat_map(|details| &details.causes);
        match status.code {
            401 => Fault::Unauthorized(text()),
            403 if causes().any(|cause| cause.reason == "NamespaceTerminating") => Fault::NamespaceGoes,
            403 => Fault::Forbidden(text()),
            404 if status.details.as_ref().is_some_and(|details| !details.name.is_empty()) => {
                Fault::NotFound(text())
            }
            404 => Fault::UnknownKind,
            409 => Fault::Conflict(text()),
            410 => Fault::Expired,
            // A server from before streaming lists does not know the parameter; one that has them off refuses it.
            400 | 422 if status.message.contains("sendInitialEvents") => Fault::NoStreamingLists,
            504 if causes().any(|cause| {
                cause.reason == "ResourceVersionTooLarge" || cause.message == "Too large resource version"
            }) =>
            {
                Fault::Behind
            }
            code @ (429 | 500..=599) => {
                let said = status.details.as_ref().map(|details| details.retry_after_seconds);
                let said = said.filter(|seconds| *seconds > 0).map(Duration::from_secs);
                Fault::Busy(format!("{code} {}", text()), retry_after.or(said))
            }
            code @ (400 | 422) => Fault::Refused(format!("{code}: {}", text())),
            code => Fault::Malformed(format!("{code} {}", text())),
        }
    }

    /// How long the server asks us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Fault::Busy(_, asked) => *asked,
            _ => None,
        }
    }

    /// Whether trying again will not do: somebody has to change something.
    pub(super) fn lasts(&self) -> bool {
        matches!(
            self,
            Fault::Config(_)
                | Fault::Unauthorized(_)
                | Fault::Forbidden(_)
                | Fault::NamespaceGoes
                | Fault::UnknownKind
                | Fault::NotFound(_)
                | Fault::Refused(_)
                | Fault::Malformed(_)
        )
    }

    /// Whether it passes by itself, though the API server answers: it may still be of the object that was asked for alone, as where an
    /// admission webhook of one namespace fails.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Fault::Busy(..))
    }

    /// Whether nothing was heard from the API server at all, whatever was asked for.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(self, Fault::Config(_) | Fault::Unreachable(_) | Fault::Silent | Fault::Unauthorized(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Config(cause) => f.write_str(cause),
            Fault::Unreachable(cause) => write!(f, "the API server can't be reached: {cause}"),
            Fault::Silent => f.write_str("the API server has gone silent"),
            Fault::Unauthorized(said) => write!(
                f,
                "the API server does not accept who we are (401{}): the service account's token, or the kubeconfig's \
                 user, is not valid (any more)",
                said_in(said)
            ),
            Fault::Forbidden(said) => write!(f, "forbidden (403{})", said_in(said)),
            Fault::NamespaceGoes => f.write_str("the namespace is being deleted (403)"),
            Fault::UnknownKind => write!(
                f,
                "the API server has no such kind (404): Kubernetes 1.{OLDEST_MINOR} is the oldest that has all that is needed"
            ),
            Fault::NotFound(said) => write!(f, "there is no such object (404{})", said_in(said)),
            Fault::Conflict(said) => {
                write!(f, "somebody else has changed it meanwhile (409{})", said_in(said))
            }
            Fault::Refused(said) => write!(f, "the API server does not accept it ({said})"),
            Fault::Expired => f.write_str("what was seen last is too old for the API server (410)"),
            Fault::Behind => f.write_str("the API server is behind what was seen already"),
            Fault::NoStreamingLists => f.write_str("the API server has no streaming lists"),
            Fault::Busy(said, _) => write!(f, "the API server can't answer now: {said}"),
            Fault::Malformed(cause) => {
                write!(f, "the API server's answer is not understood: {cause}")
            }
        }
    }
}

impl std::error::Error for Fault {}

fn said_in(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: u16, body: &str) -> Fault {
        Fault::of_answer(StatusCode::from_u16(code).unwrap(), None, body.as_bytes())
    }

    #[test]
    fn an_answers_status_says_what_to_do_next() {
        for (code, body, expected) in [
            (410, "", Fault::Expired),
            (404, "404 page not found\n", Fault::UnknownKind),
            (
                404,
                r#"{"message":"nodes \"n1\" not found","details":{"name":"n1","kind":"nodes"}}"#,
                Fault::NotFound("nodes \"n1\" not found".into()),
            ),
            (404, r#"{"message":"the server could not find it","details":{}}"#, Fault::UnknownKind),
            (
                403,
                r#"{"reason":"Forbidden","details":{"name":"x","causes":[{"reason":"NamespaceTerminating","message":"…"}]}}"#,
                Fault::NamespaceGoes,
            ),
            (409, r#"{"message":"Precondition failed"}"#, Fault::Conflict("Precondition failed".into())),
            (
                422,
                r#"{"message":"metadata.name: Invalid"}"#,
                Fault::Refused("422: metadata.name: Invalid".into()),
            ),
            (401, r#"{"message":"Unauthorized"}"#, Fault::Unauthorized("Unauthorized".into())),
            (
                422,
                r#"{"message":"ListOptions is invalid: sendInitialEvents: Forbidden: …"}"#,
                Fault::NoStreamingLists,
            ),
            (
                504,
                r#"{"details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}]}}"#,
                Fault::Behind,
            ),
            (
                429,
                r#"{"message":"slow down","details":{"retryAfterSeconds":3}}"#,
                Fault::Busy("429 slow down".into(), Some(Duration::from_secs(3))),
            ),
            (418, "tea\nor\x1b[1m", Fault::Malformed("418 tea\\nor\\u{1b}[1m".into())),
        ] {
            assert_eq!(fault(code, body), expected, "{code} {body}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_tried_again_soon() {
        for (code, lasts, is_busy) in [
            (401, true, false),
            (403, true, false),
            (404, true, false),
            (409, false, false),
            (422, true, false),
            (429, false, true),
            (500, false, true),
        ] {
            let fault = fault(code, "");
            assert_eq!((fault.lasts(), fault.is_busy()), (lasts, is_busy), "{code}");
        }
    }

    #[test]
    fn no_text_of_a_servers_is_passed_on_at_any_length() {
        let Fault::Forbidden(text) = fault(403, &"ä".repeat(MAX_TEXT_BYTES)) else {
            panic!("not forbidden")
        };
        assert!(text.len() <= MAX_TEXT_BYTES);
    }
}
