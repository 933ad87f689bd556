//! Equal hashes go to one endpoint: that of the next point on a ring.
//!
//! Karger and others: *Consistent Hashing and Random Trees*, 1997; each endpoint has many points, as in Ketama and gRFC A42. When
//! one of n endpoints comes or goes, only its own share of the keys moves, 1/n, and spreads over all that stay.

use super::hash;
use super::tables::first_allowed;
use crate::mesh::{Endpoint, HashTable};
use std::sync::Arc;

/// Points of an endpoint: shares differ by some 1 ÷ √256, 6%. The same number for few endpoints as for many: else more would
/// move than one's own share.
const POINTS: usize = 256;
/// Points of a ring at most: 3 MiB. Beyond 1,024 endpoints each has half as many, beyond 2,048 a quarter, but one at least, whatever its
/// weight.
const MOST_POINTS: usize = 1 << 18;

pub(super) fn table(endpoints: &[Arc<Endpoint>]) -> HashTable {
    // By weight, whatever the others' are: else more would move than one's own share.
    let points_of = |endpoint: &Endpoint, each: usize| {
        (each * endpoint.weight as usize / Endpoint::WEIGHT as usize).max(1)
    };
    let mut each = POINTS;
    while each > 0 && endpoints.iter().map(|endpoint| points_of(endpoint, each)).sum::<usize>() > MOST_POINTS
    {
        each /= 2;
    }
    let points_of = |(owner, endpoint): (usize, &Arc<Endpoint>)| {
        let address = endpoint.address;
        (0..points_of(endpoint, each) as u64)
            .map(move |number| (hash::of_address(address, number), owner as u32))
    };
    let mut ring: Vec<(u64, u32)> = endpoints.iter().enumerate().flat_map(points_of).collect();
    ring.sort_unstable();
    let (points, owners): (Vec<_>, Vec<_>) = ring.into_iter().unzip();
    HashTable::Ring { points: points.into(), owners: owners.into() }
}

pub(super) fn pick(
    points: &[u64],
    owners: &[u32],
    count: usize,
    key: u64,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let start = points.partition_point(|point| *point < key);
    first_allowed(owners, start, count, excluded)
}
