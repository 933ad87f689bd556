//! What things are called.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

/// The namespace and name of a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// Its name within the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Names an object.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err("expected NAMESPACE/NAME, as shop/cart".to_owned()),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One port of a Service: what clients dial, and the unit that is balanced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// The Service.
    pub service: ObjectName,
    /// The port that clients dial.
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// One incarnation of a pod's sandbox: a restarted sandbox keeps the UID and gets another network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// The cookie of the network namespace (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
}

/// What an app wanted to reach, as the kernel programs hand it over: an address of 127.1.0.0 – 127.254.255.255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(u32);

impl DestinationId {
    /// How many ids there are: 254 × 65,536.
    pub const SPACE: u32 = 254 << 16;

    /// The id with this number; `None` outside of the space.
    pub fn new(number: u32) -> Option<Self> {
        (number < Self::SPACE).then_some(Self(number))
    }

    /// The id's number, below [`Self::SPACE`].
    pub fn number(self) -> u32 {
        self.0
    }

    /// The loopback address that stands for the id.
    pub fn to_loopback(self) -> Ipv4Addr {
        Ipv4Addr::from(0x7f01_0000 + self.0)
    }

    /// The id that a loopback address stands for; `None` for the addresses that stand for none, as 127.0.0.1.
    pub fn from_loopback(address: Ipv4Addr) -> Option<Self> {
        Self::new(u32::from(address).checked_sub(0x7f01_0000)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_carries_an_id_there_and_back() {
        for (number, text) in
            [(0, "127.1.0.0"), (0x01_0203, "127.2.2.3"), (DestinationId::SPACE - 1, "127.254.255.255")]
        {
            let id = DestinationId::new(number).unwrap();
            assert_eq!(id.to_loopback().to_string(), text);
            assert_eq!(DestinationId::from_loopback(id.to_loopback()), Some(id));
        }
        assert_eq!(DestinationId::new(DestinationId::SPACE), None);
        for text in ["127.0.0.1", "127.0.255.255", "127.255.0.0", "10.0.0.1", "128.0.0.1"] {
            assert_eq!(DestinationId::from_loopback(text.parse().unwrap()), None, "{text}");
        }
    }
}
