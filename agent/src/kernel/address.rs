//! A pod's own address as its sockets have it, asked of the pod's routes: the source knows it only once the kubelet has told the API,
//! which may be after the pod's first connection.

use super::netns::Netns;
use socket2::{SockAddr, Socket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses that are nobody's (RFC 5737, RFC 3849): the default route leads to them.
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The address that the pod's IPv4 connections come from; `None`: it has no way out.
pub fn own_v4(netns: &Netns, mark: u32) -> Option<Ipv4Addr> {
    match towards(netns, ANY_V4, mark)? {
        IpAddr::V4(own) => Some(own),
        IpAddr::V6(_) => None,
    }
}

/// The address that the pod's IPv6 connections come from; `None`: it has no way out.
pub fn own_v6(netns: &Netns, mark: u32) -> Option<Ipv6Addr> {
    match towards(netns, ANY_V6, mark)? {
        IpAddr::V6(own) => Some(own),
        IpAddr::V4(_) => None,
    }
}

/// Connecting a datagram socket sends nothing: it asks the routes.
fn towards(netns: &Netns, address: IpAddr, mark: u32) -> Option<IpAddr> {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = Socket::from(netns.socket(domain, libc::SOCK_DGRAM, 0, Some(mark)).ok()?);
    // Any port but 0, which means none.
    socket.connect(&SockAddr::from(SocketAddr::new(address, 9))).ok()?;
    let own = socket.local_addr().ok()?.as_socket()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}
