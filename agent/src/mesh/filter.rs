//! What somebody who looks wants to see of everything.

use super::{ObjectName, ServicePort};
use std::str::FromStr;

/// A Service, or one of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFilter {
    /// The Service.
    pub service: ObjectName,
    /// The port that clients dial; `None`: all of them.
    pub port: Option<u16>,
}

impl ServiceFilter {
    /// Whether a Service port is meant.
    pub fn takes(&self, service_port: &ServicePort) -> bool {
        self.service == service_port.service && self.port.is_none_or(|port| port == service_port.port)
    }
}

impl FromStr for ServiceFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected NAMESPACE/NAME or NAMESPACE/NAME:PORT, as shop/cart:50051".to_owned();
        let (service, port) = match text.split_once(':') {
            None => (text, None),
            Some((service, port)) => (service, Some(port.parse().map_err(|_| expected())?)),
        };
        Ok(Self { service: service.parse().map_err(|_| expected())?, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_meant_with_all_its_ports_or_with_one() {
        let port = |port| ServicePort { service: ObjectName::new("shop", "cart"), port };
        let all: ServiceFilter = "shop/cart".parse().unwrap();
        let one: ServiceFilter = "shop/cart:50051".parse().unwrap();
        assert_eq!([all.takes(&port(1)), one.takes(&port(50051)), one.takes(&port(1))], [true, true, false]);
        for wrong in ["", "cart", "shop/", "/cart", "shop/cart:", "shop/cart:x", "shop/cart:70000", "a/b/c"] {
            assert!(wrong.parse::<ServiceFilter>().is_err(), "{wrong}");
        }
    }
}
