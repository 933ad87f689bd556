//! Which headers hold secrets, and what stands in their place.

use crate::http2::{Field, FieldList};
use crate::telemetry::path_alone;

/// What stands where a secret was.
pub(super) const MASK: &str = "***";

/// A header whose name has one of these in it, whatever its case, holds a secret: credentials themselves, and what is made for want of a
/// standard name (`x-api-key`, `x-amz-security-token`, `x-session-id`), and `baggage`, in which users' names travel. So does one that its sender
/// has marked as never to be indexed (RFC 7541 §7.1.3). Rather too much: `x-author` is masked as well.
pub const SECRET_NAMES: [&str; 13] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "key",
    "pass",
    "credential",
    "session",
    "signature",
    "jwt",
    "bearer",
    "assertion",
    "baggage",
];

/// A header whose name ends in one of these is a path or a URL, of which only that is told, not what stands behind it.
const URL_NAMES: [&str; 5] = ["path", "url", "uri", "referer", "referrer"];

/// As much of a value is told: names, ids and addresses are shorter.
const LONGEST_VALUE_BYTES: usize = 512;
/// And of all headers together.
const MOST_HEADER_BYTES: usize = 8 << 10;

/// The headers as they may be told, and whether some had no room. Paths and URLs are told without their query.
pub(super) fn without_secrets(fields: &FieldList) -> (Vec<(String, String)>, bool) {
    let (mut told, mut room) = (Vec::new(), MOST_HEADER_BYTES);
    for field in fields.iter() {
        let header = (text(field.name), value(&field));
        let Some(rest) = room.checked_sub(header.0.len() + header.1.len()) else { return (told, true) };
        room = rest;
        told.push(header);
    }
    (told, false)
}

fn value(field: &Field<'_>) -> String {
    if field.never_indexed || is_secret(field.name) {
        return MASK.to_owned();
    }
    text(if is_url(field.name) { path_alone(field.value) } else { field.value })
}

/// Whether a header of this name holds a secret. HTTP/2's own fields don't, whatever is in their names.
fn is_secret(name: &[u8]) -> bool {
    if name.starts_with(b":") {
        return false;
    }
    let has =
        |part: &str| name.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()));
    SECRET_NAMES.iter().any(|part| has(part))
}

fn is_url(name: &[u8]) -> bool {
    let ends_in = |part: &str| {
        let start = name.len().checked_sub(part.len());
        start.is_some_and(|start| name[start..].eq_ignore_ascii_case(part.as_bytes()))
    };
    URL_NAMES.iter().any(|part| ends_in(part))
}

/// Bytes as text, cut where they are long. What is not UTF-8 becomes U+FFFD; what a terminal would obey stays, and is escaped by who writes.
pub(super) fn text(bytes: &[u8]) -> String {
    match bytes.get(..LONGEST_VALUE_BYTES) {
        Some(start) if bytes.len() > LONGEST_VALUE_BYTES => format!("{}…", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fields: &[(&str, &[u8])]) -> (Vec<(String, String)>, bool) {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value);
        }
        without_secrets(&list)
    }

    #[test]
    fn what_is_secret_by_its_name_is_masked_and_nothing_else() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "X-Auth-TOKEN",
            "x-amz-security-token",
            "client-secret",
            "user-Password",
            "x-session-id",
            "x-auth",
            "X-Basic-Auth",
            "x-user-pass",
            "x-assertion",
            "bearer",
            "x-goog-authenticated-user-email",
            "baggage",
        ] {
            assert_eq!(told(&[(name, b"hunter2")]).0, [(name.to_owned(), "***".to_owned())]);
        }
        for name in ["user-agent", "x-user", "grpc-timeout", "te", "x-request-id", ":authority", "x-urls"] {
            assert_eq!(told(&[(name, b"hunter2")]).0, [(name.to_owned(), "hunter2".to_owned())]);
        }
    }

    #[test]
    fn of_paths_and_urls_nothing_is_told_that_may_be_a_secret() {
        for name in [
            ":path",
            "referer",
            "x-original-url",
            "x-forwarded-uri",
            "x-envoy-original-path",
            "X-Original-URI",
        ] {
            for value in ["/a/b?access=hunter2", "/a/b;jsessionid=hunter2/c", "/a/b#access=hunter2"] {
                assert_eq!(told(&[(name, value.as_bytes())]).0[0].1, "/a/b", "{name}: {value}");
            }
        }
        let url = told(&[("x-callback-url", b"https://shop.example/a?access=hunter2")]).0;
        assert_eq!(url[0].1, "https://shop.example/a");
        assert_eq!(told(&[("x-what", b"why?")]).0[0].1, "why?");
    }

    #[test]
    fn the_documentation_says_which_headers_are_masked() {
        let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
        let start = readme.find("are masked where their name has").expect("the sentence is there");
        let end = start + readme[start..].find("in it, whatever its case").expect("and its end");
        let words = readme[start..end].split('`').skip(1).step_by(2);
        assert_eq!(words.collect::<Vec<_>>(), SECRET_NAMES);
    }

    #[test]
    fn whatever_is_sent_what_is_told_of_it_is_text_and_bounded() {
        let long = "x".repeat(100_000);
        let (headers, is_cut) = told(&[("x-long", long.as_bytes()), ("x-bytes", b"a\xff\x1b[31m")]);
        assert!(!is_cut && headers[0].1.len() < 600 && headers[0].1.ends_with('…'));
        assert_eq!(headers[1].1, "a\u{fffd}\u{1b}[31m");
        let many = vec![("x-one-of-many", b"0123456789".as_slice()); 10_000];
        let (headers, is_cut) = told(&many);
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(is_cut && bytes <= MOST_HEADER_BYTES && headers.len() > 300, "{bytes}");
    }
}
