//! What the fields of Kubernetes' objects mean: [`labels`] names what Evenkeel reads of an object's metadata, [`objects`]
//! turns an object into its row, and `sidecars` tells whether a service mesh has a pod.

pub mod labels;
pub mod objects;
mod sidecars;
