//! The route that makes a listener's unique local network reachable over the pod's `lo`.
//!
//! An IPv6 destination cannot always be rewritten to an IPv4-mapped address: a V6ONLY socket, and one bound to an IPv6 address,
//! cannot reach that. With `local <network>/96 dev lo` every address of the network is the pod's own. Next:
//! [`reconnect`](super::reconnect).

use super::error::{Context as _, KernelError};
use super::netlink::Netlink;
use super::netns::Netns;
use evenkeel_common::LOOPBACK_INTERFACE;
use evenkeel_common::destination::ula;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::Ipv6Addr;

/// What stands before the loopback address.
const PREFIX_BITS: u8 = 96;

/// `RT_TABLE_LOCAL` of `linux/rtnetlink.h`: looked at before any routing policy.
const LOCAL_TABLE: u8 = 255;

/// Sets the route for a listener's port; it may stand already.
pub(super) fn add(netns: &Netns, port: u16) -> Result<(), KernelError> {
    let request = RouteNetlinkMessage::NewRoute(local_route(port));
    ask(netns, request, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
        .context(|| format!("setting the IPv6 route for listener port {port} in a pod"))
}

/// Takes the route for a listener's port away.
pub(super) fn remove(netns: &Netns, port: u16) -> Result<(), KernelError> {
    match ask(netns, RouteNetlinkMessage::DelRoute(local_route(port)), NLM_F_ACK) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.context(|| format!("removing the IPv6 route for listener port {port} in a pod")),
    }
}

/// The ports for which the namespace has such a route.
pub(super) fn ports(netns: &Netns) -> io::Result<Vec<u16>> {
    let mut all = RouteMessage::default();
    all.header.address_family = AddressFamily::Inet6;
    let request = RouteNetlinkMessage::GetRoute(all);
    let answers: Vec<RouteNetlinkMessage> =
        Netlink::open(netns, libc::NETLINK_ROUTE)?.request(request, NLM_F_DUMP)?;
    let port_of = |answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => port_of(&route),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(port_of).collect())
}

fn port_of(route: &RouteMessage) -> Option<u16> {
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => Some(to.octets()),
        _ => None,
    })?;
    let port = u16::from_be_bytes([to[6], to[7]]);
    let is_a_listeners = route.header.table == LOCAL_TABLE
        && route.header.destination_prefix_length == PREFIX_BITS
        && to == network(port);
    is_a_listeners.then_some(port)
}

fn ask(netns: &Netns, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    Netlink::open(netns, libc::NETLINK_ROUTE)?.request::<_, RouteNetlinkMessage>(request, flags).map(|_| ())
}

/// The listener's network: that of its port.
fn network(port: u16) -> [u8; 16] {
    let mut network = ula(port, 0);
    network[12..].fill(0);
    network
}

fn local_route(port: u16) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet6,
        destination_prefix_length: PREFIX_BITS,
        table: LOCAL_TABLE,
        // So that a person who lists routes sees that it is no one's default.
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    route.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(Ipv6Addr::from(network(port)))),
        RouteAttribute::Oif(LOOPBACK_INTERFACE),
    ];
    route
}
