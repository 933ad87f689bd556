//! In which form a page is given: what the request's `Accept` asks for, of what there is (RFC 9110 §12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// A form that a page can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For programs.
    Json,
    /// For people: aligned tables.
    Text,
}

/// What stands for each form in `Accept`. A browser, which asks for HTML, shows a person the text.
const MEDIA_TYPES: [(Form, &[&str]); 2] =
    [(Form::Json, &["application/json"]), (Form::Text, &["text/plain", "text/html"])];
/// And where the answer goes on and on: whoever asks for JSON gets an object a line.
const MEDIA_TYPES_OF_STREAMS: [(Form, &[&str]); 2] =
    [(Form::Json, &[NDJSON, "application/json"]), (Form::Text, &["text/plain", "text/html"])];

/// An object a line.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// What pprof reads has no type of its own.
pub(super) const PPROF: &str = "application/octet-stream";

/// How well a media range fits, from the least: any quality counts before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Anything,
    AnySubtype,
    Exactly,
}

impl Form {
    /// The form that `Accept` likes best; without the header, or where it likes several alike, JSON. `None`: it takes no form
    /// that there is.
    pub(super) fn accepted(accept: Option<&str>, is_stream: bool) -> Option<Self> {
        let Some(accept) = accept else { return Some(Self::Json) };
        let mut best: Option<(f32, Fit, Self)> = None;
        for (form, types) in if is_stream { MEDIA_TYPES_OF_STREAMS } else { MEDIA_TYPES } {
            // Of the ranges that take the form, the one that fits best says how welcome it is.
            let fits = types.iter().filter_map(|media_type| welcome(accept, media_type));
            let by_quality =
                |one: &(Fit, f32), other: &(Fit, f32)| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0));
            let Some((fit, quality)) = fits.max_by(by_quality) else { continue };
            let is_better = best.is_none_or(|(q, f, _)| quality > q || (quality == q && fit > f));
            if quality > 0.0 && is_better {
                best = Some((quality, fit, form));
            }
        }
        best.map(|(_, _, form)| form)
    }
}

/// Whether HTML is asked for by its name, as browsers do and programs do not.
pub(super) fn asks_for_html(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut fits = accept.filter_map(|accept| welcome(accept, "text/html"));
    fits.any(|(fit, quality)| fit == Fit::Exactly && quality > 0.0)
}

/// How welcome a media type is, by the range that fits it best.
fn welcome(accept: &str, media_type: &str) -> Option<(Fit, f32)> {
    let (kind, _) = media_type.split_once('/')?;
    let fits = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next()?.to_ascii_lowercase();
        let fit = match range.split_once('/')? {
            ("*", "*") => Fit::Anything,
            (of_kind, "*") if of_kind == kind => Fit::AnySubtype,
            _ if range == media_type => Fit::Exactly,
            _ => return None,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        // A quality that is none makes its range say nothing.
        let quality = quality.map_or(Some(1.0), |quality| quality.parse().ok());
        Some((fit, quality.filter(|quality| (0.0..=1.0).contains(quality))?))
    });
    fits.max_by_key(|(fit, _)| *fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_json_and_people_text() {
        for (accept, expected) in [
            (None, Some(Form::Json)),
            (Some("*/*"), Some(Form::Json)),
            (Some("application/json"), Some(Form::Json)),
            (Some("Application/JSON; charset=utf-8"), Some(Form::Json)),
            (Some("text/plain"), Some(Form::Text)),
            (Some("text/*"), Some(Form::Text)),
            // What a browser says.
            (
                Some("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
                Some(Form::Text),
            ),
            (Some("text/plain, application/json;q=0.9"), Some(Form::Text)),
            (Some("text/plain;q=0.5, application/json"), Some(Form::Json)),
            (Some("text/plain;q=0.5, */*;q=0.5"), Some(Form::Text)),
            (Some("application/json;q=0, */*"), Some(Form::Text)),
            (Some("application/json;q=0"), None),
            (Some("application/json;q=2"), None),
            (Some("image/png"), None),
            (Some("nonsense"), None),
            (Some(""), None),
        ] {
            assert_eq!(Form::accepted(accept, false), expected, "{accept:?}");
        }
        for accept in [None, Some("*/*"), Some("application/json"), Some(NDJSON)] {
            assert_eq!(Form::accepted(accept, true), Some(Form::Json), "{accept:?}");
        }
        assert_eq!(Form::accepted(Some("text/html"), true), Some(Form::Text));
        assert_eq!(Form::accepted(Some(NDJSON), false), None);
    }
}
