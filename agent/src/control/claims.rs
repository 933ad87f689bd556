//! Whose an address is. Two Services may claim one, by `externalIPs` or by endpoints that they share: then it is the one's whose own it
//! is most, and among equals the first one's by name, whichever came first, so that all nodes and all restarts agree.

use crate::mesh::ServicePort;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

/// By what right a Service has an address, the strongest first. Whoever may write a Service may write any `externalIPs` into it; a
/// cluster IP is given out by the API server, to one Service alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// One of its cluster IPs.
    ClusterIp,
    /// An external IP or a load balancer's.
    External,
    /// An endpoint's: of a headless Service.
    Endpoint,
}

/// A Service port that claims an address. The first of all has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) right: Right,
    pub(super) port: ServicePort,
}

/// Which Service ports claim which addresses.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The owner of each address.
    owners: HashMap<SocketAddr, Claim>,
    /// The others that claim an address: hardly ever any. In the order of the addresses, so that the same ones are told each time.
    rivals: BTreeMap<SocketAddr, BTreeSet<Claim>>,
}

impl Claims {
    /// A Service port claims an address.
    pub(super) fn add(&mut self, address: SocketAddr, claim: &Claim) {
        let owner = self.owners.entry(address).or_insert_with(|| claim.clone());
        if owner == claim {
            return;
        }
        let rival = if claim < owner { std::mem::replace(owner, claim.clone()) } else { claim.clone() };
        self.rivals.entry(address).or_default().insert(rival);
    }

    /// A Service port claims an address no more.
    pub(super) fn remove(&mut self, address: SocketAddr, claim: &Claim) {
        if let Some(rivals) = self.rivals.get_mut(&address) {
            if self.owners.get(&address) != Some(claim) {
                rivals.remove(claim);
            } else if let Some(next) = rivals.pop_first() {
                self.owners.insert(address, next);
            }
            if rivals.is_empty() {
                self.rivals.remove(&address);
            }
        } else if self.owners.get(&address) == Some(claim) {
            self.owners.remove(&address);
        }
    }

    /// Whose the address is.
    pub(super) fn owner(&self, address: SocketAddr) -> Option<&ServicePort> {
        self.owners.get(&address).map(|claim| &claim.port)
    }

    /// Who else claims the address.
    pub(super) fn rivals(&self, address: SocketAddr) -> impl Iterator<Item = &ServicePort> {
        self.rivals.get(&address).into_iter().flatten().map(|claim| &claim.port)
    }

    /// The addresses that several claim: each with its owner and the others.
    pub(super) fn contested(
        &self,
    ) -> impl Iterator<Item = (SocketAddr, &ServicePort, impl Iterator<Item = &ServicePort> + Clone)> {
        self.rivals.iter().filter_map(|(address, rivals)| {
            Some((*address, self.owner(*address)?, rivals.iter().map(|claim| &claim.port)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::ObjectName;

    fn claim(right: Right, name: &str) -> Claim {
        Claim { right, port: ServicePort { service: ObjectName::new("shop", name), port: 80 } }
    }

    #[test]
    fn the_strongest_right_then_the_first_by_name_has_the_address_in_whatever_order_they_come_and_go() {
        use Right::{ClusterIp, Endpoint, External};
        for claims in [
            [(External, "a"), (External, "b"), (External, "c")],
            [(ClusterIp, "z"), (External, "a"), (Endpoint, "b")],
        ] {
            let [a, b, c] = &claims.map(|(right, name)| claim(right, name));
            let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
            for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
                let mut claims = Claims::default();
                for claim in order {
                    claims.add(address, claim);
                    claims.add(address, claim);
                }
                assert_eq!(claims.owner(address), Some(&a.port));
                assert_eq!(claims.contested().count(), 1);
                for (at, claim) in order.into_iter().enumerate() {
                    claims.remove(address, claim);
                    assert_eq!(
                        claims.owner(address),
                        order[at + 1..].iter().min().map(|claim| &claim.port),
                        "{order:?} after {at}"
                    );
                }
                assert_eq!(claims.contested().count(), 0);
            }
        }
    }
}
