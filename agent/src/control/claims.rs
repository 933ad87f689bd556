//! Whose an address is. Two Services may claim one, by `externalIPs` or by endpoints that they share: then it is the
//! first one's by name, whichever came first, so that all nodes and all restarts agree.

use crate::mesh::ServicePort;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

/// Which Service ports claim which addresses.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The owner of each address.
    owners: HashMap<SocketAddr, ServicePort>,
    /// The others that claim an address: hardly ever any.
    rivals: HashMap<SocketAddr, BTreeSet<ServicePort>>,
}

impl Claims {
    /// A Service port claims an address.
    pub(super) fn add(&mut self, address: SocketAddr, port: &ServicePort) {
        let owner = self.owners.entry(address).or_insert_with(|| port.clone());
        if owner == port {
            return;
        }
        let rival = if port < owner { std::mem::replace(owner, port.clone()) } else { port.clone() };
        self.rivals.entry(address).or_default().insert(rival);
    }

    /// A Service port claims an address no more.
    pub(super) fn remove(&mut self, address: SocketAddr, port: &ServicePort) {
        if let Some(rivals) = self.rivals.get_mut(&address) {
            if self.owners.get(&address) != Some(port) {
                rivals.remove(port);
            } else if let Some(next) = rivals.pop_first() {
                self.owners.insert(address, next);
            }
            if rivals.is_empty() {
                self.rivals.remove(&address);
            }
        } else if self.owners.get(&address) == Some(port) {
            self.owners.remove(&address);
        }
    }

    /// Whose the address is.
    pub(super) fn owner(&self, address: SocketAddr) -> Option<&ServicePort> {
        self.owners.get(&address)
    }

    /// The addresses that several claim: each with its owner and the others.
    pub(super) fn contested(
        &self,
    ) -> impl Iterator<Item = (SocketAddr, &ServicePort, &BTreeSet<ServicePort>)> {
        self.rivals.iter().filter_map(|(address, rivals)| Some((*address, self.owners.get(address)?, rivals)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::ObjectName;

    #[test]
    fn the_first_by_name_has_the_address_in_whatever_order_they_come_and_go() {
        let ports =
            ["a", "b", "c"].map(|name| ServicePort { service: ObjectName::new("shop", name), port: 80 });
        let [a, b, c] = &ports;
        let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
        for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
            let mut claims = Claims::default();
            for port in order {
                claims.add(address, port);
                claims.add(address, port);
            }
            assert_eq!(claims.owner(address), Some(a));
            assert_eq!(claims.contested().count(), 1);
            for (at, port) in order.into_iter().enumerate() {
                claims.remove(address, port);
                assert_eq!(
                    claims.owner(address),
                    order[at + 1..].iter().min().copied(),
                    "{order:?} after {at}"
                );
            }
            assert_eq!(claims.contested().count(), 0);
        }
    }
}
