//! The ways in which programs open a TCP connection: by address family, bound or not, with which protocol.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How a socket names its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// As the address is.
    #[default]
    Native,
    /// An IPv4 address through an IPv6 socket, as Java and Go's dual-stack sockets do.
    Mapped,
    /// An IPv6 socket that speaks nothing else.
    V6only,
}

/// What the socket is like before it connects.
#[derive(Args, Clone, Debug)]
pub(super) struct SocketOptions {
    /// Where to: an address, or a name that is looked up for each connection; and a port.
    #[arg(long)]
    to: String,
    #[arg(long, value_enum, default_value_t)]
    family: Family,
    /// Source address.
    #[arg(long)]
    bind: Option<IpAddr>,
    /// SO_BINDTODEVICE.
    #[arg(long)]
    device: Option<String>,
    /// IPPROTO_MPTCP instead of TCP.
    #[arg(long)]
    mptcp: bool,
    /// Gives up on a connection that nobody takes or refuses for so long.
    #[arg(long, default_value_t = 20)]
    connect_limit_seconds: u64,
    /// TCP_FASTOPEN_CONNECT: connect() returns at once, the SYN leaves with the first write.
    #[arg(long)]
    fastopen: bool,
}

impl SocketOptions {
    /// A connected socket of this kind.
    pub(super) fn connect(&self) -> Result<TcpStream> {
        let destination = match (self.family, self.destination()?) {
            (Family::Mapped, SocketAddr::V4(to)) => {
                SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0).into()
            }
            (_, to) => to,
        };
        let protocol = if self.mptcp { Protocol::MPTCP } else { Protocol::TCP };
        let socket =
            Socket::new(Domain::for_address(destination), Type::STREAM, Some(protocol)).context("socket")?;
        if self.family == Family::V6only {
            socket.set_only_v6(true)?;
        }
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes())).context("SO_BINDTODEVICE")?;
        }
        if let Some(source) = self.bind {
            socket.bind(&SocketAddr::new(source, 0).into()).context("bind")?;
        }
        if self.fastopen {
            set_fastopen_connect(&socket)?;
        }
        socket
            .connect_timeout(&destination.into(), Duration::from_secs(self.connect_limit_seconds))
            .context("connect")?;
        socket.set_tcp_nodelay(true).ok();
        Ok(socket.into())
    }

    /// A connected UDP socket; of the options only the address counts.
    pub(super) fn connect_udp(&self) -> Result<std::net::UdpSocket> {
        let to = self.destination()?;
        let any: IpAddr = match to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(to).context("connect")?;
        Ok(socket)
    }

    fn destination(&self) -> Result<SocketAddr> {
        let mut found = self.to.to_socket_addrs().with_context(|| self.to.clone())?;
        found.next().with_context(|| format!("{} has no address", self.to))
    }
}

fn set_fastopen_connect(socket: &Socket) -> Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the value is a c_int that outlives the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN_CONNECT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("TCP_FASTOPEN_CONNECT");
    }
    Ok(())
}
