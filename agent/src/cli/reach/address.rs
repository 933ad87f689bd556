//! Where one agent's admin endpoint is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an admin endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Address {
    /// `host:port`.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err("expected unix:/PATH, from the root on"),
            };
        }
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port =
            text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(1..)) => Ok(Self::Tcp(text.to_owned())),
            _ => Err("expected host:port, as 127.0.0.1:15800, or unix:/PATH"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_a_socket_file() {
        for (text, expected) in [
            ("127.0.0.1:15800", Some("127.0.0.1:15800")),
            ("[::1]:15800", Some("[::1]:15800")),
            ("node-1:15800", Some("node-1:15800")),
            ("http://localhost:15800/", Some("localhost:15800")),
            ("unix:/run/evenkeel.sock", Some("unix:/run/evenkeel.sock")),
            ("unix:run/evenkeel.sock", None),
            ("127.0.0.1", None),
            (":15800", None),
            ("host:0", None),
            ("host:65536", None),
            ("", None),
        ] {
            let parsed = text.parse::<Address>().ok().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }
}
