//! What goes with each batch beside the protocol's own: a credential, mostly. Its values are told to nobody but the collector.

use super::resource::percent_decoded;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::fmt;

/// Fields of each request to the collector.
#[derive(Clone, Default, PartialEq, JsonSchema)]
#[schemars(with = "Vec<String>")]
pub struct Headers(HeaderMap);

/// What the protocol itself says.
const OWN: [&str; 5] = ["content-type", "content-length", "te", "user-agent", "host"];
/// HTTP/2 has none of these (RFC 9113 §8.2.2).
const OF_CONNECTIONS: [&str; 5] =
    ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"];

impl Headers {
    /// Reads `NAME=VALUE,…`, the values percent-encoded where they have to be
    /// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/#specifying-headers-via-environment-variables>).
    ///
    /// # Errors
    /// What is none, by its place: a value may be a secret, and so may what looks like a name where one was forgotten.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (position, pair) in text.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
            let number = position + 1;
            let expected = || {
                format!(
                    "number {number} is no header: expected NAME=VALUE,…, with other characters percent-encoded"
                )
            };
            let (name, value) = pair.split_once('=').ok_or_else(expected)?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| expected())?;
            let is_own = OWN.contains(&name.as_str()) || name.as_str().starts_with("grpc-");
            if is_own || OF_CONNECTIONS.contains(&name.as_str()) {
                return Err(format!("number {number} is a header of the protocol's own"));
            }
            if name.as_str().ends_with("-bin") {
                return Err(format!("number {number}: binary metadata cannot be said here"));
            }
            let value = percent_decoded(value.trim()).filter(|value| is_value(value));
            let mut value = value.and_then(|value| HeaderValue::from_str(&value).ok()).ok_or_else(|| {
                format!(
                    "the value of number {number} is none: expected ASCII, with other characters than RFC 3986's percent-encoded"
                )
            })?;
            // No table of HPACK's holds it.
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(Self(headers))
    }

    /// The fields.
    pub(super) fn fields(&self) -> HeaderMap {
        self.0.clone()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(HeaderName::as_str)
    }
}

/// Whether it can be one: not where it begins or ends blank (RFC 9113 §8.2.1), nor where nothing or base64's padding is left of it, as of a
/// credential whose name was forgotten.
fn is_value(value: &str) -> bool {
    value.trim() == value && !value.trim_matches('=').is_empty()
}

/// Their names alone.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Their names alone.
impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        let headers =
            Headers::parse(" Authorization=Bearer%20hunter2== , x-tenant = a,x-tenant=b,,x-raw=Basic abc")
                .unwrap();
        let fields = headers.fields();
        let all = |name: &str| -> Vec<&str> {
            fields.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!(all("authorization"), ["Bearer hunter2=="]);
        assert_eq!(all("x-tenant"), ["a", "b"]);
        assert_eq!(all("x-raw"), ["Basic abc"]);
        assert!(fields.values().all(HeaderValue::is_sensitive));
        assert_eq!(Headers::parse(""), Ok(Headers::default()));
    }

    #[test]
    fn a_value_is_shown_nowhere() {
        let headers = Headers::parse("authorization=hunter2").unwrap();
        let shown = format!("{headers:?} {}", serde_json::to_string(&headers).unwrap());
        assert_eq!(shown, r#"["authorization"] ["authorization"]"#);
        for (bad, said) in [
            ("hunter2", "number 1 is no header: expected NAME=VALUE"),
            ("a=b,hunter 2=x", "number 2 is no header"),
            ("authorization=hunter2%zz", "the value of number 1 is none"),
            ("authorization=hunter2%0a", "the value of number 1 is none"),
            ("authorization=%20hunter2", "the value of number 1 is none"),
            ("aHVudGVyMg==,b=x", "the value of number 1 is none"),
            ("a=b,hunter2=", "the value of number 2 is none"),
            ("content-type=hunter2", "number 1 is a header of the protocol's own"),
            ("Content-Length=hunter2", "number 1 is a header of the protocol's own"),
            ("GRPC-Timeout=hunter2", "number 1 is a header of the protocol's own"),
            ("connection=hunter2", "number 1 is a header of the protocol's own"),
            ("token-bin=hunter2", "number 1: binary metadata"),
        ] {
            let refusal = Headers::parse(bad).unwrap_err();
            assert!(
                refusal.contains(said) && !refusal.contains("hunter") && !refusal.contains("vudg"),
                "{bad}: {refusal}"
            );
        }
    }
}
