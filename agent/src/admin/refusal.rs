//! Why a request gets no page: one line that says what there is instead.

use super::page::{ROUTES, Route};
use axum::http::StatusCode;
use axum::http::header::{ALLOW, HeaderValue};
use axum::response::{IntoResponse, Response};

/// As much of what somebody typed is repeated, in characters.
const QUOTED_CHARS: usize = 80;

/// A typed word is taken for another if so much of it is alike (Jaro–Winkler).
const ALIKE: f64 = 0.8;

/// Why a request gets no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// One line, without its end.
    pub(super) message: String,
    /// The methods that there are, where it is those.
    allow: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), allow: None }
    }

    /// There is nothing at the path.
    pub(super) fn path(path: &str) -> Self {
        let paths = || ROUTES.iter().map(|route| route.path);
        let hint = hint(path, paths());
        let there_is = paths().collect::<Vec<_>>().join(" ");
        Self::new(StatusCode::NOT_FOUND, format!("nothing at {}{hint}; there is: {there_is}", quoted(path)))
    }

    pub(super) fn method(route: &Route, method: &str) -> Self {
        let allow = route.allow();
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            message: format!("{} takes {allow}, not {}", route.path, quoted(method)),
            allow: Some(allow),
        }
    }

    /// The path takes no such parameter.
    pub(super) fn parameter(route: &Route, name: &str) -> Self {
        let names: Vec<_> = route.all_parameters().map(|parameter| parameter.name()).collect();
        let hint = hint(name, names.iter().copied());
        let there_is = names.join(", ");
        let message = format!("{} has no parameter {}{hint}; it has: {there_is}", route.path, quoted(name));
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A parameter is there twice: which one counts would be a guess.
    pub(super) fn twice(parameter: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{parameter} is there twice: say it once"))
    }

    pub(super) fn value(parameter: &str, value: &str, why: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{parameter}={}: {why}", quoted(value)))
    }

    pub(super) fn not_acceptable(route: &Route) -> Self {
        let message = format!(
            "{} is there as {} and as text/plain: Accept is to name one of them, or ?format=json|text",
            route.path,
            route.json_type(),
        );
        Self::new(StatusCode::NOT_ACCEPTABLE, message)
    }

    /// Whoever answers has no time now.
    pub(super) fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent is starting, stopping or busy: ask again in a second",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.message + "\n").into_response();
        // The methods are of the table of routes: visible ASCII.
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

/// What somebody typed, short, and without anything that a terminal obeys.
pub(super) fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(QUOTED_CHARS).collect();
    let rest = if chars.next().is_some() { "…" } else { "" };
    format!("\"{}{rest}\"", start.escape_debug())
}

/// The word that was probably meant, as a question.
fn hint<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> String {
    // What is longer than anything known resembles nothing; comparing costs the product of both lengths.
    let typed: String = typed.chars().take(QUOTED_CHARS).collect();
    let alike = |known: &'a str| (strsim::jaro_winkler(&typed.to_ascii_lowercase(), known), known);
    // A lone slash is like everything short.
    let nearest =
        known.filter(|known| *known != "/").map(alike).max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest {
        Some((likeness, name)) if likeness >= ALIKE => format!(": did you mean {name}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_answered_with_what_is_nearest_to_it() {
        let pods = Route::find("/pods").unwrap();
        for (refusal, status, said) in [
            (Refusal::path("/pod"), 404, "nothing at \"/pod\": did you mean /pods?; there is: / /pods "),
            (Refusal::path("/Endpoint/"), 404, "did you mean /endpoints?"),
            (Refusal::path("/config_dump"), 404, "did you mean /config?"),
            (Refusal::path("/xyz"), 404, "nothing at \"/xyz\"; there is"),
            (Refusal::parameter(pods, "namspace"), 400, "did you mean namespace?; it has: namespace, name"),
            (Refusal::parameter(pods, "zzz"), 400, "/pods has no parameter \"zzz\"; it has"),
            (Refusal::method(pods, "DELETE"), 405, "/pods takes GET, HEAD, not \"DELETE\""),
            (Refusal::path("/\u{1b}[31m"), 404, "nothing at \"/\\u{1b}[31m\""),
        ] {
            assert_eq!(refusal.status.as_u16(), status);
            assert!(refusal.message.contains(said), "{}", refusal.message);
        }
        let long = Refusal::path(&"/x".repeat(100_000));
        assert!(long.message.len() < 1_000, "{}", long.message);
    }
}
