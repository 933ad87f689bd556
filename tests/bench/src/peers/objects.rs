//! The Kubernetes objects that an agent under test goes by: an enrolled pod, and one Service.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::pod::Pod;

/// Nothing has this address: only a connection that was taken arrives.
pub(super) const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 9, 9);
pub(super) const PORT: u16 = 50_051;
const NAMESPACE: &str = "bench";
const SERVICE: &str = "servers";

/// A Service and where its calls go.
pub(super) struct Service {
    /// How it chooses an endpoint.
    pub(super) annotations: Value,
    pub(super) slices: Vec<Slice>,
}

/// Endpoints that are one backend's.
pub(super) struct Slice {
    pub(super) port: u16,
    pub(super) addresses: Vec<Ipv4Addr>,
}

pub(super) fn objects(pod: &Pod, pod_address: Ipv4Addr, service: &Service) -> Vec<Value> {
    let mut objects = vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": NAMESPACE, "labels": { "evenkeel.dev/enabled": "true" } },
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": NAMESPACE, "name": "load", "uid": "6a0f6f0e-0000-4000-8000-000000000001",
                "annotations": { "evenkeel.dev/netns": pod.netns() },
            },
            "spec": { "containers": [{ "name": "load", "image": "load" }] },
            "status": { "phase": "Running", "podIP": pod_address, "podIPs": [{ "ip": pod_address }] },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "namespace": NAMESPACE, "name": SERVICE, "annotations": service.annotations },
            "spec": {
                "clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP],
                "ports": [{ "name": "grpc", "protocol": "TCP", "port": PORT, "targetPort": "grpc" }],
            },
        }),
    ];
    objects.extend(service.slices.iter().zip(1..).map(|(slice, number)| slice.object(number)));
    objects
}

impl Slice {
    fn object(&self, number: usize) -> Value {
        let endpoint = |(address, of): (&Ipv4Addr, usize)| {
            json!({
                "addresses": [address], "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "namespace": NAMESPACE, "name": pod_name(number, of) },
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE, "name": format!("{SERVICE}-{number}"),
                "labels": { "kubernetes.io/service-name": SERVICE },
            },
            "addressType": "IPv4",
            "endpoints": self.addresses.iter().zip(0..).map(endpoint).collect::<Vec<_>>(),
            "ports": [{ "name": "grpc", "protocol": "TCP", "port": self.port }],
        })
    }
}

/// As the pods of one Deployment are called.
fn pod_name(slice: usize, endpoint: usize) -> String {
    /// The letters of names that Kubernetes makes up.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = slice * usize::from(u16::MAX) + endpoint;
    let letters = [(); 5].map(|()| {
        let letter = LETTERS[rest % LETTERS.len()];
        rest /= LETTERS.len();
        char::from(letter)
    });
    format!("{SERVICE}-7c9d6b5f4d-{}", letters.iter().collect::<String>())
}
