//! What the fields of an object come to, by table. Remarks on broken ones are tested with the folder's parser.

use super::*;
use crate::sources::rows::{Access, Mesh, OnEnrol, PodRow, ServiceRow, Waypoint};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn service_of(spec: &Value, status: &Value) -> ServiceRow {
    let value = json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": spec, "status": status});
    service(&object::<Service>(value), &mut Interner::default(), &mut Remarks::new()).unwrap()
}

fn pod_of(metadata: &Value, spec: &Value) -> PodRow {
    let mut value = json!({"metadata": {"name": "cart-1", "namespace": "shop", "uid": "u"}, "spec": spec});
    let own = value["metadata"].as_object_mut().unwrap();
    own.extend(metadata.as_object().unwrap().clone());
    pod(&object::<Pod>(value), &mut Interner::default(), &mut Remarks::new()).unwrap()
}

#[test]
fn a_load_balancers_addresses_say_how_they_are_reached() {
    use Access::{BySourceRange, Direct, ThroughLoadBalancer};
    for (ranges, ingress, expected) in [
        (json!([]), json!({"ip": "192.0.2.1"}), Some(Direct)),
        (json!([]), json!({"ip": "192.0.2.1", "ipMode": "VIP"}), Some(Direct)),
        (json!([]), json!({"ip": "192.0.2.1", "ipMode": "Proxy"}), Some(ThroughLoadBalancer)),
        (json!([]), json!({"ip": "192.0.2.1", "ipMode": "SomethingElse"}), Some(ThroughLoadBalancer)),
        (json!([]), json!({"hostname": "lb.example.com"}), None),
        (json!([]), json!({"ip": "nonsense"}), None),
        (json!(["10.0.0.0/8"]), json!({"ip": "192.0.2.1"}), Some(BySourceRange)),
        (json!(["10.0.0.0/8"]), json!({"ip": "192.0.2.1", "ipMode": "Proxy"}), Some(ThroughLoadBalancer)),
        // Ranges count for their family, and one of all addresses lets everybody in.
        (json!(["10.0.0.0/8"]), json!({"ip": "2001:db8::1"}), Some(Direct)),
        (json!(["fd00::/8"]), json!({"ip": "2001:db8::1"}), Some(BySourceRange)),
        (json!([" 0.0.0.0/0 ", "10.0.0.0/8"]), json!({"ip": "192.0.2.1"}), Some(Direct)),
        (json!(["::/0", "10.0.0.0/8"]), json!({"ip": "192.0.2.1"}), Some(BySourceRange)),
    ] {
        let told = format!("{ranges} {ingress}");
        let row = service_of(
            &json!({"loadBalancerSourceRanges": ranges, "clusterIP": "10.96.0.1"}),
            &json!({"loadBalancer": {"ingress": [ingress]}}),
        );
        let found: Vec<_> = row.load_balancer.iter().map(|address| address.access).collect();
        assert_eq!(found, Vec::from_iter(expected), "{told}");
    }
}

#[test]
fn what_a_service_says_on_its_traffic_is_read() {
    let plain =
        service_of(&json!({"internalTrafficPolicy": "Cluster", "sessionAffinity": "None"}), &json!({}));
    assert!(!plain.internal_traffic_local && !plain.source_affinity && plain.traffic_distribution.is_none());
    let row = service_of(
        &json!({
            "internalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "trafficDistribution": "PreferSameZone",
            "ports": [{"port": 80, "nodePort": 30080, "targetPort": "http"}],
        }),
        &json!({}),
    );
    assert!(row.internal_traffic_local && row.source_affinity);
    assert_eq!(row.traffic_distribution.as_deref(), Some("PreferSameZone"));
    assert_eq!((row.ports[0].node_port, row.ports[0].target.as_deref()), (Some(30_080), Some("http")));
}

#[test]
fn hints_are_read_and_shared_within_a_slice() {
    let hints = |zones: &[&str], nodes: &[&str]| {
        let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        json!({"addresses": ["10.0.0.1"], "hints": {"forZones": named(zones), "forNodes": named(nodes)}})
    };
    let value = json!({
        "metadata": {"name": "cart-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": "IPv4",
        "ports": [],
        "endpoints": [
            hints(&["a"], &[]),
            hints(&["a"], &[]),
            hints(&["a", "b"], &["n"]),
            hints(&[], &[]),
            {"addresses": ["10.0.0.2"]},
        ],
    });
    let mut names = Interner::default();
    let row = slice(&object::<EndpointSlice>(value), &mut names, &mut Remarks::new()).unwrap().unwrap();
    let found: Vec<_> = row.endpoints.iter().map(|endpoint| endpoint.hints.as_ref()).collect();
    let [Some(first), Some(same), Some(other), None, None] = found[..] else { panic!("{found:?}") };
    assert!(Arc::ptr_eq(first, same));
    assert_eq!((&*first.zones, &*first.nodes), (&[names.intern("a")][..], &[][..]));
    assert_eq!((other.zones.len(), &*other.nodes), (2, &[names.intern("n")][..]));
}

#[test]
fn what_a_slice_says_reaches_no_terminal_as_it_is() {
    let told = |address_type: &str, address: &str| {
        let value = json!({
            "metadata": {"name": "cart-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
            "addressType": address_type, "ports": [], "endpoints": [{"addresses": [address]}],
        });
        let mut remarks = Remarks::new();
        match slice(&object::<EndpointSlice>(value), &mut Interner::default(), &mut remarks) {
            Ok(_) => remarks.concat(),
            Err(refusal) => refusal,
        }
    };
    for text in [told("\u{1b}[2J", "10.0.0.1"), told("IPv4", "10.0.0.1\u{1b}[2J")] {
        assert!(text.contains("\\u{1b}[2J") && !text.contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn a_mesh_is_told_by_its_injectors_mark_or_its_proxy() {
    let marked = |key: &str, value: &str| (json!({"annotations": {key: value}}), json!({"containers": []}));
    let with = |containers: &[&str], init_containers: &[&str]| {
        let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        (json!({}), json!({"containers": named(containers), "initContainers": named(init_containers)}))
    };
    for ((metadata, spec), expected) in [
        (marked("sidecar.istio.io/status", "{}"), Some(Mesh::IstioSidecar)),
        (marked("sidecar.istio.io/inject", "true"), None),
        (marked("ambient.istio.io/redirection", "enabled"), Some(Mesh::IstioAmbient)),
        (marked("ambient.istio.io/redirection", "disabled"), None),
        (marked("linkerd.io/proxy-version", "edge-25.1.1"), Some(Mesh::Linkerd)),
        (marked("linkerd.io/inject", "enabled"), None),
        (marked("consul.hashicorp.com/connect-inject-status", "injected"), Some(Mesh::Consul)),
        (marked("kuma.io/sidecar-injected", "true"), Some(Mesh::Kuma)),
        (marked("kuma.io/sidecar-injected", "false"), None),
        (with(&["cart", "istio-proxy"], &[]), Some(Mesh::IstioSidecar)),
        (with(&["cart"], &["istio-init", "istio-proxy"]), Some(Mesh::IstioSidecar)),
        (with(&["cart"], &["linkerd-init"]), None),
        (with(&["cart"], &["linkerd-proxy"]), Some(Mesh::Linkerd)),
        (with(&["cart", "consul-dataplane"], &[]), Some(Mesh::Consul)),
        (with(&["cart", "kuma-sidecar"], &[]), Some(Mesh::Kuma)),
        (with(&["cart", "envoy"], &[]), None),
    ] {
        let told = format!("{metadata} {spec}");
        assert_eq!(pod_of(&metadata, &spec).mesh, expected, "{told}");
    }
}

#[test]
fn what_a_pod_says_on_itself_is_read() {
    let row = pod_of(
        &json!({
            "annotations": {
                "evenkeel.dev/with-mesh": "true",
                "evenkeel.dev/on-enrol": "reconnect-missed",
                "kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef",
                "kubernetes.io/config.hash": "another",
            },
            "labels": {"istio.io/dataplane-mode": "none"},
        }),
        &json!({"containers": [], "runtimeClassName": "kata", "hostUsers": false}),
    );
    assert_eq!((row.with_mesh, row.on_enrol), (Some(true), Some(OnEnrol::ReconnectMissed)));
    assert_eq!((row.ambient, row.runtime_class.as_deref()), (Some(false), Some("kata")));
    assert_eq!((&*row.uid, &*row.cgroup_uid), ("u", "0123456789abcdef0123456789abcdef"));
    let ambient =
        pod_of(&json!({"labels": {"istio.io/dataplane-mode": "ambient"}}), &json!({"containers": []}));
    assert_eq!(ambient.ambient, Some(true));
}

#[test]
fn a_pod_can_not_pass_for_another_by_calling_itself_its_mirror() {
    for claimed in
        ["6ec0a7e5-0000-4000-8000-0000000002aa", "", "0123456789ABCDEF0123456789ABCDEF", "\u{1b}[1m"]
    {
        let value = json!({"metadata": {
            "name": "cart-1", "uid": "u", "annotations": {"kubernetes.io/config.mirror": claimed},
        }});
        let mut remarks = Remarks::new();
        let row = pod(&object::<Pod>(value), &mut Interner::default(), &mut remarks).unwrap();
        assert_eq!(&*row.cgroup_uid, "u", "{claimed:?}");
        assert!(remarks[0].contains("config.mirror") && !remarks[0].contains('\u{1b}'), "{remarks:?}");
    }
}

#[test]
fn a_namespace_and_a_node_need_no_more_than_their_metadata() {
    let (mut names, mut remarks) = (Interner::default(), Remarks::new());
    let value = json!({"metadata": {
        "name": "shop",
        "labels": {"istio.io/use-waypoint": "gate", "istio.io/dataplane-mode": "ambient"},
        "annotations": {"evenkeel.dev/with-mesh": "yes"},
    }});
    let row = namespace(&object::<Namespace>(value).metadata, &mut names, &mut remarks).unwrap();
    assert_eq!((row.waypoint, row.ambient, row.with_mesh), (Waypoint::Named("gate".into()), true, None));
    let remark =
        "annotation evenkeel.dev/with-mesh is \"yes\", not \"true\" or \"false\": as if it were not there";
    assert_eq!(remarks, [remark]);

    for (label, expected) in [(Some("zone-a"), Some("zone-a")), (Some(""), None), (None, None)] {
        let labels = label.map_or(json!({}), |zone| json!({"topology.kubernetes.io/zone": zone}));
        let value = json!({"metadata": {"name": "node-1", "labels": labels}});
        let row = node(&object::<Node>(value).metadata, &mut names).unwrap();
        assert_eq!((&*row.name, row.zone.as_deref()), ("node-1", expected));
    }
}

#[test]
fn a_row_survives_being_kept_in_a_file() {
    use crate::sources::Row;
    let service = service_of(
        &json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "name": "grpc"}]}),
        &json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}),
    );
    let pod = pod_of(&json!({"labels": {"evenkeel.dev/enabled": "maybe"}}), &json!({"containers": []}));
    for row in [Row::Service(Arc::new(service)), Row::Pod(Arc::new(pod))] {
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }
}
