//! What a Service, its namespace and this node say on its endpoints and addresses, as it changes.

use super::*;
use crate::mesh::{Backend, Balancing, HashOn, Picker};
use crate::sources::rows::{
    Access, Conditions, Enabled, EndpointRow, LoadBalancerAddress, NodeRow, ServiceKind, Waypoint,
};
use crate::sources::sample::{endpoint, hints};

fn in_zone(zone: Option<&str>) -> Change {
    node(NODE, zone)
}

fn node(name: &str, zone: Option<&str>) -> Change {
    Change::Set(Row::Node(Arc::new(NodeRow { name: name.into(), zone: zone.map(Arc::from) })))
}

fn cart_service() -> ServiceRow {
    service("cart", &["10.96.0.1"], &[("grpc", 80)])
}

fn hinted(address: &str, zone: &str) -> EndpointRow {
    EndpointRow { hints: hints(&[zone], &[]), ..endpoint(address) }
}

fn on_node(address: &str, node: &str) -> EndpointRow {
    EndpointRow { node: Some(node.into()), ..endpoint(address) }
}

fn cart_endpoints(endpoints: Vec<EndpointRow>) -> Change {
    set_slice(sample::slice("cart-1", "cart", &GRPC, endpoints))
}

impl Setup {
    /// The endpoints that a call to this address may go to.
    fn endpoints_behind(&self, address: &str) -> Vec<String> {
        self.leads_to(self.id(address)).1
    }
}

#[test]
fn calls_follow_the_zone_of_the_node_and_only_services_with_hints_are_touched() {
    let mut setup = Setup::new();
    let changes = vec![
        set(cart_service()),
        cart_endpoints(vec![hinted("10.0.0.1", "zone-a"), hinted("10.0.0.2", "zone-b")]),
        set(service("stock", &["10.96.0.2"], &[("grpc", 80)])),
        slice("stock-1", "stock", &GRPC, &["10.0.1.1", "10.0.1.2"]),
    ];
    setup.apply(changes);
    let both = ["10.0.0.1:9000", "10.0.0.2:9000"];
    assert_eq!(setup.endpoints_behind("10.96.0.1:80"), both, "the zone is not known yet");
    let stock = setup.world.snapshot().destinations[&setup.id("10.96.0.2:80")].backend.clone();
    let load =
        setup.world.snapshot().destinations[&setup.id("10.96.0.1:80")].backend.endpoints[1].load.clone();

    let delta = setup.apply(vec![in_zone(Some("zone-b"))]);
    assert_eq!(setup.endpoints_behind("10.96.0.1:80"), [both[1]]);
    assert!(delta.add.is_empty() && delta.snapshot.is_some());
    let snapshot = setup.world.snapshot();
    let cart = &snapshot.destinations[&setup.id("10.96.0.1:80")].backend;
    assert!(Arc::ptr_eq(&cart.endpoints[0].load, &load), "10.0.0.2 goes on with its load");
    assert!(Arc::ptr_eq(&snapshot.destinations[&setup.id("10.96.0.2:80")].backend, &stock));
    assert_eq!(
        setup.unused("cart", 80),
        [("10.0.0.1".to_owned(), "hinted for other zones, and others for this one".to_owned())]
    );

    let known = |backend: &Backend| -> Vec<String> {
        backend.wider.iter().map(|endpoint| endpoint.address.to_string()).collect()
    };
    assert_eq!(known(cart), both, "for when the near one fails");
    assert!(Arc::ptr_eq(&cart.wider[1].load, &load));
    assert!(known(&stock).is_empty(), "nothing is farther than all");

    assert!(setup.apply(vec![in_zone(Some("zone-b"))]).is_empty());
    assert!(setup.apply(vec![node("node-2", Some("zone-a"))]).is_empty(), "another node's zone is its own");
    setup.apply(vec![in_zone(Some("zone-c"))]);
    assert_eq!(setup.endpoints_behind("10.96.0.1:80"), both);
    setup.apply(vec![in_zone(Some("zone-a"))]);
    assert_eq!(setup.endpoints_behind("10.96.0.1:80"), [both[0]]);
    setup.apply(vec![Change::Remove(RowKey::Node(NODE.into()))]);
    assert_eq!(setup.endpoints_behind("10.96.0.1:80"), both);
}

#[test]
fn endpoints_are_asked_for_their_health_as_the_annotation_says_the_farther_ones_once_they_are_called() {
    let mut setup = Setup::new();
    let balancing = Balancing { health_check: "grpc:shop.Cart".parse().unwrap(), ..Balancing::default() };
    let checked = ServiceRow { balancing, ..cart_service() };
    setup.apply(vec![
        in_zone(Some("zone-a")),
        set(checked),
        cart_endpoints(vec![hinted("10.0.0.1", "zone-a"), hinted("10.0.0.2", "zone-b")]),
        set(service("stock", &["10.96.0.2"], &[("grpc", 80)])),
        slice("stock-1", "stock", &GRPC, &["10.0.1.1"]),
    ]);
    let asked = |setup: &Setup| -> Vec<(String, String)> {
        let wanted = setup.world.health_checks().into_iter();
        wanted.map(|(endpoint, name)| (endpoint.address.to_string(), name.to_string())).collect()
    };
    let near = ("10.0.0.1:9000".to_owned(), "shop.Cart".to_owned());
    let far = ("10.0.0.2:9000".to_owned(), "shop.Cart".to_owned());
    assert_eq!(asked(&setup), std::slice::from_ref(&near));
    let backend = setup.world.snapshot().destinations[&setup.id("10.96.0.1:80")].backend.clone();
    backend.wider[1].load.calls.store(1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(asked(&setup), [near, far], "calls have gone farther");
    setup.apply(vec![set(cart_service())]);
    assert_eq!(asked(&setup), []);
}

#[test]
fn what_a_service_says_of_retries_and_limits_is_shown() {
    let mut setup = Setup::new();
    let balancing = Balancing {
        retry: "on=unavailable attempts=2".parse().ok(),
        circuit_breaker: "pending=7".parse().unwrap(),
        ..Balancing::default()
    };
    setup.apply(vec![
        set(ServiceRow { balancing, ..cart_service() }),
        set(service("stock", &["10.96.0.2"], &[("grpc", 80)])),
    ]);
    let view = |name: &str| setup.world.services().into_iter().find(|view| view.name == name).unwrap();
    let cart = view("cart");
    assert_eq!(cart.retry.as_deref(), Some("attempts=2 on=unavailable backoff=100ms..1000ms budget=20%"));
    assert_eq!(cart.circuit_breaker.and_then(|breaker| breaker.pending), Some(7));
    assert_eq!((view("stock").retry, view("stock").circuit_breaker), (None, None));
}

#[test]
fn an_internal_policy_local_keeps_calls_on_the_node_and_external_addresses_know_no_policy() {
    let mut setup = Setup::new();
    let local = ServiceRow {
        internal_traffic_local: true,
        external_ips: vec!["192.0.2.1".parse().unwrap()],
        ..cart_service()
    };
    let endpoints = vec![on_node("10.0.0.1", NODE), on_node("10.0.0.2", "node-2"), endpoint("10.0.0.3")];
    setup.apply(vec![set(local.clone()), cart_endpoints(endpoints)]);
    assert_eq!(setup.endpoints_behind("10.96.0.1:80"), ["10.0.0.1:9000"]);
    let all = ["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000"];
    assert_eq!(setup.endpoints_behind("192.0.2.1:80"), all);
    let snapshot = setup.world.snapshot();
    let first = |address| &snapshot.destinations[&setup.id(address)].backend.endpoints[0];
    assert!(Arc::ptr_eq(first("10.96.0.1:80"), first("192.0.2.1:80")), "one endpoint, one load");
    assert_eq!(setup.world.endpoints().len(), 3, "each is shown once");
    assert_eq!(setup.port_view("cart", 80).endpoints, 3);
    setup.apply(vec![set(ServiceRow { external_ips: vec![], ..local.clone() })]);
    assert_eq!(setup.port_view("cart", 80).endpoints, 1, "no address leads to the others any more");
    setup.apply(vec![set(local.clone())]);

    // Nobody here: the cluster address goes straight, to be refused as without the agent.
    let id = setup.id("10.96.0.1:80");
    setup.apply(vec![cart_endpoints(vec![on_node("10.0.0.2", "node-2")])]);
    assert_eq!(setup.captured(), ["192.0.2.1:80"]);
    assert_eq!(setup.marked[&addr("10.96.0.1:80")], id);
    assert_eq!(
        setup.straight("cart", 80),
        ["10.96.0.1:80: no endpoint on this node is ready, and internalTrafficPolicy is Local"]
    );
    setup.apply(vec![set(ServiceRow { internal_traffic_local: false, ..local })]);
    assert_eq!(setup.endpoints_behind("10.96.0.1:80"), ["10.0.0.2:9000"]);
    assert_eq!(setup.id("10.96.0.1:80"), id);
}

#[test]
fn on_no_node_of_the_cluster_a_service_asked_for_by_name_has_all_its_endpoints() {
    let port = port_of("cart", 80);
    let explicit_ports = vec![port.clone()];
    let mut world =
        World::new(Settings { node: None, own_pod_uid: None, addresses: 10, ids: 10, explicit_ports });
    let local = ServiceRow { internal_traffic_local: true, ..cart_service() };
    let delta = world.apply(vec![set(local), cart_endpoints(vec![on_node("10.0.0.1", NODE)])]);
    assert_eq!(world.backend(&port).unwrap().endpoints.len(), 1);
    assert!(delta.add.is_empty() && delta.without_endpoint.len() == 1);
    let straight = world.services()[0].ports[0].straight.clone();
    assert!(straight[0].ends_with("this node's name is not known (--node-name)"), "{straight:?}");
}

#[test]
fn load_balancer_addresses_are_captured_where_the_node_would_short_cut_them() {
    let mut setup = Setup::new();
    let at = |ip: &str, access| LoadBalancerAddress { ip: ip.parse().unwrap(), access };
    let with = |load_balancer| set(ServiceRow { load_balancer, ..cart_service() });
    setup.apply(vec![
        with(vec![
            at("192.0.2.1", Access::Direct),
            at("192.0.2.2", Access::ThroughLoadBalancer),
            at("192.0.2.3", Access::BySourceRange),
        ]),
        slice("cart-1", "cart", &GRPC, &["10.0.0.1"]),
    ]);
    assert_eq!(setup.captured(), ["10.96.0.1:80", "192.0.2.1:80"]);
    assert_eq!(
        setup.straight("cart", 80),
        [
            "192.0.2.2:80: an address of a load balancer that is to be passed through (ipMode Proxy)",
            "192.0.2.3:80: an address of a load balancer for some sources alone (loadBalancerSourceRanges): the node's \
             filter decides",
        ]
    );
    // Each way, live.
    setup.apply(vec![with(vec![at("192.0.2.1", Access::BySourceRange), at("192.0.2.3", Access::Direct)])]);
    assert_eq!(setup.captured(), ["10.96.0.1:80", "192.0.2.3:80"]);
    setup.apply(vec![with(vec![])]);
    assert_eq!(setup.captured(), ["10.96.0.1:80"]);
}

#[test]
fn of_two_services_with_one_load_balancer_address_the_first_by_name_has_it_and_it_is_told() {
    let mut setup = Setup::new();
    let shared = |name: &str, ip: &str| {
        let ip_of_both = "192.0.2.1".parse().unwrap();
        let load_balancer = vec![LoadBalancerAddress { ip: ip_of_both, access: Access::Direct }];
        set(ServiceRow { load_balancer, ..service(name, &[ip], &[("grpc", 80)]) })
    };
    setup.apply(vec![shared("stock", "10.96.0.2"), slice("stock-1", "stock", &GRPC, &["10.0.1.1"])]);
    setup.apply(vec![shared("cart", "10.96.0.1"), slice("cart-1", "cart", &GRPC, &["10.0.0.1"])]);
    assert_eq!(setup.leads_to(setup.id("192.0.2.1:80")).0, "shop/cart:80");
    assert!(
        setup.told()[0].contains("address 192.0.2.1:80 is also that of shop/stock:80"),
        "{:?}",
        setup.told()
    );
}

#[test]
fn a_waypoint_of_the_service_or_its_namespace_takes_its_connections_out_at_once() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1"]));
    setup.apply(vec![
        set(service("stock", &["10.96.0.2"], &[("grpc", 80)])),
        slice("stock-1", "stock", &GRPC, &["10.0.1.1"]),
        // Beside it in the order of names.
        Change::Set(Row::Namespace(Arc::new(NamespaceRow {
            name: "shop-2".into(),
            ..sample::namespace(Enabled::Yes)
        }))),
    ]);
    let namespace = |waypoint, with_mesh| {
        let row = NamespaceRow { waypoint, with_mesh, ..sample::namespace(Enabled::Unset) };
        Change::Set(Row::Namespace(Arc::new(row)))
    };
    let id = setup.id("10.96.0.1:80");
    let named = || Waypoint::Named("gate".into());
    setup.apply(vec![namespace(named(), None)]);
    assert_eq!(setup.captured(), [] as [&str; 0]);
    assert_eq!(setup.leads_to(id).1, ["10.0.0.1:9000"], "what was opened goes on");
    assert!(setup.straight("cart", 80)[0].starts_with("the Service has the waypoint gate"));
    setup.apply(vec![set(ServiceRow { waypoint: Waypoint::None, ..cart_service() })]);
    assert_eq!(setup.captured(), ["10.96.0.1:80"]);
    setup.apply(vec![namespace(named(), Some(true))]);
    assert_eq!(setup.captured(), ["10.96.0.1:80", "10.96.0.2:80"]);
    setup.apply(vec![set(ServiceRow { waypoint: named(), with_mesh: Some(false), ..cart_service() })]);
    assert_eq!(setup.captured(), ["10.96.0.2:80"]);
    setup.apply(vec![Change::Remove(RowKey::Namespace("shop".into())), set(cart_service())]);
    assert_eq!(setup.captured(), ["10.96.0.1:80", "10.96.0.2:80"]);
}

#[test]
fn an_endpoint_is_new_where_others_were_before_it_and_keeps_its_age() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1", "10.0.0.2"]));
    let ages = |setup: &Setup| -> Vec<u64> {
        let backend = setup.world.backend(&port_of("cart", 80)).unwrap();
        backend.endpoints.iter().map(|endpoint| endpoint.ready_since_ns).collect()
    };
    assert_eq!(ages(&setup), [0, 0], "the Service is seen for the first time");
    setup.apply(cart(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
    let came = ages(&setup)[2];
    assert!(came > 0 && ages(&setup)[..2] == [0, 0]);
    let heavier = sample::slice("cart-1", "cart", &GRPC, ["10.0.0.1", "10.0.0.3"].map(endpoint));
    setup.apply(vec![set_slice(SliceRow { weight: 300, ..heavier })]);
    assert_eq!(ages(&setup), [0, came], "another weight does not make it new");
    let backend = setup.world.backend(&port_of("cart", 80)).unwrap();
    assert_eq!((backend.endpoints[1].weight, backend.heaviest), (300, 300));
    // Not ready for a time, and ready again: its caches may be cold.
    setup.apply(cart(&["10.0.0.1"]));
    setup.apply(cart(&["10.0.0.1", "10.0.0.3"]));
    assert!(ages(&setup)[1] > came);
}

#[test]
fn where_traffic_stays_on_the_node_by_policy_nothing_is_farther() {
    let mut setup = Setup::new();
    let local = ServiceRow { internal_traffic_local: true, ..cart_service() };
    setup.apply(vec![
        set(local),
        cart_endpoints(vec![on_node("10.0.0.1", NODE), on_node("10.0.0.2", "node-2")]),
    ]);
    let backend = setup.world.snapshot().destinations[&setup.id("10.96.0.1:80")].backend.clone();
    assert_eq!((backend.endpoints.len(), backend.wider.len()), (1, 0));
}

#[test]
fn a_service_with_session_affinity_is_picked_by_source() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1", "10.0.0.2"]));
    let picker = |setup: &Setup| {
        setup.world.snapshot().destinations[&setup.id("10.96.0.1:80")].backend.balancing.picker
    };
    assert_eq!(picker(&setup), Picker::Ewma);
    let sticky = ServiceRow { source_affinity: true, balancing: Picker::RoundRobin.into(), ..cart_service() };
    setup.apply(vec![set(sticky)]);
    assert_eq!(picker(&setup), Picker::SourceHash);
    assert_eq!(setup.world.services()[0].picker, "source-hash");
    // These keep a source where it is too.
    let maglev = Balancing { picker: Picker::Maglev, ..Balancing::default() };
    let sticky = ServiceRow { source_affinity: true, balancing: maglev.clone(), ..cart_service() };
    setup.apply(vec![set(sticky)]);
    assert_eq!(picker(&setup), Picker::Maglev);
    let shown = &setup.world.services()[0];
    assert_eq!((shown.picker, shown.hash_on.as_deref()), ("maglev", Some("source")));
    let by_user = Balancing { hash_on: HashOn::Header("x-user".into()), ..maglev };
    setup.apply(vec![set(ServiceRow { source_affinity: true, balancing: by_user, ..cart_service() })]);
    assert_eq!(picker(&setup), Picker::SourceHash);
}

#[test]
fn a_headless_service_knows_neither_hints_nor_the_policy_local() {
    let mut setup = Setup::new();
    let headless = ServiceRow {
        kind: ServiceKind::Headless,
        balance_headless: true,
        internal_traffic_local: true,
        ..service("cart", &[], &[("grpc", 80)])
    };
    let endpoints = vec![hinted("10.0.0.1", "zone-a"), hinted("10.0.0.2", "zone-b")];
    setup.apply(vec![in_zone(Some("zone-a")), set(headless), cart_endpoints(endpoints)]);
    assert_eq!(setup.captured(), ["10.0.0.1:9000", "10.0.0.2:9000"]);
    assert_eq!(setup.endpoints_behind("10.0.0.2:9000"), ["10.0.0.1:9000", "10.0.0.2:9000"]);
}

#[test]
fn each_endpoint_that_is_not_used_says_why() {
    let mut setup = Setup::new();
    let with = |address, ready, serving, terminating| EndpointRow {
        conditions: Conditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) },
        pod: Some("shop/cart-x".into()),
        ..endpoint(address)
    };
    let endpoints = vec![
        with("10.0.0.1", true, true, false),
        with("10.0.0.2", false, false, false),
        with("10.0.0.3", false, true, true),
        with("10.0.0.4", false, false, true),
    ];
    let node_port = sample::service_port("grpc", 80);
    let ports = vec![crate::sources::rows::ServicePortRow { node_port: Some(30_080), ..node_port }];
    setup.apply(vec![set(ServiceRow { ports, ..cart_service() }), cart_endpoints(endpoints)]);
    let told = |ip: &str, reason: &str| (ip.to_owned(), reason.to_owned());
    assert_eq!(
        setup.unused("cart", 80),
        [
            told("10.0.0.2", "not ready"),
            told("10.0.0.3", "terminating, and others are not"),
            told("10.0.0.4", "not ready"),
        ]
    );
    assert_eq!(setup.straight("cart", 80), ["node port 30080: the nodes' own addresses are left alone"]);
}
