//! Equal hashes go to one endpoint, by one look-up in a table in which each endpoint stands equally often.
//!
//! Eisenbud and others: *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI 2016, §3.4. Its shares are more even than
//! a ring's; in exchange, when an endpoint comes or goes, some keys of others move too.

use super::hash;
use crate::mesh::{Endpoint, HashTable};
use std::sync::Arc;

/// Slots: the paper's smaller table, and Envoy's. A prime, so that any step visits every slot. Up to 655 endpoints, shares differ by
/// 1% at most. One table size for all: with another, nearly all keys would move.
pub(super) const SLOTS: u64 = 65_537;

const FREE: u16 = u16::MAX;
/// Endpoints that have slots: two bytes tell one from the other, so that a table is 128 KiB.
const MOST_ENDPOINTS: usize = FREE as usize;

pub(super) fn table(endpoints: &[Arc<Endpoint>]) -> HashTable {
    let endpoints = &endpoints[..endpoints.len().min(MOST_ENDPOINTS)];
    if endpoints.is_empty() {
        return HashTable::Maglev(Box::default());
    }
    // Each endpoint's own order of the slots: from an offset on, in steps.
    let mut orders: Vec<(u64, u64)> = endpoints
        .iter()
        .map(|endpoint| {
            let offset = hash::of_address(endpoint.address, 0) % SLOTS;
            (offset, hash::of_address(endpoint.address, 1) % (SLOTS - 1) + 1)
        })
        .collect();
    let mut slots = vec![FREE; SLOTS as usize];
    let heaviest = endpoints.iter().map(|endpoint| endpoint.weight).max().unwrap_or(1);
    // What each is owed: a turn costs as much as the heaviest is given a round.
    let mut owed = vec![0; endpoints.len()];
    let mut filled = 0;
    loop {
        for (owner, (at, step)) in orders.iter_mut().enumerate() {
            owed[owner] += endpoints[owner].weight;
            if owed[owner] < heaviest {
                continue;
            }
            owed[owner] -= heaviest;
            // The next slot in its order that nobody has.
            while slots[*at as usize] != FREE {
                *at = (*at + *step) % SLOTS;
            }
            slots[*at as usize] = owner as u16;
            filled += 1;
            if filled == SLOTS {
                return HashTable::Maglev(slots.into());
            }
        }
    }
}
