//! A pod: a network namespace, a cgroup with the pod's UID in its path, and a sandbox process that holds both.

use crate::cgroup::Cgroup;
use crate::netns::Netns;
use crate::process::{Place, Process};
use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;

/// A pod of a [`crate::Cluster`].
#[derive(Debug)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Its IPv4 address (the node's, with hostNetwork).
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// The node's end of its veth pair, which goes with the pod's network namespace.
    pub node_link: String,
    // In the order of their end: the processes, the cgroups, the namespace.
    sandbox: Process,
    container: Cgroup,
    _pause: Cgroup,
    _cgroup: Cgroup,
    /// Its network namespace (the node's, with hostNetwork).
    pub netns: Arc<Netns>,
}

impl Pod {
    pub(crate) fn start(identity: Identity, netns: Arc<Netns>, pods: &Cgroup) -> Result<Self> {
        let cgroup = pods.child(&format!("besteffort/pod{}", identity.uid))?;
        let pause = cgroup.child("sandbox")?;
        let container = cgroup.child("app")?;
        let mut command = Command::new("sleep");
        command.arg("infinity");
        let place = Place::new(pause.path(), Some(netns.open()?))?;
        let sandbox = Process::spawn(&format!("{} (sandbox)", identity.name), command, Some(place))?;
        Ok(Self {
            name: identity.name,
            uid: identity.uid,
            ipv4: identity.ipv4,
            ipv6: identity.ipv6,
            node_link: identity.node_link,
            netns,
            sandbox,
            container,
            _pause: pause,
            _cgroup: cgroup,
        })
    }

    /// Where the app's processes run.
    ///
    /// # Errors
    /// When the pod has gone.
    pub fn place(&self) -> Result<Place> {
        Place::new(self.container.path(), Some(self.netns.open()?))
    }

    /// Starts a program as the app of the pod.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(&format!("{}/{name}", self.name), command, Some(self.place()?))
    }

    /// The process that a container runtime would call the sandbox.
    pub fn sandbox_pid(&self) -> i32 {
        self.sandbox.pid()
    }

    /// The app's address on that port, over IPv4.
    pub fn v4(&self, port: u16) -> String {
        format!("{}:{port}", self.ipv4)
    }

    /// The app's address on that port, over IPv6.
    pub fn v6(&self, port: u16) -> String {
        format!("[{}]:{port}", self.ipv6)
    }
}

/// What tells one pod from another.
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
    pub(crate) node_link: String,
}

impl Pod {
    /// Where the pod's TCP connections go as the kernel has them, whatever the apps see: from `/proc/PID/net/tcp` and `tcp6`.
    ///
    /// # Errors
    /// When the pod has gone.
    pub fn established_to(&self) -> Result<Vec<SocketAddr>> {
        established_to(self.sandbox.pid())
    }

    /// TCP connections that were opened in the pod so far, by apps and by the agent on their behalf.
    ///
    /// # Errors
    /// When the pod has gone.
    pub fn connections_opened(&self) -> Result<u64> {
        let counters = std::fs::read_to_string(format!("/proc/{}/net/snmp", self.sandbox.pid()))?;
        let mut rows = counters.lines().filter(|line| line.starts_with("Tcp: "));
        let names = rows.next().context("the kernel counts TCP")?.split_whitespace();
        let values = rows.next().context("the kernel counts TCP")?.split_whitespace();
        let opened = names.zip(values).find(|(name, _)| *name == "ActiveOpens");
        Ok(opened.context("the kernel counts ActiveOpens")?.1.parse()?)
    }

    /// Addresses and ports on which something in the pod listens.
    ///
    /// # Errors
    /// When the pod has gone.
    pub fn listening_on(&self) -> Result<Vec<SocketAddr>> {
        listening_on(self.sandbox.pid())
    }

    /// Whether a connection of the pod to `destination` goes there itself, not through the agent.
    ///
    /// # Errors
    /// When the pod has gone.
    pub fn goes_straight_to(&self, destination: &str) -> Result<bool> {
        let destination: SocketAddr = destination.parse()?;
        Ok(self.established_to()?.contains(&destination))
    }
}

/// The remote ends of the TCP connections in a process' network namespace.
///
/// # Errors
/// When the process has gone.
pub fn established_to(pid: i32) -> Result<Vec<SocketAddr>> {
    sockets(&format!("/proc/{pid}/net"), |local_remote_state| match local_remote_state {
        (_, remote, ESTABLISHED) => Some(remote),
        _ => None,
    })
}

/// Addresses and ports on which something listens in a process' network namespace.
///
/// # Errors
/// When the process has gone.
pub fn listening_on(pid: i32) -> Result<Vec<SocketAddr>> {
    listening(&format!("/proc/{pid}/net"))
}

/// Addresses and ports on which something listens in a network namespace, whether or not any process is left in it.
///
/// # Errors
/// When the namespace has gone.
pub fn listening_in(netns: &Netns) -> Result<Vec<SocketAddr>> {
    netns.enter(|| listening("/proc/thread-self/net"))?
}

fn listening(tables: &str) -> Result<Vec<SocketAddr>> {
    sockets(tables, |local_remote_state| match local_remote_state {
        (local, _, LISTEN) => Some(local),
        _ => None,
    })
}

/// What is `wanted` of the sockets that such a folder of `/proc` tells.
fn sockets(
    tables: &str,
    wanted: impl Fn((SocketAddr, SocketAddr, &str)) -> Option<SocketAddr>,
) -> Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("{tables}/{table}");
        let table = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        found.extend(table.lines().skip(1).filter_map(socket).filter_map(&wanted));
    }
    Ok(found)
}

/// States of a socket as `/proc/net/tcp` names them (`net/tcp_states.h`).
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// The local address, the remote address and the state of a line of `/proc/net/tcp`.
fn socket(line: &str) -> Option<(SocketAddr, SocketAddr, &str)> {
    let mut fields = line.split_whitespace().skip(1);
    Some((address(fields.next()?)?, address(fields.next()?)?, fields.next()?))
}

/// Words of 32 bits in the host's byte order, as the kernel prints them, and the port.
fn address(field: &str) -> Option<SocketAddr> {
    let (address, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for start in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    Some((address.to_canonical(), port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_has_both_addresses_and_the_state() {
        let line = "0: 0100007F:1F90 0505600A:C383 01 0:0 0:0 0 0 0 1";
        let local = "127.0.0.1:8080".parse().expect("an address");
        let remote = "10.96.5.5:50051".parse().expect("an address");
        assert_eq!(socket(line), Some((local, remote, ESTABLISHED)));
    }

    #[test]
    fn a_mapped_address_is_shown_as_the_ipv4_address_that_it_is() {
        let expected = "10.96.5.5:50051".parse().expect("an address");
        assert_eq!(address("0000000000000000FFFF00000505600A:C383"), Some(expected));
    }
}
