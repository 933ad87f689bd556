//! What a host name stands for, as the cluster's DNS says it of Services (Kubernetes: *DNS for Services and Pods*): from what is
//! known, and not by asking.

use super::super::services::Service;
use super::super::world::World;
use super::question::Host;
use crate::mesh::ObjectName;
use crate::sources::rows::{ServiceKind, ServiceRow};
use std::net::IpAddr;

/// What a host stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is an address.
    Address(IpAddr),
    /// A Service, at these addresses: never empty.
    Service(ObjectName, Vec<IpAddr>),
    /// A Service that DNS has no address of.
    NoAddress(ObjectName),
    /// A Service that is another DNS name.
    ExternalName(ObjectName),
    /// One pod of a headless Service, by its host name, which no row says.
    PodOf(ObjectName),
    /// A Service of this name would be meant, and there is none.
    NoSuchService(ObjectName),
    /// A name of no Service.
    Outside,
}

/// What a pod of this namespace means by a host.
pub(super) fn meaning(world: &World, namespace: &str, host: &Host) -> Meaning {
    let name = match host {
        Host::Address(address) => return Meaning::Address(*address),
        Host::Name(name) => name,
    };
    let labels: Vec<&str> = name.split('.').collect();
    // Of two labels the search list has the caller's namespace first, where they would be a pod's own name: which of those there are, no
    // row says.
    match labels[..] {
        [service] => of_service(world, ObjectName::new(namespace, service)),
        [service, of] => {
            let known = ObjectName::new(of, service);
            if world.services.get(&known).is_some_and(|service| service.row.is_some()) {
                return of_service(world, known);
            }
            let governing = ObjectName::new(namespace, of);
            match is_headless(world, &governing) {
                true => Meaning::PodOf(governing),
                false => Meaning::Outside,
            }
        }
        [service, of, "svc", ..] => of_service(world, ObjectName::new(of, service)),
        [_, service, of, "svc", ..] => {
            let governing = ObjectName::new(of, service);
            match is_headless(world, &governing) {
                true => Meaning::PodOf(governing),
                false => Meaning::NoSuchService(governing),
            }
        }
        _ => Meaning::Outside,
    }
}

fn row<'a>(world: &'a World, name: &ObjectName) -> Option<(&'a Service, &'a ServiceRow)> {
    let service = world.services.get(name)?;
    Some((service, service.row.as_deref()?))
}

fn is_headless(world: &World, name: &ObjectName) -> bool {
    row(world, name).is_some_and(|(_, row)| row.kind == ServiceKind::Headless)
}

fn of_service(world: &World, name: ObjectName) -> Meaning {
    let Some((service, row)) = row(world, &name) else { return Meaning::NoSuchService(name) };
    let addresses = match row.kind {
        ServiceKind::ExternalName => return Meaning::ExternalName(name),
        ServiceKind::ClusterIp => row.cluster_ips.clone(),
        ServiceKind::Headless => {
            let endpoints = service.slices.values().flat_map(|slice| &slice.endpoints);
            let ready = endpoints.filter(|endpoint| endpoint.conditions.ready.unwrap_or(true));
            let mut addresses: Vec<IpAddr> = ready.map(|endpoint| endpoint.address).collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        }
    };
    if addresses.is_empty() { Meaning::NoAddress(name) } else { Meaning::Service(name, addresses) }
}
