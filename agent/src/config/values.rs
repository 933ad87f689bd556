//! The small words that arguments are made of, each parsed from its text.

use crate::mesh::{ObjectName, ServicePort};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;

/// Where the agent learns of Services, endpoints and pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The API of the cluster that the node is part of.
    Kubernetes,
    /// A folder of the YAML that a cluster would hold.
    Folder(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            Some(("folder", path)) if !path.is_empty() => Ok(Self::Folder(path.into())),
            _ => Err("expected kubernetes or folder:DIR".into()),
        }
    }
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text
            .split_once('-')
            .and_then(|(first, last)| Some(Self { first: first.parse().ok()?, last: last.parse().ok()? }))
            .ok_or("expected FIRST-LAST, as 15810-15899")?;
        if range.first == 0 || range.first > range.last {
            return Err("the first port must be at least 1 and not above the last".into());
        }
        Ok(range)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// `ADDR=NAMESPACE/SERVICE:PORT`, or an address alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedListener {
    /// Where to listen.
    pub address: SocketAddr,
    /// Which Service port is served there; `None` for what `--to` names.
    pub service_port: Option<ServicePort>,
}

impl FromStr for NamedListener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, service_port) = match text.split_once('=') {
            Some((address, service)) => (address, Some(parse_service_port(service)?)),
            None => (text, None),
        };
        let address = address
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .ok_or_else(|| format!("{address:?}: expected an address and a port, as 127.0.0.1:9000"))?;
        Ok(Self { address, service_port })
    }
}

fn parse_service_port(text: &str) -> Result<ServicePort, String> {
    let parse = || {
        let (namespace, rest) = text.split_once('/')?;
        let (name, port) = rest.split_once(':')?;
        let port = port.parse().ok().filter(|&port| port != 0)?;
        (!namespace.is_empty() && !name.is_empty())
            .then(|| ServicePort { service: ObjectName::new(namespace, name), port })
    };
    parse().ok_or_else(|| format!("{text:?}: expected NAMESPACE/SERVICE:PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parsed_or_refused_with_what_was_expected() {
        assert_eq!("kubernetes".parse(), Ok(Source::Kubernetes));
        assert_eq!("folder:/etc/x".parse(), Ok(Source::Folder("/etc/x".into())));
        for bad in ["folder:", "/etc/x", "etcd:1", "kubernetes:"] {
            assert!(bad.parse::<Source>().unwrap_err().contains("folder:DIR"), "{bad}");
        }
        assert_eq!("10-20".parse(), Ok(PortRange { first: 10, last: 20 }));
        for bad in ["20-10", "0-10", "10", "1-70000", "a-b"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
        let listener: NamedListener = "127.0.0.1:9000=shop/cart:50051".parse().unwrap();
        assert_eq!(listener.service_port.unwrap().to_string(), "shop/cart:50051");
        for bad in ["127.0.0.1", "127.0.0.1:9000=cart:1", "127.0.0.1:9000=a/b", "127.0.0.1:9000=/b:1"] {
            assert!(bad.parse::<NamedListener>().is_err(), "{bad}");
        }
    }
}
