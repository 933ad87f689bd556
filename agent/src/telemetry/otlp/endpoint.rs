//! Where the collector is.

use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(into = "String")]
#[schemars(with = "String")]
pub struct Endpoint {
    is_secure: bool,
    /// A name or an address, the latter without brackets.
    host: String,
    port: u16,
}

/// OTLP's own for gRPC.
const DEFAULT_PORT: u16 = 4317;

impl Endpoint {
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether nobody on the way reads what is sent.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("\"{}\": {what}: expected http://HOST:PORT", text.escape_debug());
        let uri: http::Uri = text.parse().map_err(|error| wrong(&format!("{error}")))?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("gRPC knows no path there"));
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| wrong("that is no host and port"))?;
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().ends_with(':') || authority.as_str() != authority.host() => {
                return Err(wrong("the port is none"));
            }
            None => DEFAULT_PORT,
        };
        if host.is_empty() || port == 0 {
            return Err(wrong("that is no host and port"));
        }
        Ok(Self { is_secure, host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        for (text, expected) in [
            ("http://collector.tracing:4317", "http://collector.tracing:4317"),
            ("http://10.0.0.1", "http://10.0.0.1:4317"),
            ("https://otel.example.org/", "https://otel.example.org:4317"),
            ("http://[fd00::1]:55680", "http://[fd00::1]:55680"),
        ] {
            assert_eq!(text.parse::<Endpoint>().map(String::from).as_deref(), Ok(expected));
        }
        let v6: Endpoint = "http://[fd00::1]:55680".parse().unwrap();
        assert_eq!((v6.host(), v6.port(), v6.is_secure()), ("fd00::1", 55680, false));
        for bad in [
            "",
            "collector:4317",
            "grpc://collector:4317",
            "http://",
            "http://:4317",
            "http://collector:0",
            "http://collector:70000",
            "http://collector:x",
            "http://collector:4318/v1/traces",
            "http://collector:4317?a=b",
            "http://user:secret@collector:4317",
            "http://a b:1",
        ] {
            let refusal = bad.parse::<Endpoint>().unwrap_err();
            assert!(refusal.contains("expected http://HOST:PORT"), "{refusal}");
        }
    }
}
