//! The Kubernetes objects of a test, written as the YAML that a cluster would hold.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// String keys and values: labels, annotations.
pub type Pairs = BTreeMap<String, String>;

/// The label by which namespaces and pods are enrolled.
pub const ENABLED_LABEL: &str = "evenkeel.dev/enabled";
/// The label by which the agent says what became of a pod, where it is asked to.
pub const STATUS_LABEL: &str = "evenkeel.dev/status";
/// The annotation that says what becomes of connections older than the enrolment.
pub const ON_ENROL_ANNOTATION: &str = "evenkeel.dev/on-enrol";
/// The annotation that names a pod's network namespace, for hosts without a kubelet.
pub const NETNS_ANNOTATION: &str = "evenkeel.dev/netns";
/// Of a static pod's mirror: the UID that its cgroup has.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The annotation that chooses a Service's picker.
pub const PICKER_ANNOTATION: &str = "evenkeel.dev/picker";

/// The annotation that has calls of a Service sent again.
pub const RETRY_ANNOTATION: &str = "evenkeel.dev/retry";
/// The annotation that says how much a pod may have under way to a Service.
pub const CIRCUIT_BREAKER_ANNOTATION: &str = "evenkeel.dev/circuit-breaker";
/// The annotation that has a Service's endpoints asked for their health.
pub const HEALTH_CHECK_ANNOTATION: &str = "evenkeel.dev/health-check";
/// The annotation that says when an endpoint that fails calls is left out.
pub const EJECTION_ANNOTATION: &str = "evenkeel.dev/ejection";

/// A Namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Pairs,
    /// `metadata.annotations`.
    pub annotations: Pairs,
}

/// A Pod, as far as the agent reads it.
#[derive(Clone, Debug)]
pub struct PodObject {
    /// Its Namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Pairs,
    /// `metadata.annotations`.
    pub annotations: Pairs,
    /// `spec.nodeName`.
    pub node: String,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `spec.containers[0].ports`: what it says that it listens on.
    pub container_ports: Vec<u16>,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
}

/// A Service and its EndpointSlices.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its Namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.annotations`.
    pub annotations: Pairs,
    /// The IPv4 ClusterIP.
    pub ipv4: Ipv4Addr,
    /// The IPv6 ClusterIP.
    pub ipv6: Ipv6Addr,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// What its EndpointSlices hold.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a [`Service`].
#[derive(Clone, Debug)]
pub struct ServicePort {
    /// `name`, by which a port may be known as gRPC.
    pub name: String,
    /// `protocol`.
    pub protocol: &'static str,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
    /// The ClusterIP's port.
    pub port: u16,
    /// The endpoints' port.
    pub target_port: u16,
}

/// An endpoint of a [`Service`].
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The pod's name.
    pub pod: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// `conditions.ready`.
    pub ready: bool,
}

impl Service {
    /// The address that clients dial over IPv4, on the first port.
    pub fn v4(&self) -> String {
        format!("{}:{}", self.ipv4, self.ports[0].port)
    }

    /// The address that clients dial over IPv6, on the first port.
    pub fn v6(&self) -> String {
        format!("[{}]:{}", self.ipv6, self.ports[0].port)
    }

    fn slice(&self, suffix: &str, address_type: &str, addresses: &dyn Fn(&Endpoint) -> IpAddr) -> Value {
        let endpoints: Vec<Value> = self
            .endpoints
            .iter()
            .map(|endpoint| {
                json!({
                    "addresses": [addresses(endpoint)],
                    "conditions": {"ready": endpoint.ready},
                    "targetRef": {"kind": "Pod", "namespace": self.namespace, "name": endpoint.pod},
                })
            })
            .collect();
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| {
                with_app_protocol(
                    port,
                    json!({"name": port.name, "port": port.target_port, "protocol": port.protocol}),
                )
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.namespace,
                "name": format!("{}-{suffix}", self.name),
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": address_type,
            "endpoints": endpoints,
            "ports": ports,
        })
    }

    /// The Service, then its slices, one an address family.
    pub fn objects(&self) -> Vec<Value> {
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| {
                with_app_protocol(port, json!({
                    "name": port.name, "port": port.port, "targetPort": port.target_port, "protocol": port.protocol,
                }))
            })
            .collect();
        vec![
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"namespace": self.namespace, "name": self.name, "annotations": self.annotations},
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": self.ipv4,
                    "clusterIPs": [self.ipv4.to_string(), self.ipv6.to_string()],
                    "ipFamilies": ["IPv4", "IPv6"],
                    "ports": ports,
                },
            }),
            self.slice("v4", "IPv4", &|endpoint| endpoint.ipv4.into()),
            self.slice("v6", "IPv6", &|endpoint| endpoint.ipv6.into()),
        ]
    }
}

fn with_app_protocol(port: &ServicePort, mut object: Value) -> Value {
    if let Some(app_protocol) = &port.app_protocol {
        object["appProtocol"] = json!(app_protocol);
    }
    object
}

impl Namespace {
    /// The object.
    pub fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.name, "labels": self.labels, "annotations": self.annotations},
        })
    }
}

impl PodObject {
    /// The object.
    pub fn object(&self) -> Value {
        let ports: Vec<Value> =
            self.container_ports.iter().map(|port| json!({"containerPort": port})).collect();
        let addresses: Vec<Value> = self.addresses.iter().map(|address| json!({"ip": address})).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": self.namespace, "name": self.name, "uid": self.uid,
                "labels": self.labels, "annotations": self.annotations,
            },
            "spec": {
                "nodeName": self.node,
                "hostNetwork": self.host_network,
                "containers": [{"name": "app", "image": "app", "ports": ports}],
            },
            "status": {
                "phase": "Running",
                "podIP": self.addresses.first(),
                "podIPs": addresses,
            },
        })
    }
}

/// The documents of one file.
///
/// # Errors
/// Never for objects made here.
pub fn to_yaml(objects: &[Value]) -> anyhow::Result<String> {
    let documents: Vec<String> = objects.iter().map(serde_saphyr::to_string).collect::<Result<_, _>>()?;
    Ok(documents.join("---\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_reads_back_as_the_object_it_was_written_from() {
        let namespace = Namespace {
            name: "shop".to_owned(),
            labels: Pairs::from([(ENABLED_LABEL.to_owned(), "true".to_owned())]),
            annotations: Pairs::new(),
        };
        let yaml = to_yaml(&[namespace.object()]).expect("plain values");
        let read: Value = serde_saphyr::from_str(&yaml).expect("own YAML");
        assert_eq!(read, namespace.object(), "{yaml}");
    }
}
