use super::*;
use crate::sources::rows::{SlicePortRow, Transport};

fn read(text: &str) -> Result<Contents, Fault> {
    parse(text.as_bytes(), &mut Interner::default())
}

fn contents(text: &str) -> Contents {
    read(text).unwrap_or_else(|fault| panic!("{fault:?}"))
}

fn objects(contents: &Contents) -> Vec<String> {
    contents.objects.iter().map(|object| format!("{}: {}", object.line, object.name)).collect()
}

fn remarks(contents: &Contents) -> Vec<String> {
    let remark = |remark: &Remark| {
        let line = remark.line.map(|line| format!("{line}: ")).unwrap_or_default();
        let object = remark.object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
        format!("{line}{object}{}", remark.cause)
    };
    contents.remarks.iter().map(remark).collect()
}

fn service(contents: &Contents, at: usize) -> &crate::sources::rows::ServiceRow {
    match &contents.objects[at].row {
        Row::Service(row) => row,
        other => panic!("{other:?}"),
    }
}

/// What users of other meshes have: a workload, a Service with a port named `grpc`, routes of Istio's.
const MESH_USERS_FILE: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: server
  namespace: test
spec:
  replicas: 1
  selector:
    matchLabels:
      app: server
  template:
    metadata:
      labels:
        app: server
    spec:
      containers:
      - name: server
        image: registry.example/grpc_server:latest

---

apiVersion: v1
kind: Service
metadata:
  name: server
  namespace: test
  labels:
    app: server
spec:
  type: ClusterIP
  ports:
  - port: 8000
    protocol: TCP
    targetPort: 50051
    name: grpc
  selector:
    app: server
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: grpc-server
  namespace: test
spec:
  hosts: [grpc.example.com]
  http:
  - match:
    - authority:
        exact: grpc.example.com
    route:
    - destination:
        host: server
        port:
          number: 8000
---
kind: Service
apiVersion: v1
metadata:
  name: grpc
  namespace: grpc
spec:
  ports:
    - name: grpc
      protocol: TCP
      port: 9000
      targetPort: 9000
  selector:
    app: grpc
---
apiVersion: v1
kind: Service
metadata:
  name: main-server
spec:
  ports:
  - name: grpc
    port: 8888
---
kind: Route
apiVersion: route.openshift.io/v1
metadata:
  name: grpc-gateway
spec:
  to: {kind: Service, name: istio-ingressgateway, weight: 100}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: not-a-core-service}
"#;

#[test]
fn what_users_of_meshes_have_is_read_as_it_stands() {
    let contents = contents(MESH_USERS_FILE);
    let expected = ["22: Service test/server", "56: Service grpc/grpc", "70: Service default/main-server"];
    assert_eq!(objects(&contents), expected);
    let port = |at: usize| {
        let port = &service(&contents, at).ports[0];
        (port.port, port.name.to_string(), port.target.clone(), port.transport)
    };
    assert_eq!(port(0), (8000, "grpc".into(), Some("50051".into()), Transport::Tcp));
    assert_eq!(port(1), (9000, "grpc".into(), Some("9000".into()), Transport::Tcp));
    assert_eq!(port(2), (8888, "grpc".into(), None, Transport::Tcp));
    assert_eq!(
        remarks(&contents),
        [
            "passed over, as Evenkeel reads no such kinds: Deployment (apps/v1) ×1, Route (route.openshift.io/v1) ×1, \
          Service (serving.knative.dev/v1) ×1, VirtualService (networking.istio.io/v1beta1) ×1"
        ]
    );
}

#[test]
fn a_list_is_its_items_each_with_its_own_line() {
    let list = "apiVersion: v1
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: shop}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: cart}
- metadata:
    name: cart
    namespace: shop
  kind: Service
  apiVersion: v1
  spec: {clusterIP: None}
kind: List
metadata: {resourceVersion: ''}
";
    let contents = contents(list);
    assert_eq!(objects(&contents), ["3: Namespace shop", "9: Service shop/cart"]);
    assert_eq!(remarks(&contents), ["passed over, as Evenkeel reads no such kinds: Deployment (apps/v1) ×1"]);
    let fault = read(&list.replace("clusterIP: None", "clusterIP: [1]")).unwrap_err();
    assert_eq!(fault.line, Some(14), "{fault:?}");
}

#[test]
fn json_is_read_too_also_with_tabs() {
    let json = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"List\",\n\t\"items\": [\n\t\t{\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\n\t\t \"metadata\": {\"name\": \"shop\"}}\n\t]\n}\n";
    assert_eq!(objects(&contents(json)), ["5: Namespace shop"]);
}

#[test]
fn documents_are_found_whatever_is_around_them() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    for (text, expected) in [
        (String::new(), &[] as &[&str]),
        ("\n# nothing\n---\n---\n# nothing\n---\n~\n".into(), &[]),
        (namespace.into(), &["1: Namespace a"]),
        (format!("---\n{namespace}"), &["2: Namespace a"]),
        (format!("--- # first\n{namespace}...\n"), &["2: Namespace a"]),
        (format!("# head\n\n---\n{namespace}---\n"), &["4: Namespace a"]),
        (format!("%YAML 1.2\n---\n{namespace}"), &["3: Namespace a"]),
        (format!("\u{feff}---\n{namespace}"), &["2: Namespace a"]),
        (format!("\u{feff}{namespace}"), &["1: Namespace a"]),
        (namespace.replace('\n', "\r\n"), &["1: Namespace a"]),
        (
            format!("{namespace}---\r\n{}", namespace.replace("name: a", "name: b")),
            &["1: Namespace a", "5: Namespace b"],
        ),
        (
            format!("{namespace}  # --- not a marker\n---\n{}", namespace.replace("name: a", "name: b")),
            &["1: Namespace a", "6: Namespace b"],
        ),
        ("--- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n".into(), &["1: Namespace a"]),
    ] {
        assert_eq!(objects(&contents(&text)), expected, "{text:?}");
    }
}

#[test]
fn what_is_broken_is_told_with_the_line_of_the_file() {
    let before = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n";
    for (text, line, cause) in [
        ("- 1\n- 2\n", 5, ""),
        ("just text\n", 5, ""),
        ("a: 1\n", 5, "it has no kind"),
        ("kind: Service\n", 5, "it has no apiVersion"),
        ("\nkind: ''\napiVersion: v1\n", 6, "it has no kind"),
        ("kind: Service\napiVersion: v1\nspec: [\n", 7, "unclosed bracket"),
        ("kind: Service\n  apiVersion: v1\n", 6, ""),
        ("kind: Service\napiVersion: v1\nspec:\n  ports:\n  - port: eighty\n", 9, ""),
        ("kind: Service\napiVersion: v1\nspec:\n  ports: 80\n", 8, ""),
        ("kind: Service\napiVersion: v1\nmetadata: {name: a}\nmetadata: {name: b}\n", 8, "duplicate"),
        ("kind: List\napiVersion: v1\nitems:\n- kind: Service\n", 8, "it has no apiVersion"),
        ("kind: List\napiVersion: v1\nitems: 1\n", 7, ""),
        ("kind: \"a\u{0}b\"\n", 5, ""),
    ] {
        let fault = read(&format!("{before}{text}")).map(|contents| objects(&contents)).unwrap_err();
        assert_eq!(fault.line, Some(line), "{text:?}: {fault:?}");
        assert!(fault.cause.contains(cause) && !fault.cause.is_empty(), "{text:?}: {fault:?}");
        assert!(!fault.cause.contains('\n'), "{text:?}: {fault:?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_line() {
    let fault = parse(b"kind: a\n# \xff\n", &mut Interner::default()).unwrap_err();
    assert_eq!((fault.line, fault.cause.as_str()), (Some(2), "it is not UTF-8 text"));
}

#[test]
fn a_bomb_of_aliases_ends_in_an_error() {
    let mut bomb = String::from("kind: Service\napiVersion: v1\na0: &a0 [x]\n");
    for level in 1..40 {
        let below = level - 1;
        bomb += &format!("a{level}: &a{level} [*a{below}, *a{below}, *a{below}, *a{below}]\n");
    }
    assert!(read(&bomb).is_err());
    let deep = format!("kind: Service\napiVersion: v1\na: {}1{}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert!(read(&deep).is_err());
}

#[test]
fn what_is_wrong_with_an_object_is_told_in_one_line_and_the_rest_counts() {
    let contents = contents(
        r#"apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: stray, namespace: shop}
addressType: IPv4
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}, annotations: {evenkeel.dev/weight: "0"}}
addressType: IPv4
ports: [{name: grpc, port: 9000}, {name: odd, port: 70000}, {name: udp, port: 53, protocol: UDP}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: cart-a}}
- {addresses: []}
- {addresses: [10.0.0]}
- {addresses: ["fd00::1"]}
---
apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
  annotations: {evenkeel.dev/picker: best, evenkeel.dev/hash-on: "header:a b", evenkeel.dev/ejection: fast, evenkeel.dev/slow-start: soon, evenkeel.dev/health-check: http, evenkeel.dev/retry: "on=always", evenkeel.dev/circuit-breaker: "calls=1"}
spec:
  clusterIP: 10.96.0.1
  externalIPs: [nonsense, 192.0.2.1]
  ports:
  - {port: 80}
  - {port: 90, name: grpc}
  - {port: 0, name: zero}
  - {port: 90, name: again}
---
apiVersion: v1
kind: Service
metadata: {name: "bad name"}
---
apiVersion: v1
kind: Namespace
metadata: {labels: {evenkeel.dev/enabled: "true"}}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-a
  namespace: shop
  labels: {evenkeel.dev/enabled: "yes"}
  annotations: {evenkeel.dev/netns: run/netns/a, evenkeel.dev/on-enrol: restart}
"#,
    );
    assert_eq!(
        remarks(&contents),
        [
            "1: EndpointSlice shop/stray: belongs to no Service, as it has no label kubernetes.io/service-name: passed over",
            "6: EndpointSlice shop/cart-1: port 70000 is not between 1 and 65535: this port is passed over",
            "6: EndpointSlice shop/cart-1: an endpoint has no address: passed over",
            "6: EndpointSlice shop/cart-1: \"10.0.0\" is not an IPv4 address of an endpoint: passed over",
            "6: EndpointSlice shop/cart-1: \"fd00::1\" is not an IPv4 address of an endpoint: passed over",
            "6: EndpointSlice shop/cart-1: annotation evenkeel.dev/weight is \"0\", not a number from 1 to 1000: as if it were not there",
            "17: Service shop/cart: port 80 has no name: where a Service has several ports each needs one; this port is passed over",
            "17: Service shop/cart: port 0 is not between 1 and 65535: this port is passed over",
            "17: Service shop/cart: port 90 is there twice: the first counts",
            "17: Service shop/cart: externalIP \"nonsense\" is not an address: passed over",
            "17: Service shop/cart: annotation evenkeel.dev/picker is \"best\", not \"ewma\" or \"least-request\" or \"round-robin\" or \"random\" or \"ring-hash\" or \"maglev\": as if it were not there",
            "17: Service shop/cart: annotation evenkeel.dev/hash-on is \"header:a b\", not \"source\" or \"header:NAME\" with the name of a request header: as if it were not there",
            "17: Service shop/cart: annotation evenkeel.dev/ejection is \"fast\", not \"consecutive-failures\" or \"success-rate\" or \"off\": as if it were not there",
            "17: Service shop/cart: annotation evenkeel.dev/slow-start is \"soon\", not a time of 1s to 3600s, as \"30s\" or \"2m\": as if it were not there",
            "17: Service shop/cart: annotation evenkeel.dev/health-check is \"http\", not \"grpc\" or \"grpc:SERVICE\" with the name of a gRPC service: as if it were not there",
            "17: Service shop/cart: annotation evenkeel.dev/retry is \"on=always\", where on is \"always\", not one of cancelled, unknown, invalid-argument, deadline-exceeded, not-found, already-exists, permission-denied, resource-exhausted, failed-precondition, aborted, out-of-range, unimplemented, internal, unavailable, data-loss, unauthenticated: as if it were not there",
            "17: Service shop/cart: annotation evenkeel.dev/circuit-breaker is \"calls=1\", where \"calls\" is none of requests, pending, connections: as if it were not there",
            "32: Service default/bad name: has the name \"bad name\", which can't be one: passed over",
            "36: Namespace : has no metadata.name: passed over",
            "40: Pod shop/cart-a: label evenkeel.dev/enabled is \"yes\", not \"true\" or \"false\": nothing is enrolled by it",
            "40: Pod shop/cart-a: annotation evenkeel.dev/on-enrol is \"restart\", not \"reconnect\" or \"reconnect-missed\" or \"keep\": as if it were not there",
            "40: Pod shop/cart-a: annotation evenkeel.dev/netns is \"run/netns/a\", not an absolute path: as if it were not there",
        ]
    );
    assert_eq!(
        objects(&contents),
        ["6: EndpointSlice shop/cart-1", "17: Service shop/cart", "40: Pod shop/cart-a"]
    );
    let Row::Slice(slice) = &contents.objects[0].row else { panic!() };
    assert_eq!(slice.ports, [SlicePortRow { name: "grpc".into(), number: 9000 }]);
    let pods: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.pod.as_deref()).collect();
    assert_eq!(pods, [Some("shop/cart-a")]);
    let cart = service(&contents, 1);
    assert_eq!(cart.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [90]);
    assert_eq!(cart.external_ips, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
}
