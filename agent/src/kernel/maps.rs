//! How the agent talks to the kernel programs: who is enrolled, what is captured, what was counted.
//! Next: [`pods`](super::pods), who is to be enrolled.
//!
//! The maps outlive a worker process; a new one reads from them what the old one had told the kernel
//! ([`Kernel::enrolled`], [`Kernel::known_destinations`], [`Kernel::known_ids`]).

use super::error::KernelError;
use super::load::Kernel;
use crate::mesh::DestinationId;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use evenkeel_common::destination::{DESTINATION_WITHOUT_ENDPOINT, mapped};
use evenkeel_common::pod::{POD_AT_CONNECTION_LIMIT, POD_IPV6_ROUTE, POD_LEAVING, POD_LOOPBACK_DOWN};
use evenkeel_common::{Counters, Destination, DestinationEntry, Original, PodEntry, names};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{MutexGuard, PoisonError};

/// The maps with their types, and which counter slots are taken.
pub(super) struct Tables {
    destinations: HashMap<MapData, Destination, DestinationEntry>,
    originals: Array<MapData, Original>,
    pods: HashMap<MapData, u64, PodEntry>,
    counters: PerCpuArray<MapData, Counters>,
    free_slots: BTreeSet<u32>,
    destination_limit: u32,
}

/// What the kernel is told of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// The port of the agent's listener in the pod.
    pub listener_port: u16,
    /// The pod's own IPv4 address: what its apps see as theirs.
    pub ipv4: Option<Ipv4Addr>,
    /// The pod's own IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether the listener takes IPv6 connections and the route to it stands; else they go straight.
    pub ipv6_route: bool,
    /// The pod's `lo` is down: connections go straight.
    pub loopback_down: bool,
    /// The pod has as many connections as it may: further ones go straight.
    pub at_connection_limit: bool,
    /// The pod is being let go: connections go straight, those that are still held keep their names.
    pub leaving: bool,
}

/// An address that the kernel captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDestination {
    /// What apps dial.
    pub address: SocketAddr,
    /// The id that stands for it.
    pub id: DestinationId,
    /// Whether it has an endpoint; without, connections go straight.
    pub has_endpoint: bool,
}

impl Kernel {
    /// A copy of the heartbeat's descriptor: a mappable array of one word, the time ([`clock`](crate::clock)) at which the agent
    /// was last alive. While that is older than [`HEARTBEAT_LIMIT_NS`](evenkeel_common::HEARTBEAT_LIMIT_NS), connections go
    /// straight.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn heartbeat(&self) -> Result<OwnedFd, KernelError> {
        self.map_fd(names::HEARTBEAT)
    }

    /// Enrols a pod, or changes what is known of it; its counters go on.
    ///
    /// # Errors
    /// [`KernelError::Full`]: [`LoadOptions::pods`](super::LoadOptions::pods) are enrolled already.
    pub fn enrol(&self, netns_cookie: u64, enrolment: &Enrolment) -> Result<(), KernelError> {
        let mut tables = self.tables();
        let tables = &mut *tables;
        let (slot, is_new) = match tables.pods.get(&netns_cookie, 0) {
            Ok(entry) => (entry.counter_slot, false),
            Err(MapError::KeyNotFound) => {
                let full = KernelError::Full { what: "enrolled pod", limit: tables.counters.len() };
                (*tables.free_slots.first().ok_or(full)?, true)
            }
            Err(error) => return Err(KernelError::refused("reading the enrolled pods", error)),
        };
        if is_new {
            tables.clear_counters(slot)?;
        }
        let written = tables.pods.insert(netns_cookie, enrolment.entry(slot), 0);
        written.map_err(|e| full_or_refused(e, "enrolled pod", tables.counters.len(), "enrolling a pod"))?;
        tables.free_slots.remove(&slot);
        Ok(())
    }

    /// Ends a pod's enrolment: its connections go straight, and its counters are gone. Not an error if it had none.
    ///
    /// # Errors
    /// The map refuses.
    pub fn withdraw(&self, netns_cookie: u64) -> Result<(), KernelError> {
        let mut tables = self.tables();
        let slot = match tables.pods.get(&netns_cookie, 0) {
            Ok(entry) => entry.counter_slot,
            Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(KernelError::refused("reading the enrolled pods", error)),
        };
        absent_is_fine(tables.pods.remove(&netns_cookie))
            .map_err(|e| KernelError::refused("withdrawing a pod", e))?;
        tables.free_slots.insert(slot);
        Ok(())
    }

    /// All enrolled pods, by the cookie of their network namespace.
    ///
    /// # Errors
    /// The map refuses.
    pub fn enrolled(&self) -> Result<Vec<(u64, Enrolment)>, KernelError> {
        let tables = self.tables();
        tables
            .pods
            .iter()
            .map(|item| item.map(|(cookie, entry)| (cookie, Enrolment::of_entry(&entry))))
            .collect::<Result<_, _>>()
            .map_err(|e| KernelError::refused("reading the enrolled pods", e))
    }

    /// What became of an enrolled pod's TCP connections since it was enrolled; `None` if it is not.
    ///
    /// # Errors
    /// A map refuses.
    pub fn counters(&self, netns_cookie: u64) -> Result<Option<Counters>, KernelError> {
        let tables = self.tables();
        let slot = match tables.pods.get(&netns_cookie, 0) {
            Ok(entry) => entry.counter_slot,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(KernelError::refused("reading the enrolled pods", error)),
        };
        let by_cpu =
            tables.counters.get(&slot, 0).map_err(|e| KernelError::refused("reading a pod's counters", e))?;
        let mut sum = Counters::default();
        for counters in by_cpu.iter() {
            for (total, count) in sum.by_reason.iter_mut().zip(counters.by_reason) {
                *total += count;
            }
        }
        Ok(Some(sum))
    }

    /// Captures an address, also one that stood without an endpoint. The workers must know the id before.
    ///
    /// # Errors
    /// [`KernelError::Full`]; an id beyond [`LoadOptions::ids`](super::LoadOptions::ids).
    pub fn add_destination(&self, address: SocketAddr, id: DestinationId) -> Result<(), KernelError> {
        self.tables().put_destination(address, id, 0)
    }

    /// Lets connections to a captured address go straight while none of its endpoints is ready, counted as such.
    ///
    /// # Errors
    /// As [`Self::add_destination`].
    pub fn mark_without_endpoint(&self, address: SocketAddr, id: DestinationId) -> Result<(), KernelError> {
        self.tables().put_destination(address, id, DESTINATION_WITHOUT_ENDPOINT)
    }

    /// Captures an address no more. Its id still stands for it, for the connections that carry it: [`Self::forget`]. Not an
    /// error if it was not captured.
    ///
    /// # Errors
    /// The map refuses.
    pub fn remove_destination(&self, address: SocketAddr) -> Result<(), KernelError> {
        absent_is_fine(self.tables().destinations.remove(&key(address)))
            .map_err(|e| KernelError::refused("removing a destination", e))
    }

    /// Lets an id stand for nothing, when no connection carries it any more.
    ///
    /// # Errors
    /// The map refuses.
    pub fn forget(&self, id: DestinationId) -> Result<(), KernelError> {
        let written = self.tables().originals.set(id.number(), Original::default(), 0);
        written.map_err(|e| KernelError::refused("forgetting a destination's id", e))
    }

    /// All captured addresses.
    ///
    /// # Errors
    /// The map refuses.
    pub fn known_destinations(&self) -> Result<Vec<KnownDestination>, KernelError> {
        let tables = self.tables();
        let mut known = Vec::new();
        for item in tables.destinations.iter() {
            let (key, entry) = item.map_err(|e| KernelError::refused("reading the destinations", e))?;
            // Entries are written by this module only, from a checked id.
            let Some(id) = DestinationId::new(entry.id) else { continue };
            known.push(KnownDestination {
                address: socket_address(key.address, key.port),
                id,
                has_endpoint: entry.flags & DESTINATION_WITHOUT_ENDPOINT == 0,
            });
        }
        Ok(known)
    }

    /// All ids that stand for something, those in quarantine included: none of them may be given to another address.
    ///
    /// # Errors
    /// The map refuses.
    pub fn known_ids(&self) -> Result<Vec<(DestinationId, SocketAddr)>, KernelError> {
        let tables = self.tables();
        let mut known = Vec::new();
        for number in 0..tables.originals.len() {
            let original =
                tables.originals.get(&number, 0).map_err(|e| KernelError::refused("reading the ids", e))?;
            if let Some(id) = DestinationId::new(number).filter(|_| original.port != 0) {
                known.push((id, socket_address(original.address, original.port)));
            }
        }
        Ok(known)
    }

    /// How many addresses may be captured at once.
    pub fn destination_limit(&self) -> u32 {
        self.tables().destination_limit
    }

    /// How many ids there may be: those below this number.
    pub fn id_limit(&self) -> u32 {
        self.tables().originals.len().min(DestinationId::SPACE)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Each change is one map write after reads: a panic leaves nothing half done.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    pub(super) fn new(maps: Vec<(&'static str, MapData)>) -> Result<Self, KernelError> {
        let mut maps = maps;
        let mut take = |name: &str| {
            let at = maps.iter().position(|(n, _)| *n == name);
            at.map(|at| maps.swap_remove(at).1).ok_or_else(|| KernelError::NotHeld { label: name.to_owned() })
        };
        let wrong = |e: MapError| KernelError::refused("reading the maps", e);
        let pods: HashMap<MapData, u64, PodEntry> =
            Map::HashMap(take(names::PODS)?).try_into().map_err(wrong)?;
        let counters: PerCpuArray<MapData, Counters> =
            Map::PerCpuArray(take(names::COUNTERS)?).try_into().map_err(wrong)?;
        let mut free_slots: BTreeSet<u32> = (0..counters.len()).collect();
        for entry in pods.iter() {
            free_slots.remove(&entry.map_err(wrong)?.1.counter_slot);
        }
        let destinations = take(names::DESTINATIONS)?;
        Ok(Self {
            destination_limit: destinations.info().map_err(wrong)?.max_entries(),
            destinations: Map::HashMap(destinations).try_into().map_err(wrong)?,
            originals: Map::Array(take(names::ORIGINALS)?).try_into().map_err(wrong)?,
            pods,
            counters,
            free_slots,
        })
    }

    fn put_destination(
        &mut self,
        address: SocketAddr,
        id: DestinationId,
        flags: u32,
    ) -> Result<(), KernelError> {
        let ids = self.originals.len();
        if id.number() >= ids {
            return Err(KernelError::Full { what: "destination id", limit: ids });
        }
        let key = key(address);
        let original = Original { address: key.address, port: key.port, padding: [0; 2] };
        // The way back first: a connection taken in between finds it.
        self.originals
            .set(id.number(), original, 0)
            .map_err(|e| KernelError::refused("naming a destination", e))?;
        let entry = DestinationEntry { id: id.number(), flags };
        self.destinations
            .insert(key, entry, 0)
            .map_err(|e| full_or_refused(e, "destination", self.destination_limit, "adding a destination"))
    }

    fn clear_counters(&mut self, slot: u32) -> Result<(), KernelError> {
        let cpus =
            aya::util::nr_cpus().map_err(|(what, e)| KernelError::refused(format!("reading {what}"), e))?;
        let zeros = PerCpuValues::try_from(vec![Counters::default(); cpus])
            .map_err(|e| KernelError::refused("clearing a pod's counters", e))?;
        self.counters.set(slot, zeros, 0).map_err(|e| KernelError::refused("clearing a pod's counters", e))
    }
}

impl Enrolment {
    fn entry(&self, counter_slot: u32) -> PodEntry {
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        PodEntry {
            flags: flag(self.ipv6_route, POD_IPV6_ROUTE)
                | flag(self.loopback_down, POD_LOOPBACK_DOWN)
                | flag(self.at_connection_limit, POD_AT_CONNECTION_LIMIT)
                | flag(self.leaving, POD_LEAVING),
            counter_slot,
            ipv6: self.ipv6.map_or([0; 16], |a| a.octets()),
            ipv4: self.ipv4.map_or([0; 4], |a| a.octets()),
            listener_port: self.listener_port,
            padding: [0; 2],
        }
    }

    fn of_entry(entry: &PodEntry) -> Self {
        Self {
            listener_port: entry.listener_port,
            ipv4: Some(Ipv4Addr::from(entry.ipv4)).filter(|a| !a.is_unspecified()),
            ipv6: Some(Ipv6Addr::from(entry.ipv6)).filter(|a| !a.is_unspecified()),
            ipv6_route: entry.flags & POD_IPV6_ROUTE != 0,
            loopback_down: entry.flags & POD_LOOPBACK_DOWN != 0,
            at_connection_limit: entry.flags & POD_AT_CONNECTION_LIMIT != 0,
            leaving: entry.flags & POD_LEAVING != 0,
        }
    }
}

fn key(address: SocketAddr) -> Destination {
    let bytes = match address.ip() {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    };
    Destination::new(bytes, address.port())
}

fn socket_address(address: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port)
}

/// Removing what is not there is no error: the aim is reached.
fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// The kernel says E2BIG when a hash is full.
fn full_or_refused(error: MapError, what: &'static str, limit: u32, tried: &str) -> KernelError {
    match &error {
        MapError::SyscallError(e) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
            KernelError::Full { what, limit }
        }
        _ => KernelError::refused(tried, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_survives_the_way_through_the_map() {
        let full = Enrolment {
            listener_port: 15_810,
            ipv4: Some("10.1.2.3".parse().unwrap()),
            ipv6: Some("fd00::3".parse().unwrap()),
            ipv6_route: true,
            loopback_down: true,
            at_connection_limit: true,
            leaving: true,
        };
        for enrolment in [full, Enrolment { listener_port: 1, ..Enrolment::default() }] {
            assert_eq!(Enrolment::of_entry(&enrolment.entry(7)), enrolment);
        }
        let one_flag = Enrolment { at_connection_limit: true, ..Enrolment::default() };
        assert_eq!(one_flag.entry(7).flags, POD_AT_CONNECTION_LIMIT);
        assert_eq!(one_flag.entry(7).counter_slot, 7);
    }

    #[test]
    fn an_address_and_its_mapped_form_are_one_destination() {
        let plain: SocketAddr = "10.96.5.5:50051".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:10.96.5.5]:50051".parse().unwrap();
        assert_eq!(key(plain), key(mapped));
        assert_eq!(socket_address(key(mapped).address, 50051), plain);
        let six: SocketAddr = "[fd00::5]:443".parse().unwrap();
        assert_eq!(socket_address(key(six).address, key(six).port), six);
    }
}
