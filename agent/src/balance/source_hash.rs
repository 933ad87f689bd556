//! One endpoint for all calls of a source.
//!
//! Rendezvous hashing (Thaler, Ravishankar: *Using Name-Based Mappings to Increase Hit Rates*, 1998): the endpoint with the
//! highest hash of (source, endpoint). When an endpoint goes, only the sources that it had move, and no table is kept.
//!
//! kube-proxy's affinity (Kubernetes: *Virtual IPs and Service Proxies*, session affinity) ends when a source was silent for
//! `timeoutSeconds`. This one has no end, and so keeps its promise for any timeout. A source is a pod, as a pod has one
//! address a family.

use super::hash;
use crate::mesh::Endpoint;
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The endpoint of this source.
pub(super) fn pick(
    endpoints: &[Arc<Endpoint>],
    source: u64,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let allowed = (0..endpoints.len()).filter(|index| !excluded(*index));
    allowed.max_by_key(|index| weight(source, &endpoints[*index]))
}

fn weight(source: u64, endpoint: &Endpoint) -> u64 {
    let mut hasher = FxHasher::default();
    endpoint.address.hash(&mut hasher);
    // FxHash alone leaves close addresses close.
    hash::spread(hasher.finish() ^ source)
}
