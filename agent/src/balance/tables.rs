//! The tables of the pickers that hash: made once a backend, on the control path, and looked up in by every call.

use super::{maglev, ring_hash};
use crate::mesh::{Backend, HashTable, Picker};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Makes the backend's table, if its picker has one: to be called before workers have the backend, as it takes up to some
/// milliseconds. `before` has the one of the backend's last state, which serves on where nothing that it is made of has changed.
///
/// Maglev's is large however few the endpoints are: of a Service that nobody on this node has called, the first call makes it, which
/// takes a millisecond, once.
pub fn prepare(backend: &Backend, before: Option<&Backend>) {
    let picker = backend.balancing.picker;
    if !picker.has_table() {
        return;
    }
    let same = |before: &&Backend| {
        before.balancing.picker == picker
            && before.endpoints.len() == backend.endpoints.len()
            && before
                .endpoints
                .iter()
                .zip(&*backend.endpoints)
                .all(|(one, other)| (one.address, one.weight) == (other.address, other.weight))
    };
    if let Some(table) = before.filter(same).and_then(|before| before.table.get()) {
        // It has none yet.
        let _ = backend.table.set(Arc::clone(table));
        return;
    }
    let is_called = || backend.endpoints.iter().any(|endpoint| endpoint.load.calls.load(Relaxed) > 0);
    if picker != Picker::Maglev || is_called() {
        table(backend);
    }
}

fn table(backend: &Backend) -> &HashTable {
    backend.table.get_or_init(|| {
        Arc::new(match backend.balancing.picker {
            Picker::RingHash => ring_hash::table(&backend.endpoints),
            _ => maglev::table(&backend.endpoints),
        })
    })
}

/// The endpoint that a hash leads to.
pub(super) fn pick(backend: &Backend, key: u64, excluded: impl Fn(usize) -> bool) -> Option<usize> {
    let count = backend.endpoints.len();
    match table(backend) {
        HashTable::Ring { points, owners } => ring_hash::pick(points, owners, count, key, excluded),
        HashTable::Maglev(slots) => {
            let start = key.checked_rem(slots.len() as u64)?;
            first_allowed(slots, start as usize, count, excluded)
        }
    }
}

/// How many places behind a hash's own are looked at for an endpoint that may be picked, times the number of endpoints:
/// nearly all of them stand there, as the order is random, and the cost is bounded where all are out.
const LOOKED_AT: usize = 4;

/// The first owner from `start` on, in a circle, that may be picked. Owners stand in random order: the keys of one that is
/// out spread over all others.
pub(super) fn first_allowed(
    owners: &[impl Copy + Into<u32>],
    start: usize,
    count: usize,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let looked_at = owners.len().min(count * LOOKED_AT);
    let near = (0..looked_at).map(|step| owners[(start + step) % owners.len()].into() as usize);
    // Where nearly all are out, whichever is left.
    near.chain(0..count).find(|&owner| !excluded(owner))
}
