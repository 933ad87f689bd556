//! Which pods are enrolled.

use crate::sources::rows::{Enabled, Mesh, NamespaceRow, OnEnrol, PodRow};
use std::fmt;
use std::sync::Arc;

/// The first words of the names of runtime classes whose pods' sockets are not the node's kernel's: virtual machines and
/// user-space kernels.
const SANDBOXES: [&str; 4] = ["kata", "gvisor", "runsc", "firecracker"];

/// Why a pod is not enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotEnrolled {
    /// Its own label says no.
    OptedOut,
    /// Its own label says neither yes nor no.
    InvalidLabel(Arc<str>),
    /// Its namespace is not labelled, and neither is it.
    NamespaceNotEnabled,
    /// Its namespace's label says neither yes nor no.
    InvalidNamespaceLabel(Arc<str>),
    /// Nothing is known of its namespace (yet).
    NamespaceUnknown,
    /// It shares the node's network namespace.
    HostNetwork,
    /// Its containers have ended for good.
    Finished,
    /// It is another node's.
    OtherNode(Arc<str>),
    /// It is the agent's own.
    Agent,
    /// A service mesh redirects its connections.
    Mesh(Mesh),
    /// It runs in a sandbox, of this runtime class: its connections are not the node's kernel's to take.
    Sandboxed(Arc<str>),
}

impl NotEnrolled {
    /// Its name in metrics and Events.
    pub fn name(&self) -> &'static str {
        match self {
            NotEnrolled::OptedOut => "opted_out",
            NotEnrolled::InvalidLabel(_) => "invalid_label",
            NotEnrolled::NamespaceNotEnabled => "namespace_not_enabled",
            NotEnrolled::InvalidNamespaceLabel(_) => "invalid_namespace_label",
            NotEnrolled::NamespaceUnknown => "namespace_unknown",
            NotEnrolled::HostNetwork => "host_network",
            NotEnrolled::Finished => "finished",
            NotEnrolled::OtherNode(_) => "other_node",
            NotEnrolled::Agent => "agent",
            NotEnrolled::Mesh(_) => "service_mesh",
            NotEnrolled::Sandboxed(_) => "sandboxed_runtime",
        }
    }

    /// Whether somebody asked for the pod to be enrolled, and something is in the way.
    fn is_obstacle(&self) -> bool {
        match self {
            NotEnrolled::InvalidLabel(_)
            | NotEnrolled::InvalidNamespaceLabel(_)
            | NotEnrolled::HostNetwork
            | NotEnrolled::Mesh(_)
            | NotEnrolled::Sandboxed(_) => true,
            NotEnrolled::OptedOut
            | NotEnrolled::NamespaceNotEnabled
            | NotEnrolled::NamespaceUnknown
            | NotEnrolled::Finished
            | NotEnrolled::OtherNode(_)
            | NotEnrolled::Agent => false,
        }
    }
}

/// Who asks: what a decision depends on besides the pod and its namespace.
#[derive(Debug, Clone, Copy, Default)]
pub struct Here<'a> {
    /// This node's name, if it has one.
    pub node: Option<&'a str>,
    /// The agent's own pod.
    pub own_pod_uid: Option<&'a str>,
}

/// Whether a pod is to be enrolled. What its owners say comes first, so that they read their own word back; what stands in
/// the way comes after.
pub fn decide(pod: &PodRow, namespace: Option<&NamespaceRow>, here: Here<'_>) -> Result<(), NotEnrolled> {
    match (&pod.enabled, namespace.map(|namespace| &namespace.enabled)) {
        (Enabled::Yes, _) | (Enabled::Unset, Some(Enabled::Yes)) => {}
        (Enabled::No, _) => return Err(NotEnrolled::OptedOut),
        (Enabled::Invalid(value), _) => return Err(NotEnrolled::InvalidLabel(value.clone())),
        (Enabled::Unset, None) => return Err(NotEnrolled::NamespaceUnknown),
        (Enabled::Unset, Some(Enabled::Invalid(value))) => {
            return Err(NotEnrolled::InvalidNamespaceLabel(value.clone()));
        }
        (Enabled::Unset, Some(Enabled::Unset | Enabled::No)) => return Err(NotEnrolled::NamespaceNotEnabled),
    }
    is_ours(pod, here)?;
    if pod.host_network {
        return Err(NotEnrolled::HostNetwork);
    }
    if let Some(class) = pod.runtime_class.as_ref().filter(|class| is_sandbox(class)) {
        return Err(NotEnrolled::Sandboxed(class.clone()));
    }
    // Its redirection would take the agent's own connections, and its policy is not to be passed by.
    match mesh(pod, namespace) {
        Some(mesh) if !with_mesh(pod, namespace) => Err(NotEnrolled::Mesh(mesh)),
        _ => Ok(()),
    }
}

/// Whether a pod is one that the agent of this node could enrol, whatever its owners say.
fn is_ours(pod: &PodRow, here: Here<'_>) -> Result<(), NotEnrolled> {
    if here.own_pod_uid == Some(&pod.uid) {
        return Err(NotEnrolled::Agent);
    }
    // A pod that names no node was written by hand for this one.
    if let (Some(node), Some(here)) = (&pod.node, here.node)
        && **node != *here
    {
        return Err(NotEnrolled::OtherNode(node.clone()));
    }
    if pod.finished { Err(NotEnrolled::Finished) } else { Ok(()) }
}

/// Why a pod that somebody asked to be enrolled is not, where its owners have to be told.
pub fn refusal(pod: &PodRow, decision: &Result<(), NotEnrolled>, here: Here<'_>) -> Option<NotEnrolled> {
    let reason = decision.as_ref().err().filter(|reason| reason.is_obstacle())?;
    is_ours(pod, here).is_ok().then(|| reason.clone())
}

/// The mesh that has a pod. What is to be redirected by ztunnel counts before it is, so that it is never enrolled for a moment.
fn mesh(pod: &PodRow, namespace: Option<&NamespaceRow>) -> Option<Mesh> {
    let ambient = pod.ambient.unwrap_or(namespace.is_some_and(|namespace| namespace.ambient));
    pod.mesh.or(ambient.then_some(Mesh::IstioAmbient))
}

/// Whether a pod is to be enrolled though a mesh has it.
fn with_mesh(pod: &PodRow, namespace: Option<&NamespaceRow>) -> bool {
    pod.with_mesh.or(namespace.and_then(|namespace| namespace.with_mesh)) == Some(true)
}

/// Whether a runtime class is one of a sandbox, as far as its name says. What the name does not say shows when the pod's
/// processes are looked at.
fn is_sandbox(class: &str) -> bool {
    let first_word = class.split(['-', '.']).next().unwrap_or_default();
    SANDBOXES.contains(&first_word.trim_end_matches(|c: char| c.is_ascii_digit()))
}

/// What to do with the connections that a pod had before it was enrolled.
pub fn on_enrol(pod: &PodRow, namespace: Option<&NamespaceRow>) -> OnEnrol {
    pod.on_enrol.or(namespace.and_then(|namespace| namespace.on_enrol)).unwrap_or(OnEnrol::Keep)
}

impl fmt::Display for NotEnrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotEnrolled::OptedOut => f.write_str("the pod's label says no"),
            NotEnrolled::InvalidLabel(value) => {
                write!(f, "the pod's label is \"{}\", not \"true\" or \"false\"", value.escape_debug())
            }
            NotEnrolled::NamespaceNotEnabled => {
                f.write_str("the namespace is not labelled, and the pod is not either")
            }
            NotEnrolled::InvalidNamespaceLabel(value) => {
                write!(f, "the namespace's label is \"{}\", not \"true\" or \"false\"", value.escape_debug())
            }
            NotEnrolled::NamespaceUnknown => f.write_str("nothing is known of the pod's namespace"),
            NotEnrolled::HostNetwork => {
                f.write_str("the pod is in the node's network namespace (hostNetwork)")
            }
            NotEnrolled::Finished => f.write_str("the pod has finished"),
            NotEnrolled::OtherNode(node) => write!(f, "the pod is on another node, {node}"),
            NotEnrolled::Agent => f.write_str("the pod is the agent itself"),
            NotEnrolled::Mesh(mesh) => {
                let sign = match mesh {
                    Mesh::IstioSidecar => "a sidecar of Istio's",
                    Mesh::IstioAmbient => "Istio's ambient redirection",
                    Mesh::Linkerd => "a sidecar of Linkerd's",
                    Mesh::Consul => "a sidecar of Consul's",
                    Mesh::Kuma => "a sidecar of Kuma's",
                };
                write!(
                    f,
                    "the pod has {sign} (annotate it evenkeel.dev/with-mesh: \"true\" to enrol it all the same)"
                )
            }
            NotEnrolled::Sandboxed(class) => write!(
                f,
                "not capturable: by its runtime class, {}, the pod's connections are not the node's kernel's",
                class.escape_debug()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::sample;

    fn pod(enabled: Enabled) -> PodRow {
        sample::pod("cart-1", enabled)
    }

    fn namespace(enabled: Enabled, on_enrol: Option<OnEnrol>) -> NamespaceRow {
        NamespaceRow { on_enrol, ..sample::namespace(enabled) }
    }

    #[test]
    fn a_pods_label_wins_over_its_namespaces() {
        use Enabled::{Invalid, No, Unset, Yes};
        let odd = || Arc::<str>::from("yes");
        for (of_pod, of_namespace, expected) in [
            (Unset, Some(Yes), Ok(())),
            (Unset, Some(No), Err(NotEnrolled::NamespaceNotEnabled)),
            (Unset, Some(Unset), Err(NotEnrolled::NamespaceNotEnabled)),
            (Unset, Some(Invalid(odd())), Err(NotEnrolled::InvalidNamespaceLabel(odd()))),
            (Unset, None, Err(NotEnrolled::NamespaceUnknown)),
            (Yes, Some(Unset), Ok(())),
            (Yes, Some(No), Ok(())),
            (Yes, Some(Invalid(odd())), Ok(())),
            (Yes, None, Ok(())),
            (No, Some(Yes), Err(NotEnrolled::OptedOut)),
            (No, None, Err(NotEnrolled::OptedOut)),
            (Invalid(odd()), Some(Yes), Err(NotEnrolled::InvalidLabel(odd()))),
            (Invalid(odd()), None, Err(NotEnrolled::InvalidLabel(odd()))),
        ] {
            let namespace = of_namespace.clone().map(|enabled| namespace(enabled, None));
            let decision = decide(&pod(of_pod.clone()), namespace.as_ref(), Here::default());
            assert_eq!(decision, expected, "pod {of_pod:?}, namespace {of_namespace:?}");
        }
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let here = Here { node: Some("node-1"), own_pod_uid: Some("uid-agent") };
        let decide = |pod: PodRow| decide(&pod, None, here);
        let wanted = || pod(Enabled::Yes);
        assert_eq!(decide(wanted()), Ok(()));
        assert_eq!(decide(PodRow { node: None, ..wanted() }), Ok(()));
        assert_eq!(decide(PodRow { host_network: true, ..wanted() }), Err(NotEnrolled::HostNetwork));
        assert_eq!(decide(PodRow { finished: true, ..wanted() }), Err(NotEnrolled::Finished));
        assert_eq!(decide(PodRow { uid: "uid-agent".into(), ..wanted() }), Err(NotEnrolled::Agent));
        let elsewhere = decide(PodRow { node: Some("node-2".into()), ..wanted() });
        assert_eq!(elsewhere, Err(NotEnrolled::OtherNode("node-2".into())));
    }

    #[test]
    fn without_a_node_name_all_pods_are_this_nodes() {
        assert_eq!(decide(&pod(Enabled::Yes), None, Here::default()), Ok(()));
    }

    #[test]
    fn a_pod_that_a_mesh_has_is_left_alone_unless_it_or_its_namespace_asks() {
        for (mesh, of_pod, of_namespace, expected) in [
            (None, None, None, true),
            (Some(Mesh::Linkerd), None, None, false),
            (Some(Mesh::Linkerd), Some(true), None, true),
            (Some(Mesh::Linkerd), None, Some(true), true),
            (Some(Mesh::Linkerd), Some(false), Some(true), false),
            (None, Some(false), Some(false), true),
        ] {
            let pod = PodRow { mesh, with_mesh: of_pod, ..pod(Enabled::Yes) };
            let namespace = NamespaceRow { with_mesh: of_namespace, ..namespace(Enabled::Unset, None) };
            let decision = decide(&pod, Some(&namespace), Here::default());
            let wanted = if expected { Ok(()) } else { Err(NotEnrolled::Mesh(Mesh::Linkerd)) };
            assert_eq!(decision, wanted, "{mesh:?}, pod {of_pod:?}, namespace {of_namespace:?}");
        }
    }

    #[test]
    fn a_pod_that_ztunnel_is_to_have_counts_as_one_that_it_has() {
        for (of_pod, of_namespace, expected) in [
            (None, false, None),
            (None, true, Some(Mesh::IstioAmbient)),
            (Some(false), true, None),
            (Some(true), false, Some(Mesh::IstioAmbient)),
        ] {
            let pod = PodRow { ambient: of_pod, ..pod(Enabled::Yes) };
            let namespace = NamespaceRow { ambient: of_namespace, ..namespace(Enabled::Unset, None) };
            assert_eq!(mesh(&pod, Some(&namespace)), expected, "pod {of_pod:?}, namespace {of_namespace}");
        }
    }

    #[test]
    fn a_sandbox_is_told_by_the_name_of_its_runtime_class() {
        for (class, expected) in [
            ("kata", true),
            ("kata-qemu", true),
            ("kata2-clh", true),
            ("kata-mshv-vm-isolation", true),
            ("gvisor", true),
            ("gvisor.kvm", true),
            ("runsc", true),
            ("firecracker", true),
            ("runc", false),
            ("crun", false),
            ("nvidia", false),
            ("katalog", false),
            ("wasmtime-spin-v2", false),
        ] {
            let pod = PodRow { runtime_class: Some(class.into()), ..pod(Enabled::Yes) };
            let wanted = if expected { Err(NotEnrolled::Sandboxed(class.into())) } else { Ok(()) };
            assert_eq!(decide(&pod, None, Here::default()), wanted, "{class}");
        }
    }

    #[test]
    fn the_pods_word_on_old_connections_wins_over_its_namespaces() {
        use OnEnrol::{Keep, Reconnect, ReconnectMissed};
        for (of_pod, of_namespace, expected) in [
            (None, None, Keep),
            (None, Some(Reconnect), Reconnect),
            (None, Some(ReconnectMissed), ReconnectMissed),
            (None, Some(Keep), Keep),
            (Some(Reconnect), None, Reconnect),
            (Some(Reconnect), Some(Keep), Reconnect),
            (Some(Keep), Some(Reconnect), Keep),
            (Some(ReconnectMissed), Some(Reconnect), ReconnectMissed),
        ] {
            let pod = PodRow { on_enrol: of_pod, ..pod(Enabled::Yes) };
            let namespace = namespace(Enabled::Yes, of_namespace);
            let decided = on_enrol(&pod, Some(&namespace));
            assert_eq!(decided, expected, "pod {of_pod:?}, namespace {of_namespace:?}");
        }
    }
}
