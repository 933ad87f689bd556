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

/// A method, or all that begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodFilter {
    start: String,
    is_prefix: bool,
}

impl FromStr for MethodFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As they stand in a request, too.
        let text = text.strip_prefix('/').unwrap_or(text);
        let (start, is_prefix) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        match (start.is_empty() && !is_prefix) || start.contains('*') {
            true => Err(
                "expected PACKAGE.SERVICE/METHOD, as shop.Cart/Add, or the start of it and *, as shop.Cart/*"
                    .into(),
            ),
            false => Ok(Self { start: start.to_owned(), is_prefix }),
        }
    }
}

impl MethodFilter {
    /// Whether a path is meant, with or without its first slash.
    pub fn takes(&self, path: &[u8]) -> bool {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        match self.is_prefix {
            true => path.starts_with(self.start.as_bytes()),
            false => path == self.start.as_bytes(),
        }
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

    #[test]
    fn a_method_is_meant_by_its_name_or_by_how_it_begins() {
        for (filter, method, expected) in [
            ("shop.Cart/Add", "shop.Cart/Add", true),
            ("/shop.Cart/Add", "/shop.Cart/Add", true),
            ("shop.Cart/Add", "shop.Cart/AddAll", false),
            ("shop.Cart/*", "/shop.Cart/AddAll", true),
            ("shop.*", "shop.Cart/Add", true),
            ("*", "", true),
            ("shop.Cart/*", "shop.Carts/Add", false),
        ] {
            let filter: MethodFilter = filter.parse().unwrap();
            assert_eq!(filter.takes(method.as_bytes()), expected, "{filter:?} {method}");
        }
        for wrong in ["", "/", "*Add", "shop.*/Add", "shop.Cart/**"] {
            assert!(wrong.parse::<MethodFilter>().is_err(), "{wrong}");
        }
    }
}
