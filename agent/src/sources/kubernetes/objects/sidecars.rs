//! Whether a service mesh has a pod: its injector's mark, or its proxy among the containers.

use super::metadata::annotation;
use crate::sources::rows::Mesh;
use k8s_openapi::api::core::v1::Pod;

/// What an injector writes on a pod that it has changed, or a CNI plugin on one that it redirects.
const MARKS: [(&str, Option<&str>, Mesh); 5] = [
    ("sidecar.istio.io/status", None, Mesh::IstioSidecar),
    ("ambient.istio.io/redirection", Some("enabled"), Mesh::IstioAmbient),
    ("linkerd.io/proxy-version", None, Mesh::Linkerd),
    ("consul.hashicorp.com/connect-inject-status", Some("injected"), Mesh::Consul),
    ("kuma.io/sidecar-injected", Some("true"), Mesh::Kuma),
];

/// The names of the meshes' proxies; a native sidecar stands among the init containers.
const PROXIES: [(&str, Mesh); 4] = [
    ("istio-proxy", Mesh::IstioSidecar),
    ("linkerd-proxy", Mesh::Linkerd),
    ("consul-dataplane", Mesh::Consul),
    ("kuma-sidecar", Mesh::Kuma),
];

/// The mesh that redirects a pod's connections.
pub(super) fn mesh(pod: &Pod) -> Option<Mesh> {
    let marked = MARKS.iter().find(|(key, wanted, _)| {
        annotation(&pod.metadata, key).is_some_and(|value| wanted.is_none_or(|wanted| value == wanted))
    });
    if let Some((.., mesh)) = marked {
        return Some(*mesh);
    }
    let spec = pod.spec.as_ref()?;
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers
        .find_map(|container| PROXIES.iter().find(|(name, _)| *name == container.name).map(|(_, mesh)| *mesh))
}
