//! The kinds that are watched: where each is, what of it is asked for, and how it becomes a row. A further kind is a
//! further entry of [`KINDS`]. Next: [`watch`](super::watch).
//!
//! An object is read into a narrow form, which leaves `managedFields`, often the largest part, where it is, and dropped as
//! soon as its row is made.

use super::fault::Fault;
use super::labels;
use super::objects::{self, Refusal, Remarks};
use crate::mesh::ObjectName;
use crate::sources::intern::Interner;
use crate::sources::rows::Row;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus, Service, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A kind of object that is watched.
#[derive(Debug)]
pub struct Kind {
    /// Its name, as objects have it.
    pub kind: &'static str,
    /// Its name, as paths and RBAC rules have it.
    pub resource: &'static str,
    /// Its API group; empty for the core's.
    pub group: &'static str,
    /// The version of the group.
    version: &'static str,
    /// Which of its objects are asked for.
    which: Which,
    /// Metadata alone is asked for, and sent.
    metadata_only: bool,
    /// Whether the agent serves without it.
    pub optional: bool,
    /// Reads an object.
    read: fn(&[u8], &mut Interner) -> serde_json::Result<Object>,
}

/// Which objects of a kind are asked for.
#[derive(Clone, Copy, Debug)]
enum Which {
    /// All.
    All,
    /// Those that the node's own proxy serves, as kube-proxy asks for them.
    OfNodeProxy,
    /// Those that are bound to this node.
    OnThisNode,
    /// The one that has this node's name.
    ThisNode,
}

/// What is watched, in no order.
pub static KINDS: [Kind; 5] = [
    Kind {
        kind: "Service",
        resource: "services",
        group: "",
        version: "v1",
        which: Which::OfNodeProxy,
        metadata_only: false,
        optional: false,
        read: |json, names| {
            let Whole { metadata, spec, status } =
                serde_json::from_slice::<Whole<ServiceSpec, ServiceStatus>>(json)?;
            Ok(object(metadata, names, |metadata, names, remarks| {
                let service = Service { metadata, spec, status };
                Ok(Some(Row::Service(Arc::new(objects::service(&service, names, remarks)?))))
            }))
        },
    },
    Kind {
        kind: "EndpointSlice",
        resource: "endpointslices",
        group: "discovery.k8s.io",
        version: "v1",
        which: Which::OfNodeProxy,
        metadata_only: false,
        optional: false,
        read: |json, names| {
            let Slice { metadata, address_type, endpoints, ports } = serde_json::from_slice(json)?;
            Ok(object(metadata, names, |metadata, names, remarks| {
                let slice =
                    EndpointSlice { metadata, address_type, endpoints: endpoints.unwrap_or_default(), ports };
                Ok(objects::slice(&slice, names, remarks)?.map(|row| Row::Slice(Arc::new(row))))
            }))
        },
    },
    Kind {
        kind: "Pod",
        resource: "pods",
        group: "",
        version: "v1",
        which: Which::OnThisNode,
        metadata_only: false,
        optional: false,
        read: |json, names| {
            let Whole { metadata, spec, status } = serde_json::from_slice::<Whole<PodSpec, PodStatus>>(json)?;
            Ok(object(metadata, names, |metadata, names, remarks| {
                let pod = Pod { metadata, spec, status };
                Ok(Some(Row::Pod(Arc::new(objects::pod(&pod, names, remarks)?))))
            }))
        },
    },
    Kind {
        kind: "Namespace",
        resource: "namespaces",
        group: "",
        version: "v1",
        which: Which::All,
        metadata_only: true,
        optional: false,
        read: |json, names| {
            let Bare { metadata } = serde_json::from_slice(json)?;
            Ok(object(metadata, names, |metadata, names, remarks| {
                Ok(Some(Row::Namespace(Arc::new(objects::namespace(&metadata, names, remarks)?))))
            }))
        },
    },
    Kind {
        kind: "Node",
        resource: "nodes",
        group: "",
        version: "v1",
        which: Which::ThisNode,
        metadata_only: true,
        // Its zone is all that comes from it: without, endpoints are not chosen by zone.
        optional: true,
        read: |json, names| {
            let Bare { metadata } = serde_json::from_slice(json)?;
            Ok(object(metadata, names, |metadata, names, _| {
                Ok(Some(Row::Node(Arc::new(objects::node(&metadata, names)?))))
            }))
        },
    },
];

/// What became of an object.
#[derive(Debug)]
pub(super) struct Object {
    /// Its name; the namespace is empty where the kind has none.
    pub(super) name: ObjectName,
    /// Its resource version.
    pub(super) version: String,
    /// Its row; none for one that is of no use.
    pub(super) row: Option<Row>,
    /// What of it is not used, and why.
    pub(super) remarks: Remarks,
}

impl Object {
    /// Has a pod be found by its processes alone. A path leads to any namespace of the node, the node's own and other
    /// tenants' among them, and whoever may make a pod may write one.
    pub(super) fn ignore_netns(&mut self) {
        if let Some(Row::Pod(row)) = &mut self.row
            && row.netns.is_some()
        {
            Arc::make_mut(row).netns = None;
            self.remarks.push(format!(
                "annotation {} counts only where the agent runs with --netns-annotation, on hosts without a kubelet: as \
                 if it were not there",
                labels::NETNS
            ));
        }
    }
}

impl Kind {
    /// The path of its collection.
    pub fn path(&self) -> String {
        let Self { resource, group, version, .. } = self;
        if group.is_empty() {
            format!("/api/{version}/{resource}")
        } else {
            format!("/apis/{group}/{version}/{resource}")
        }
    }

    /// The part of a query that says which objects, for this node; percent-encoded.
    pub(super) fn selection(&self, node: &str) -> String {
        match self.which {
            Which::All => String::new(),
            Which::OfNodeProxy => format!("&labelSelector=%21{}", encoded(labels::SERVICE_PROXY_NAME)),
            Which::OnThisNode => format!("&fieldSelector=spec.nodeName%3D{}", encoded(node)),
            Which::ThisNode => format!("&fieldSelector=metadata.name%3D{}", encoded(node)),
        }
    }

    /// The form in which a list is asked for.
    pub(super) fn list_form(&self) -> &'static str {
        match self.metadata_only {
            true => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            false => "application/json",
        }
    }

    /// The form in which an object of a watch is asked for.
    pub(super) fn watch_form(&self) -> &'static str {
        match self.metadata_only {
            true => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            false => "application/json",
        }
    }

    /// Reads an object. One that is not as its kind has to be is left out, and its remark says so.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for what has not even a name.
    pub(super) fn read(&self, json: &[u8], names: &mut Interner) -> Result<Object, Fault> {
        (self.read)(json, names).or_else(|error| {
            let Bare { metadata } = serde_json::from_slice(json).map_err(|_| self.malformed(&error))?;
            Ok(object(metadata, names, |_, _, _| Err(format!("can't be read: {error}; passed over"))))
        })
    }

    fn malformed(&self, error: &serde_json::Error) -> Fault {
        Fault::Malformed(format!("of {}: {error}", self.resource))
    }
}

fn object(
    metadata: Metadata,
    names: &mut Interner,
    make: impl FnOnce(ObjectMeta, &mut Interner, &mut Remarks) -> Result<Option<Row>, Refusal>,
) -> Object {
    let Metadata { name, namespace, uid, resource_version, labels, annotations } = metadata;
    let object_name = ObjectName {
        namespace: names.intern(namespace.as_deref().unwrap_or_default()),
        name: name.as_str().into(),
    };
    let metadata =
        ObjectMeta { name: Some(name), namespace, uid, labels, annotations, ..ObjectMeta::default() };
    let mut remarks = Remarks::new();
    let row = make(metadata, names, &mut remarks).unwrap_or_else(|refusal| {
        remarks.push(refusal);
        None
    });
    Object { name: object_name, version: resource_version, row, remarks }
}

/// Names are of letters, digits, `-`, `.` and, in labels, `/`: all else is escaped.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    #[serde(default)]
    resource_version: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Bare {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Whole<Spec, Status> {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Metadata,
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<EndpointPort>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(resource: &str) -> &'static Kind {
        KINDS.iter().find(|kind| kind.resource == resource).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_what_is_used() {
        assert_eq!(kind("services").path(), "/api/v1/services");
        assert_eq!(kind("endpointslices").path(), "/apis/discovery.k8s.io/v1/endpointslices");
        let other_proxy = "&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name";
        assert_eq!(kind("services").selection("n1"), other_proxy);
        assert_eq!(kind("endpointslices").selection("n1"), other_proxy);
        assert_eq!(kind("pods").selection("n1"), "&fieldSelector=spec.nodeName%3Dn1");
        assert_eq!(kind("nodes").selection("a&b"), "&fieldSelector=metadata.name%3Da%26b");
        assert!(kind("namespaces").watch_form().contains("PartialObjectMetadata;"));
        assert!(!kind("pods").metadata_only);
    }

    #[test]
    fn an_object_becomes_a_row_and_what_is_not_read_does_not_matter() {
        let json = br#"{"kind":"PartialObjectMetadata","metadata":{"name":"shop","resourceVersion":"7",
            "labels":{"evenkeel.dev/enabled":"yes"},"managedFields":[{"fieldsV1":{"f:x":{}}}],"later":1},"new":{}}"#;
        let object = kind("namespaces").read(json, &mut Interner::default()).unwrap();
        assert_eq!((&*object.name.namespace, &*object.name.name, &*object.version), ("", "shop", "7"));
        assert!(matches!(object.row, Some(Row::Namespace(_))));
        assert!(object.remarks[0].contains("\"yes\""), "{:?}", object.remarks);
    }

    #[test]
    fn a_slice_without_endpoints_or_ports_is_one() {
        let json =
            br#"{"metadata":{"name":"a-1","namespace":"shop","labels":{"kubernetes.io/service-name":"a"}},
            "addressType":"IPv4","endpoints":null,"ports":null}"#;
        let object = kind("endpointslices").read(json, &mut Interner::default()).unwrap();
        assert!(object.remarks.is_empty(), "{:?}", object.remarks);
        assert!(matches!(object.row, Some(Row::Slice(row)) if row.endpoints.is_empty()));
    }

    #[test]
    fn an_object_that_can_not_be_read_is_left_out_by_its_name() {
        let json = br#"{"metadata":{"name":"cart","namespace":"shop"},"spec":{"ports":"all"}}"#;
        let object = kind("services").read(json, &mut Interner::default()).unwrap();
        assert_eq!(object.name.to_string(), "shop/cart");
        assert!(object.row.is_none() && object.remarks[0].contains("can't be read"), "{:?}", object.remarks);
    }

    #[test]
    fn an_object_that_is_none_is_a_fault_of_the_server() {
        for json in ["{}", r#"{"metadata":{}}"#, "[", r#"{"metadata":{"name":1}}"#] {
            assert!(matches!(
                kind("services").read(json.as_bytes(), &mut Interner::default()),
                Err(Fault::Malformed(_))
            ));
        }
    }
}
