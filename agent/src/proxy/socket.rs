//! How sockets are made and set up.

use crate::mesh::{DestinationId, Pod};
use mio::net::TcpStream;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

/// Unsent bytes that the kernel holds for a socket at most: what lies there can neither be reordered nor counted.
const NOTSENT_LOWAT_BYTES: u32 = 128 << 10;

/// A server that has gone silently is noticed in about 20 s: 10 s of quiet, then two probes; or 20 s without an
/// acknowledgement. PING ends at each hop, so the client's own keep-alive does not see servers.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(10);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_PROBES: u32 = 2;
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Makes the sockets that connections to servers start from.
pub trait Dialer: Send + Sync {
    /// A TCP socket of the address's family in the pod's network namespace (`None`: in the agent's own), not connected.
    ///
    /// # Errors
    /// Whatever kept the socket from being made; the connection counts as refused.
    fn socket(&self, pod: Option<&Pod>, address: &SocketAddr) -> io::Result<Socket>;
}

/// Dials from the agent's own network namespace for everyone.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnNamespace;

impl Dialer for OwnNamespace {
    fn socket(&self, _pod: Option<&Pod>, address: &SocketAddr) -> io::Result<Socket> {
        Socket::new(Domain::for_address(*address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
    }
}

/// Reads what is there. The system call is made here, as in [`write()`], and not by the C library, which has no frame pointers: a profile
/// would not tell who has called.
pub(super) fn read(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let (read, _) = rustix::net::recv(stream, into, RecvFlags::empty())?;
    Ok(read)
}

/// Writes what there is room for; to who has gone without a signal.
pub(super) fn write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
}

/// Begins to connect; whether it is connected already.
pub(super) fn connect(socket: Socket, address: SocketAddr) -> io::Result<(TcpStream, bool)> {
    socket.set_nonblocking(true)?;
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_AFTER)
        .with_interval(KEEP_ALIVE_EVERY)
        .with_retries(KEEP_ALIVE_PROBES);
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    // Without it, it still works.
    let _ = cap_receive_buffer(&socket);
    let connected = match socket.connect(&address.into()) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => false,
        Err(error) => return Err(error),
    };
    let stream = TcpStream::from_std(socket.into());
    set_up(&stream)?;
    Ok((stream, connected))
}

/// The kernel's buffers of a client's connection, each way: it comes over the pod's own loopback, where a full one is never far
/// from being read. The kernel allows itself twice as much.
const CLIENT_BUFFER_BYTES: usize = 256 << 10;

/// What the kernel takes from a server that is not read. It allows itself twice as much, of which about a half is its own overhead: a
/// stream of a gigabit over 15 ms.
const SERVER_BUFFER_BYTES: usize = 2 << 20;

/// Caps what the kernel may hold of a client's connection.
pub(super) fn cap_buffers(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_recv_buffer_size(CLIENT_BUFFER_BYTES)?;
    socket.set_send_buffer_size(CLIENT_BUFFER_BYTES)
}

/// Caps what a server may send that is not read: a size of its own is what keeps the kernel from growing the buffer as far as
/// `net.ipv4.tcp_rmem` goes. What is sent to it is bounded by [`NOTSENT_LOWAT_BYTES`] and its own window.
fn cap_receive_buffer(socket: &Socket) -> io::Result<()> {
    // Beyond `net.core.rmem_max` this takes a capability (NET_ADMIN); `evenkeel proxy` may not have it.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, SERVER_BUFFER_BYTES)
        .or_else(|_| socket.set_recv_buffer_size(SERVER_BUFFER_BYTES))
}

/// What holds for every socket that bytes are relayed over.
pub(super) fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
}

/// What the kernel holds of a connection: received and not read, written and not acknowledged; with its own overhead.
pub(super) fn kernel_bytes(stream: &TcpStream) -> u32 {
    // As the kernel orders them: SK_MEMINFO_RMEM_ALLOC … SK_MEMINFO_DROPS.
    let mut values = [0_u32; 9];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of integers into the array, and then how many.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let [received, _, _, _, _, written, _, waiting, _] = values;
    if result == 0 { received.saturating_add(written).saturating_add(waiting) } else { 0 }
}

/// Makes the coming close a TCP reset.
pub(super) fn reset_on_close(stream: &TcpStream) {
    // On failure the close is an ordinary one: later, but no less final.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The destination that the local address of a redirected connection carries: 127.a.b.c, the same mapped into IPv6, or an
/// IPv6 address that ends in it.
pub(super) fn destination_of(local: IpAddr) -> Option<DestinationId> {
    let loopback = match local {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d].into()
        }
    };
    DestinationId::from_loopback(loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_takes_from_a_server_does_not_grow_with_what_it_has_sent() {
        use std::io::{Read as _, Write as _};
        const BYTES: usize = 64 << 20;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mut stream, _) = connect(OwnNamespace.socket(None, &address).unwrap(), address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let before = SockRef::from(&stream).recv_buffer_size().unwrap();
        let writer = std::thread::spawn(move || server.write_all(&vec![0; BYTES]));
        let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
        while read < BYTES {
            match stream.read(&mut buffer) {
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        writer.join().unwrap().unwrap();
        let after = SockRef::from(&stream).recv_buffer_size().unwrap();
        assert!(after == before && after <= 2 * SERVER_BUFFER_BYTES, "{before} bytes, and then {after}");
    }

    #[test]
    fn the_destination_rides_in_the_last_32_bits_of_the_local_address() {
        for (text, expected) in [
            ("127.1.0.7", Some(7)),
            ("::ffff:127.1.0.7", Some(7)),
            ("fd00::7f02:0001", Some(65537)),
            ("127.0.0.1", None),
            ("::1", None),
            ("10.0.0.1", None),
        ] {
            let id = destination_of(text.parse().unwrap()).map(DestinationId::number);
            assert_eq!(id, expected, "{text}");
        }
    }
}
