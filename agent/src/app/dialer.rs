//! Where upstream sockets come from.

use crate::kernel::socket_in;
use crate::mesh::Pod;
use crate::proxy::Dialer;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

/// Dials from the calling pod's own network namespace: servers and NetworkPolicy see the pod's address.
pub(super) struct PodDialer {
    /// What the kernel programs leave alone.
    pub(super) mark: u32,
}

impl Dialer for PodDialer {
    fn socket(&self, pod: Option<&Pod>, address: &SocketAddr) -> io::Result<Socket> {
        let Some(pod) = pod else { return NodeDialer { mark: self.mark }.socket(None, address) };
        let domain = i32::from(Domain::for_address(*address));
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
        let cookie = pod.key.netns_cookie;
        Ok(socket_in(pod.netns.as_fd(), cookie, domain, kind, libc::IPPROTO_TCP, Some(self.mark))?.into())
    }
}

/// Dials from the agent's own network namespace, for all pods alike.
pub(super) struct NodeDialer {
    /// As of [`PodDialer`]; the agent may itself be within reach of the programs.
    pub(super) mark: u32,
}

impl Dialer for NodeDialer {
    fn socket(&self, _pod: Option<&Pod>, address: &SocketAddr) -> io::Result<Socket> {
        let socket =
            Socket::new(Domain::for_address(*address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_mark(self.mark)?;
        Ok(socket)
    }
}
