//! The page for people who would rather look than read, at `/ui/`: its files, which are part of the program. What it shows it asks
//! of the other paths; `main.mjs` says in which order its files meet the answers.

use super::accept::asks_for_html;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, REFERRER_POLICY,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

/// What the page may do: load its own files and ask this endpoint. Nothing inline, from elsewhere or made of text (Trusted Types), and
/// in nobody's frame: a name that the agent shows can be no more than a text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const PATH: &str = "/ui/";

macro_rules! files {
    ($($name:literal: $media_type:expr,)*) => {
        /// Name, media type, content.
        const FILES: &[(&str, &str, &str)] =
            &[$(($name, $media_type, include_str!(concat!("ui/", $name))),)*];
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

files! {
    "index.html": HTML,
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "main.mjs": SCRIPT,
    "fetch.mjs": SCRIPT,
    "read.mjs": SCRIPT,
    "rates.mjs": SCRIPT,
    "even.mjs": SCRIPT,
    "chosen.mjs": SCRIPT,
    "head.mjs": SCRIPT,
    "flows.mjs": SCRIPT,
    "graph.mjs": SCRIPT,
    "bars.mjs": SCRIPT,
    "lists.mjs": SCRIPT,
    "tables.mjs": SCRIPT,
    "tap.mjs": SCRIPT,
    "tap-panel.mjs": SCRIPT,
    "announce.mjs": SCRIPT,
    "dom.mjs": SCRIPT,
    "words.mjs": SCRIPT,
}

/// The page's file at the path, or the way to the page for a browser that asks for the index; `None` for all that is not the page's.
pub(super) fn answer(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    // From here, so that it leads to the page behind a proxy with a path of its own too (`kubectl proxy`).
    let to_page = || (StatusCode::SEE_OTHER, [(LOCATION, "ui/")]).into_response();
    match uri.path() {
        "/" if uri.query().is_none() && asks_for_html(headers) => Some(to_page()),
        "/ui" => Some(to_page()),
        path => {
            let name = match path.strip_prefix(PATH)? {
                "" => "index.html",
                name => name,
            };
            let (_, media_type, content) = FILES.iter().find(|(known, ..)| *known == name)?;
            let headers: [(HeaderName, &str); 3] = [
                (CONTENT_TYPE, media_type),
                (CONTENT_SECURITY_POLICY, POLICY),
                (REFERRER_POLICY, "no-referrer"),
            ];
            Some((headers, *content).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::http::header::ACCEPT;
    use std::collections::BTreeSet;

    fn asked(method: &Method, path: &'static str, accept: &'static str) -> Option<Response> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        answer(method, &Uri::from_static(path), &headers)
    }

    #[test]
    fn browsers_are_led_to_the_page_and_programs_are_not() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (path, accept, expected) in [
            ("/", browser, Some(303)),
            ("/", "*/*", None),
            ("/", "application/json", None),
            ("/", "text/html;q=0", None),
            ("/?format=text", browser, None),
            ("/ui", "*/*", Some(303)),
            ("/ui/", "*/*", Some(200)),
            ("/ui/main.mjs", "*/*", Some(200)),
            ("/ui/../config", "*/*", None),
            ("/pods", browser, None),
        ] {
            let status = asked(&Method::GET, path, accept).map(|response| response.status().as_u16());
            assert_eq!(status, expected, "{path} {accept}");
        }
        assert!(asked(&Method::POST, "/ui/", "*/*").is_none());
    }

    #[test]
    fn what_the_files_name_is_there_and_nothing_else_is_carried() {
        let mut named = BTreeSet::from(["index.html"]);
        for (_, _, content) in FILES {
            // Imports, and what the HTML loads.
            let quoted = content.split('"').skip(1).step_by(2);
            named.extend(quoted.map(|name| name.strip_prefix("./").unwrap_or(name)).filter(|name| {
                [".mjs", ".css", ".svg"].iter().any(|suffix| name.ends_with(suffix)) && !name.contains(' ')
            }));
        }
        assert_eq!(named, FILES.iter().map(|(name, ..)| *name).collect());
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_no_text_is_taken_for_markup() {
        for (name, _, content) in FILES {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "src=\"http"]
            {
                assert!(!content.contains(forbidden), "{name} has {forbidden}");
            }
            // The name of SVG's vocabulary is an address that nobody visits.
            let addresses = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!addresses.contains("://"), "{name} names an address");
        }
        assert!(FILES.iter().map(|(_, _, content)| content.len()).sum::<usize>() < MOST_BYTES);
    }

    /// The page comes over a port-forward, perhaps from far away.
    const MOST_BYTES: usize = 110_000;
}
