//! Pods.

use super::super::labels;
use super::fields::{addresses, port_number, transport};
use super::metadata::{ambient, annotation, enabled, label, object_name, on_enrol, with_mesh};
use super::{Refusal, Remarks, sidecars, workload};
use crate::sources::intern::Interner;
use crate::sources::rows::{PodRow, Transport};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::path::PathBuf;
use std::sync::Arc;

/// A Pod's row. Of what a cluster fills in, a person who writes the object by hand may leave out all: without a UID its
/// name counts as one, and without a phase it runs.
pub fn pod(object: &Pod, names: &mut Interner, remarks: &mut Remarks) -> Result<PodRow, Refusal> {
    let metadata = &object.metadata;
    let name = object_name(metadata, names)?;
    let uid: Arc<str> = match metadata.uid.as_deref() {
        Some(uid) if !uid.is_empty() => uid.into(),
        _ => name.to_string().into(),
    };
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();

    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let mut declared_ports: Vec<u16> = containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| transport(port.protocol.as_deref()) == Transport::Tcp)
        .filter_map(|port| port_number(port.container_port))
        .collect();
    declared_ports.sort_unstable();
    declared_ports.dedup();

    let ips: Vec<&str> = match status.and_then(|status| status.pod_ips.as_deref()) {
        Some(ips) if !ips.is_empty() => ips.iter().map(|ip| ip.ip.as_str()).collect(),
        _ => status.and_then(|status| status.pod_ip.as_deref()).into_iter().collect(),
    };
    let workload = Arc::new(workload::workload(metadata, &name, names));
    Ok(PodRow {
        cgroup_uid: cgroup_uid(metadata, remarks).unwrap_or_else(|| uid.clone()),
        uid,
        name,
        node: spec.and_then(|spec| spec.node_name.as_deref()).map(|node| names.intern(node)),
        finished: matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed")),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        addresses: addresses("podIP", ips.into_iter().filter(|ip| !ip.is_empty()), remarks),
        enabled: enabled(metadata, remarks),
        on_enrol: on_enrol(metadata, remarks),
        netns: netns(metadata, remarks),
        declared_ports,
        mesh: sidecars::mesh(object),
        with_mesh: with_mesh(metadata, remarks),
        ambient: ambient(metadata),
        runtime_class: spec
            .and_then(|spec| spec.runtime_class_name.as_deref())
            .map(|class| names.intern(class)),
        workload,
        status_label: label(metadata, labels::STATUS).map(|status| names.intern(status)),
    })
}

/// The UID that a kubelet gave a static pod. A manifest may have one of its own, of any form: that could as well be another pod's
/// that somebody names here.
fn cgroup_uid(metadata: &ObjectMeta, remarks: &mut Remarks) -> Option<Arc<str>> {
    let uid = annotation(metadata, labels::CONFIG_MIRROR)?;
    let is_md5 =
        uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_md5 {
        return Some(uid.into());
    }
    remarks.push(format!(
        "annotation {} is \"{}\", not 32 hex digits as a kubelet makes them up: as if it were not there (a static pod whose \
         manifest has a uid of its own is not found)",
        labels::CONFIG_MIRROR,
        uid.escape_debug()
    ));
    None
}

fn netns(metadata: &ObjectMeta, remarks: &mut Remarks) -> Option<PathBuf> {
    let path = PathBuf::from(annotation(metadata, labels::NETNS)?);
    if path.is_absolute() {
        return Some(path);
    }
    remarks.push(format!(
        "annotation {} is \"{}\", not an absolute path: as if it were not there",
        labels::NETNS,
        path.display().to_string().escape_debug()
    ));
    None
}
