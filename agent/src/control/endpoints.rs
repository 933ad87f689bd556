//! Which endpoints may serve a call to a Service port.

use crate::mesh::{Endpoint, Load};
use crate::sources::rows::{Conditions, EndpointRow, SliceRow};
use std::net::SocketAddr;
use std::sync::Arc;

/// The endpoints of a Service port, each family for itself: a pod of a dual-stack Service has one of each, and a client
/// that dials an address of one family is served by endpoints of that family, as without Evenkeel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ByFamily<T> {
    /// For IPv4.
    pub v4: T,
    /// For IPv6.
    pub v6: T,
}

impl<T> ByFamily<T> {
    /// The one for the family of an address.
    pub fn of(&self, address: SocketAddr) -> &T {
        if address.is_ipv6() { &self.v6 } else { &self.v4 }
    }
}

/// What an endpoint is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Serves calls.
    Calls,
    /// Serves calls if there is nobody else: it still serves while it terminates.
    LastResort,
}

/// What an endpoint is good for, by its conditions; `None`: nothing. What is not said counts as ready, as serving and
/// as not terminating, and so an endpoint of which nothing is said serves.
fn usable(conditions: Conditions) -> Option<Use> {
    let terminating = conditions.terminating.unwrap_or(false);
    match (conditions.ready.unwrap_or(true), conditions.serving.unwrap_or(true)) {
        (true, _) if !terminating => Some(Use::Calls),
        (_, true) if terminating => Some(Use::LastResort),
        _ => None,
    }
}

/// The endpoints of a Service's port of this name: sorted by address, each address once, however many slices it stands in.
///
/// An endpoint that was there before is the same one as in `previous`, or at least goes on with its [`Load`].
pub fn endpoints<'a>(
    slices: impl Iterator<Item = &'a SliceRow>,
    port_name: &str,
    previous: &ByFamily<&[Arc<Endpoint>]>,
) -> ByFamily<Vec<Arc<Endpoint>>> {
    let mut found: Vec<(SocketAddr, Use, &EndpointRow)> = Vec::new();
    for slice in slices {
        for port in slice.ports.iter().filter(|port| *port.name == *port_name) {
            found.extend(slice.endpoints.iter().filter_map(|row| {
                Some((SocketAddr::new(row.address, port.number), usable(row.conditions)?, row))
            }));
        }
    }
    // Of an address that several slices name, as they do while endpoints move between them, the best word counts.
    found.sort_by_key(|(address, usable, _)| (*address, *usable));
    found.dedup_by_key(|(address, ..)| *address);

    let first_v6 = found.partition_point(|(address, ..)| address.is_ipv4());
    let (v4, v6) = found.split_at(first_v6);
    ByFamily { v4: select(v4, previous.v4), v6: select(v6, previous.v6) }
}

fn select(found: &[(SocketAddr, Use, &EndpointRow)], previous: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
    let Some(best) = found.iter().map(|(_, usable, _)| *usable).min() else { return Vec::new() };
    found
        .iter()
        .filter(|(_, usable, _)| *usable == best)
        .map(|(address, _, row)| {
            let before =
                previous.binary_search_by_key(address, |endpoint| endpoint.address).map(|at| &previous[at]);
            match before {
                Ok(before) if before.pod == row.pod && before.zone == row.zone => before.clone(),
                before => Arc::new(Endpoint {
                    address: *address,
                    pod: row.pod.clone(),
                    zone: row.zone.clone(),
                    load: before.map_or_else(|_| Arc::new(Load::default()), |before| before.load.clone()),
                }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::ObjectName;
    use crate::sources::rows::SlicePortRow;

    fn slice(name: &str, ports: &[(&str, u16)], endpoints: &[(&str, Conditions)]) -> SliceRow {
        SliceRow {
            name: ObjectName::new("shop", name),
            service: "cart".into(),
            ports: ports
                .iter()
                .map(|(name, number)| SlicePortRow { name: (*name).into(), number: *number })
                .collect(),
            endpoints: endpoints
                .iter()
                .map(|(address, conditions)| EndpointRow {
                    address: address.parse().unwrap(),
                    conditions: *conditions,
                    zone: None,
                    node: None,
                    pod: None,
                })
                .collect(),
        }
    }

    fn conditions(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Conditions {
        Conditions { ready, serving, terminating }
    }

    const READY: Conditions = Conditions { ready: Some(true), serving: Some(true), terminating: Some(false) };

    fn of(slices: &[SliceRow], port: &str) -> Vec<String> {
        let found = endpoints(slices.iter(), port, &ByFamily::default());
        found.v4.iter().chain(&found.v6).map(|endpoint| endpoint.address.to_string()).collect()
    }

    #[test]
    fn what_is_not_said_counts_as_ready_serving_and_not_terminating() {
        let (yes, no) = (Some(true), Some(false));
        for (given, expected) in [
            ((None, None, None), Some(Use::Calls)),
            ((yes, yes, no), Some(Use::Calls)),
            ((yes, None, None), Some(Use::Calls)),
            ((None, no, None), Some(Use::Calls)),
            ((no, None, None), None),
            ((no, yes, no), None),
            ((no, no, no), None),
            ((no, yes, yes), Some(Use::LastResort)),
            ((no, None, yes), Some(Use::LastResort)),
            ((None, None, yes), Some(Use::LastResort)),
            ((yes, yes, yes), Some(Use::LastResort)),
            ((no, no, yes), None),
        ] {
            assert_eq!(usable(conditions(given.0, given.1, given.2)), expected, "{given:?}");
        }
    }

    #[test]
    fn where_none_is_ready_those_that_serve_while_they_terminate_do() {
        let leaving = conditions(Some(false), Some(true), Some(true));
        let broken = conditions(Some(false), Some(false), Some(false));
        let ports = [("grpc", 9000)];
        let mixed = slice("a", &ports, &[("10.0.0.1", leaving), ("10.0.0.2", READY), ("10.0.0.3", broken)]);
        assert_eq!(of(&[mixed], "grpc"), ["10.0.0.2:9000"]);
        let last = slice("a", &ports, &[("10.0.0.1", leaving), ("10.0.0.3", broken)]);
        assert_eq!(of(&[last], "grpc"), ["10.0.0.1:9000"]);
        let none = slice("a", &ports, &[("10.0.0.3", broken)]);
        assert_eq!(of(&[none], "grpc"), [] as [&str; 0]);
        // Each family for itself.
        let v4 = slice("a", &ports, &[("10.0.0.1", leaving)]);
        let v6 = slice("b", &ports, &[("fd00::1", READY)]);
        assert_eq!(of(&[v4, v6], "grpc"), ["10.0.0.1:9000", "[fd00::1]:9000"]);
    }

    #[test]
    fn endpoints_of_several_slices_come_sorted_and_each_once() {
        let unready = conditions(Some(false), None, None);
        let a =
            slice("a", &[("grpc", 9000)], &[("10.0.0.9", READY), ("10.0.0.1", unready), ("10.0.0.2", READY)]);
        let b =
            slice("b", &[("grpc", 9000)], &[("10.0.0.1", READY), ("10.0.0.2", READY), ("10.0.0.10", READY)]);
        let expected = ["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.9:9000", "10.0.0.10:9000"];
        assert_eq!(of(&[a.clone(), b.clone()], "grpc"), expected);
        assert_eq!(of(&[b, a], "grpc"), expected);
    }

    #[test]
    fn a_port_is_found_by_its_name_and_has_its_own_number_in_each_slice() {
        let old = slice("a", &[("grpc", 9000), ("metrics", 9090)], &[("10.0.0.1", READY)]);
        let renumbered = slice("b", &[("grpc", 9001)], &[("10.0.0.2", READY)]);
        let slices = [old, renumbered, slice("c", &[("", 7000)], &[("10.0.0.3", READY)])];
        assert_eq!(of(&slices, "grpc"), ["10.0.0.1:9000", "10.0.0.2:9001"]);
        assert_eq!(of(&slices, "metrics"), ["10.0.0.1:9090"]);
        assert_eq!(of(&slices, ""), ["10.0.0.3:7000"]);
        assert_eq!(of(&slices, "other"), [] as [&str; 0]);
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_load_and_a_changed_one_too() {
        let first = slice("a", &[("grpc", 9000)], &[("10.0.0.1", READY), ("10.0.0.2", READY)]);
        let before = endpoints([&first].into_iter(), "grpc", &ByFamily::default());
        let mut second = slice("a", &[("grpc", 9000)], &[("10.0.0.2", READY), ("10.0.0.3", READY)]);
        second.endpoints[0].pod = Some("shop/cart-2".into());
        let previous = ByFamily { v4: &before.v4[..], v6: &before.v6[..] };
        let after = endpoints([&second].into_iter(), "grpc", &previous);
        assert!(Arc::ptr_eq(&after.v4[0].load, &before.v4[1].load));
        assert_eq!(after.v4[0].pod.as_deref(), Some("shop/cart-2"));
        let again = endpoints([&first].into_iter(), "grpc", &previous);
        assert!(again.v4.iter().zip(&before.v4).all(|(one, other)| Arc::ptr_eq(one, other)));
    }
}
