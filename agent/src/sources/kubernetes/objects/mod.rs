//! An object of Kubernetes → its row. A file a kind; `metadata` reads what all kinds have, `fields` what several have.
//!
//! A fault in a part of an object leaves out that part, and a remark says so; a fault that makes the object as a whole
//! unusable is a [`Refusal`].

mod balancing;
mod fields;
mod metadata;
mod pod;
mod service;
mod sidecars;
mod slice;
#[cfg(test)]
mod tests;
mod workload;

pub use pod::pod;
pub use service::service;
pub use slice::slice;

use super::labels;
use crate::sources::intern::Interner;
use crate::sources::rows::{NamespaceRow, NodeRow};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use metadata::{ambient, checked_name, enabled, label, on_enrol, waypoint, with_mesh};

/// Why an object has no row: one line for people.
pub type Refusal = String;

/// What was left out of an object, and why: a line each, for people.
pub type Remarks = Vec<String>;

/// A Node's row.
pub fn node(metadata: &ObjectMeta, names: &mut Interner) -> Result<NodeRow, Refusal> {
    let zone = label(metadata, labels::ZONE).filter(|zone| !zone.is_empty());
    Ok(NodeRow { name: names.intern(checked_name(metadata)?), zone: zone.map(|zone| names.intern(zone)) })
}

/// A Namespace's row.
pub fn namespace(
    metadata: &ObjectMeta,
    names: &mut Interner,
    remarks: &mut Remarks,
) -> Result<NamespaceRow, Refusal> {
    Ok(NamespaceRow {
        name: names.intern(checked_name(metadata)?),
        enabled: enabled(metadata, remarks),
        on_enrol: on_enrol(metadata, remarks),
        with_mesh: with_mesh(metadata, remarks),
        waypoint: waypoint(metadata, names),
        ambient: ambient(metadata).unwrap_or(false),
    })
}
