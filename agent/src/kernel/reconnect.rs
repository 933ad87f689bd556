//! The connections that a pod opened before it was enrolled: counted, and, where asked for, ended one by one so that their
//! clients dial again and are taken.
//!
//! A connection is ended while `tcp_info` shows it idle, so that no call is in flight on it; after [`PATIENCE`] anyway. Its client
//! sees ECONNABORTED, and a gRPC client dials again.

use super::error::{Context as _, KernelError};
use super::netlink::Netlink;
use super::netns::Netns;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::{Nla, TcpInfo};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagDestroy, SockDiagMessage};
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long nothing may have been sent or received for a connection to count as idle. Longer than a round trip within a cluster,
/// shorter than the pause between two calls of most clients.
pub const IDLE: Duration = Duration::from_millis(20);

/// How long to wait for a connection to be idle before it is ended anyway: a client with calls always in flight would else stay on
/// one server.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait between two looks meanwhile, at the least.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One pod is looked at at a time: hundreds that are enrolled at once would else have all of the runtime's threads look.
static LOOKING: Mutex<()> = Mutex::const_new(());

/// A TCP connection of a pod, as the pod sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end, as the app dialled it: with kube-proxy the Service's address, since the translation is not the socket's. (A
    /// socket load balancer, as Cilium's, has put an endpoint's address here.)
    pub peer: SocketAddr,
    /// Whether nothing is on its way, nor has been for [`IDLE`].
    pub idle: bool,
    id: SocketId,
    family: u8,
}

/// The pod's established connections to any of the destinations. Those that were taken have a loopback peer and are none of them, and
/// neither are an agent's own, which have its mark: of this one, which relays for the pod, or of another that hands over to it.
///
/// # Errors
/// The namespace cannot be entered, or the kernel has no `tcp_diag`.
pub fn connections(
    netns: &Netns,
    destinations: &HashSet<SocketAddr>,
    agents_mark: u32,
) -> Result<Vec<Connection>, KernelError> {
    let netlink = open(netns)?;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            states: StateFlags::ESTABLISHED,
            socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
        });
        let answers: Vec<SockDiagMessage> =
            netlink.request(request, NLM_F_DUMP).context(|| "listing a pod's connections".into())?;
        for answer in answers {
            let SockDiagMessage::InetResponse(socket) = answer else { continue };
            let is_an_agents = socket.nlas.iter().any(|nla| is_mark(nla, agents_mark));
            let connection = Connection::of(*socket, family);
            if destinations.contains(&connection.peer) && !is_an_agents {
                found.push(connection);
            }
        }
    }
    Ok(found)
}

/// Ends a connection: SOCK_DESTROY. Not an error if it has ended by itself.
///
/// # Errors
/// EOPNOTSUPP: the kernel was built without `CONFIG_INET_DIAG_DESTROY`.
pub fn end(netns: &Netns, connection: &Connection) -> Result<(), KernelError> {
    let request = SockDiagDestroy::new(SockDiagMessage::InetRequest(InetRequest {
        family: connection.family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id: connection.id.clone(),
    }));
    match open(netns)?.request::<_, SockDiagDestroy>(request, NLM_F_ACK) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other
            .map(|_| ())
            .context(|| format!("ending the connection {} → {}", connection.local, connection.peer)),
    }
}

/// Ends all of the pod's connections to the destinations, each while it is idle or when [`PATIENCE`] is over. Returns how many.
///
/// # Errors
/// As [`connections`] and [`end`].
pub async fn end_all(
    netns: &Netns,
    destinations: &HashSet<SocketAddr>,
    agents_mark: u32,
) -> Result<usize, KernelError> {
    // Only those that are there now: one that is opened meanwhile was dialled after the pod's enrolment, and went straight for a reason.
    let mut looking = LOOKING.lock().await;
    let mut left: HashSet<(SocketAddr, SocketAddr)> =
        connections(netns, destinations, agents_mark)?.into_iter().map(|c| (c.local, c.peer)).collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut ended = 0;
    while !left.is_empty() {
        let out_of_patience = tokio::time::Instant::now() >= deadline;
        let now = connections(netns, destinations, agents_mark)?;
        left.retain(|ends| now.iter().any(|c| (c.local, c.peer) == *ends));
        for connection in now.iter().filter(|c| c.idle || out_of_patience) {
            if left.remove(&(connection.local, connection.peer)) {
                end(netns, connection)?;
                ended += 1;
            }
        }
        if !left.is_empty() {
            drop(looking);
            tokio::time::sleep(LOOK_EVERY).await;
            looking = LOOKING.lock().await;
        }
    }
    Ok(ended)
}

fn open(netns: &Netns) -> Result<Netlink, KernelError> {
    Netlink::open(netns, libc::NETLINK_SOCK_DIAG).context(|| "asking for a pod's connections".into())
}

impl Connection {
    fn of(socket: InetResponse, family: u8) -> Self {
        let InetResponse { header, nlas } = socket;
        let id = header.socket_id;
        let info = nlas.iter().find_map(|nla| if let Nla::TcpInfo(info) = nla { Some(info) } else { None });
        Self {
            local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
            peer: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
            idle: header.recv_queue == 0 && header.send_queue == 0 && info.is_some_and(is_idle),
            id,
            family,
        }
    }
}

/// The kernel tells whoever has CAP_NET_ADMIN.
fn is_mark(nla: &Nla, mark: u32) -> bool {
    matches!(nla, Nla::Mark(of_socket) if *of_socket == mark)
}

/// Nothing sent that is not acknowledged, nothing waiting to be sent, and silence for a while.
fn is_idle(info: &TcpInfo) -> bool {
    let silent = |milliseconds: u32| u128::from(milliseconds) >= IDLE.as_millis();
    info.unacked == 0 && info.notsent_bytes == 0 && silent(info.last_data_sent) && silent(info.last_data_recv)
}

/// The errors that say what the kernel lacks, for [`check`](super::check).
pub(super) fn probe(netns: &Netns) -> io::Result<()> {
    // No such connection: the kernel looks for it only if it can end one.
    let request = SockDiagDestroy::new(SockDiagMessage::InetRequest(InetRequest {
        family: AF_INET,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id: SocketId { source_port: 1, destination_port: 1, ..SocketId::new_v4() },
    }));
    match Netlink::open(netns, libc::NETLINK_SOCK_DIAG)?.request::<_, SockDiagDestroy>(request, NLM_F_ACK) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map(|_| ()),
    }
}
