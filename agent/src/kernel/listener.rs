//! What a pod's connections are sent to: the agent's listener inside the pod's own network namespace, reachable over the pod's
//! `lo` and from nowhere else. Next: [`route`], for IPv6.

use super::error::{Context as _, KernelError};
use super::netns::{Netns, cookie_of, set_option};
use super::route;
use crate::mesh::DestinationId;
use evenkeel_common::LOOPBACK_INTERFACE;
use evenkeel_common::destination::ula;
use socket2::{SockAddr, Socket};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// Connections that wait while a worker process starts again; more than one pod dials within that second.
const BACKLOG: i32 = 4_096;

/// What a listener is opened with.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// The ports to choose from: below `ip_local_port_range`, so that no app is given one of them unasked.
    pub ports: RangeInclusive<u16>,
    /// The mark of the agent's own sockets.
    pub mark: u32,
}

/// A pod's listener: one port, IPv4 and, where the pod has it, IPv6.
#[derive(Debug)]
pub struct PodListener {
    /// Takes IPv4 and IPv4-mapped connections.
    pub v4: TcpListener,
    /// Takes IPv6 connections, to the port's unique local network; `None` if the pod has no IPv6.
    pub v6: Option<TcpListener>,
    /// The port of both.
    pub port: u16,
}

impl PodListener {
    /// Opens a pod's listener on the first port of the range that the pod neither declares (`avoid`: its container ports) nor
    /// uses, and sets the route to it where the pod has IPv6; there, routes go that an agent which was killed left. Non-blocking.
    ///
    /// # Errors
    /// [`KernelError::NoPort`]; the namespace cannot be entered.
    pub fn open(netns: &Netns, options: &ListenerOptions, avoid: &[u16]) -> Result<Self, KernelError> {
        let refused = |port| move || format!("opening a listener on port {port} in a pod");
        for port in options.ports.clone() {
            if avoid.contains(&port) {
                continue;
            }
            let v4 = match listen(netns, options.mark, IpAddr::V4(Ipv4Addr::UNSPECIFIED), port) {
                Ok(listener) => listener,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(error).context(refused(port)),
            };
            let v6 = match listen(netns, options.mark, IpAddr::V6(Ipv6Addr::UNSPECIFIED), port) {
                Ok(listener) => match route::add(netns, port) {
                    Ok(()) => {
                        if let Err(error) = sweep(netns, options.mark, port) {
                            tracing::debug!(%error, "cannot look for IPv6 routes of listeners that are gone");
                        }
                        Some(listener)
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no IPv6 route in a pod: its IPv6 connections go straight");
                        None
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                // Without IPv6 in the kernel or in the pod.
                Err(error) if is_without_ipv6(&error) => None,
                Err(error) => return Err(error).context(refused(port)),
            };
            return Ok(Self { v4, v6, port });
        }
        Err(KernelError::NoPort { range: options.ports.clone() })
    }

    /// Listeners again, from the descriptors that the keeper held, each with the cookie of its network namespace. Descriptors that
    /// are no listeners, and IPv6 ones without an IPv4 one, are closed.
    pub fn restore(held: impl IntoIterator<Item = OwnedFd>) -> Vec<(u64, Self)> {
        let mut restored: Vec<(u64, Self)> = Vec::new();
        let mut sixes = Vec::new();
        for fd in held {
            let Ok(cookie) = cookie_of(fd.as_fd()) else { continue };
            let listener = TcpListener::from(fd);
            match listener.local_addr() {
                Ok(SocketAddr::V4(at)) => {
                    restored.push((cookie, Self { v4: listener, v6: None, port: at.port() }));
                }
                Ok(SocketAddr::V6(at)) => sixes.push((cookie, at.port(), listener)),
                Err(_) => {}
            }
        }
        for (cookie, port, six) in sixes {
            if let Some((_, pod)) = restored.iter_mut().find(|(c, pod)| (*c, pod.port) == (cookie, port)) {
                pod.v6 = Some(six);
            }
        }
        restored
    }

    /// Copies of the descriptors, for the keeper. They keep the pod's namespace alive: it must close them when the pod goes.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn hold(&self) -> io::Result<Vec<OwnedFd>> {
        let listeners = std::iter::once(&self.v4).chain(self.v6.as_ref());
        listeners.map(|listener| listener.as_fd().try_clone_to_owned()).collect()
    }

    /// Takes away what the pod keeps of the listener after its end: the IPv6 route. Not needed where the pod itself goes.
    ///
    /// # Errors
    /// The namespace has no more IPv6.
    pub fn clean_up(netns: &Netns, port: u16) -> Result<(), KernelError> {
        route::remove(netns, port)
    }
}

/// What a taken connection wanted to reach, by the local address of the accepted socket; `None` = it was not sent here by the
/// kernel programs.
pub fn destination_of(local: SocketAddr) -> Option<DestinationId> {
    match local.ip() {
        IpAddr::V4(v4) => DestinationId::from_loopback(v4),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            let id = DestinationId::from_loopback(Ipv4Addr::new(a, b, c, d))?;
            (v6.octets() == ula(local.port(), id.number())).then_some(id)
        }
    }
}

/// Whether the namespace's `lo` is up: without it no listener can be reached.
///
/// # Errors
/// The namespace cannot be entered.
pub fn is_loopback_up(netns: &Netns) -> io::Result<bool> {
    let socket = netns.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, None)?;
    // SAFETY: all zeros is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // SAFETY: the kernel reads the name and writes the flags of a request that is ours.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has filled in this field of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(i32::from(flags) & libc::IFF_UP != 0)
}

/// Takes away the routes of listeners that are gone: an agent that was killed could not. Those of another agent, which hands over
/// to this one, listen.
fn sweep(netns: &Netns, mark: u32, own_port: u16) -> Result<(), KernelError> {
    let ports = route::ports(netns).context(|| "listing a pod's IPv6 routes".into())?;
    let is_free = |port: u16| listen(netns, mark, IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).is_ok();
    for port in ports.into_iter().filter(|port| *port != own_port) {
        if is_free(port) {
            route::remove(netns, port)?;
        }
    }
    Ok(())
}

fn listen(netns: &Netns, mark: u32, address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = netns.socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0, Some(mark))?;
    // A listener of an earlier agent leaves connections in TIME_WAIT, on the same port.
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32)?;
    if address.is_ipv6() {
        set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1_i32)?;
        accept_from_loopback_only(&socket)?;
    } else {
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo")?;
    }
    let socket = Socket::from(socket);
    socket.bind(&SockAddr::from(SocketAddr::new(address, port)))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What SO_BINDTODEVICE does for IPv4, which with IPv6 also binds the answers to `lo`: and the route to the pod's own address, from
/// which its sockets dial, is its device's. A filter looks at where packets come from, and at nothing else.
fn accept_from_loopback_only(socket: &OwnedFd) -> io::Result<()> {
    /// The interface's index, in place of a packet's bytes (`linux/filter.h`).
    const INTERFACE_INDEX: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
    let step = |code: u32, if_true, if_false, operand| libc::sock_filter {
        code: code as u16,
        jt: if_true,
        jf: if_false,
        k: operand,
    };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, INTERFACE_INDEX),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, LOOPBACK_INTERFACE),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_address_names_the_destination() {
        let id = |local: &str| destination_of(local.parse().unwrap()).map(DestinationId::number);
        assert_eq!(id("127.1.0.5:15810"), Some(5));
        assert_eq!(id("127.0.0.1:15810"), None);
        let six = SocketAddr::new(Ipv6Addr::from(ula(15810, 0x01_0203)).into(), 15810);
        assert_eq!(destination_of(six).map(DestinationId::number), Some(0x01_0203));
        assert_eq!(destination_of(SocketAddr::new(six.ip(), 15811)), None, "another listener's network");
        assert_eq!(id("[::1]:15810"), None);
        assert_eq!(id("[fd65::7f01:5]:15810"), None, "an address of the pod's own");
    }
}
