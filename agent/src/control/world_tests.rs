//! The world as its executor sees it: batches in, deltas out, carried out against a kernel's map that is kept here.

use super::*;
use crate::control::Enrolment;
use crate::control::ids::QUARANTINE;
use crate::mesh::Picker;
use crate::sources::rows::{
    Conditions, Enabled, EndpointRow, NamespaceRow, OnEnrol, PodRow, ServiceKind, ServicePortRow, ServiceRow,
    SlicePortRow, Transport,
};
use std::net::IpAddr;

const NODE: &str = "node-1";

/// A world with what stands around it, each delta carried out as [`Delta`] says.
struct Setup {
    world: World,
    kernel: BTreeMap<SocketAddr, DestinationId>,
    now: Instant,
}

impl Setup {
    fn new() -> Self {
        Self::with_capacity(1_000)
    }

    fn with_capacity(destinations: u32) -> Self {
        let explicit_ports = vec![port_of("web", 80)];
        let node = Some(NODE.into());
        let world = World::new(Settings { node, own_pod_uid: None, destinations, explicit_ports });
        Self { world, kernel: BTreeMap::new(), now: Instant::now() }
    }

    fn apply(&mut self, changes: Vec<Change>) -> Delta {
        let delta = self.world.apply(changes);
        let snapshot = self.world.snapshot();
        if let Some(published) = &delta.snapshot {
            assert!(Arc::ptr_eq(published, &snapshot));
        }
        for (address, id) in &delta.add {
            assert_eq!(snapshot.destinations[id].original, *address, "a worker would not know {id:?}");
            self.kernel.insert(*address, *id);
        }
        for address in &delta.remove {
            assert!(!delta.add.iter().any(|(added, _)| added == address), "{address} is added and removed");
            self.kernel.remove(address);
        }
        for id in &delta.retired {
            assert!(!self.kernel.values().any(|live| live == id), "{id:?} is still in the kernel's map");
        }
        self.world.removed_from_kernel(&delta.retired, self.now);
        delta
    }

    /// Lets the quarantine of all ids end, and says which those were.
    fn rest(&mut self) -> Vec<DestinationId> {
        self.now += QUARANTINE;
        let over = self.world.quarantine_over(self.now, |_| 0);
        assert_eq!(self.world.quarantine_over(self.now, |_| 0), []);
        over
    }

    fn id(&self, address: &str) -> DestinationId {
        self.kernel[&addr(address)]
    }

    /// Where a connection with this id goes: the Service port and its endpoints.
    fn leads_to(&self, id: DestinationId) -> (String, Vec<String>) {
        let backend = &self.world.snapshot().destinations[&id].backend;
        let endpoints = backend.endpoints.iter().map(|endpoint| endpoint.address.to_string());
        (backend.service_port.to_string(), endpoints.collect())
    }

    fn captured(&self) -> Vec<String> {
        self.kernel.keys().map(SocketAddr::to_string).collect()
    }

    fn told(&self) -> Vec<String> {
        self.world.problems().current().iter().map(Problem::to_string).collect()
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn port_of(service: &str, port: u16) -> ServicePort {
    ServicePort { service: ObjectName::new("shop", service), port }
}

fn service(name: &str, ips: &[&str], ports: &[(&str, u16)]) -> ServiceRow {
    ServiceRow {
        name: ObjectName::new("shop", name),
        kind: ServiceKind::ClusterIp,
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        external_ips: Vec::new(),
        ports: ports
            .iter()
            .map(|(name, port)| ServicePortRow {
                name: (*name).into(),
                port: *port,
                transport: Transport::Tcp,
                app_protocol: None,
                target: None,
            })
            .collect(),
        picker: Picker::default(),
        balance_headless: false,
        other_proxy: false,
    }
}

fn set(row: ServiceRow) -> Change {
    Change::Set(Row::Service(Arc::new(row)))
}

fn remove(name: &str) -> Change {
    Change::Remove(RowKey::Service(ObjectName::new("shop", name)))
}

fn slice(name: &str, service: &str, ports: &[(&str, u16)], ready: &[&str]) -> Change {
    let endpoint = |ip: &&str| EndpointRow {
        address: ip.parse::<IpAddr>().unwrap(),
        conditions: Conditions::default(),
        zone: None,
        node: None,
        pod: None,
    };
    let port = |(name, number): &(&str, u16)| SlicePortRow { name: (*name).into(), number: *number };
    Change::Set(Row::Slice(Arc::new(SliceRow {
        name: ObjectName::new("shop", name),
        service: service.into(),
        ports: ports.iter().map(port).collect(),
        endpoints: ready.iter().map(endpoint).collect(),
    })))
}

const GRPC: [(&str, u16); 1] = [("grpc", 9000)];

fn cart(ready: &[&str]) -> Vec<Change> {
    vec![set(service("cart", &["10.96.0.1"], &[("grpc", 80)])), slice("cart-1", "cart", &GRPC, ready)]
}

#[test]
fn a_service_is_captured_from_its_first_endpoint_to_its_last() {
    let mut setup = Setup::new();
    let [service, slice_row] = cart(&["10.0.0.1"]).try_into().unwrap();
    assert!(setup.apply(vec![service]).is_empty(), "no endpoint, no capture");
    let delta = setup.apply(vec![slice_row]);
    assert_eq!((delta.add.len(), delta.snapshot.is_some()), (1, true));
    let id = setup.id("10.96.0.1:80");
    assert_eq!(setup.leads_to(id), ("shop/cart:80".into(), vec!["10.0.0.1:9000".into()]));

    let delta = setup.apply(vec![slice("cart-1", "cart", &GRPC, &[])]);
    assert_eq!((delta.remove, delta.retired), (vec![addr("10.96.0.1:80")], vec![id]));
    assert_eq!(setup.leads_to(id).1, [] as [&str; 0], "calls in hand are told that there is nobody");
}

#[test]
fn an_address_that_comes_back_in_time_has_its_old_id_and_later_another() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1"]));
    let first = setup.id("10.96.0.1:80");
    setup.apply(cart(&[]));
    let delta = setup.apply(cart(&["10.0.0.2"]));
    assert_eq!(delta.add, [(addr("10.96.0.1:80"), first)]);
    assert_eq!(setup.leads_to(first).1, ["10.0.0.2:9000"]);
    assert_eq!(setup.rest(), [], "it is live");

    setup.apply(cart(&[]));
    assert_eq!(setup.rest(), [first]);
    assert!(setup.world.snapshot().destinations.is_empty());
    setup.apply(cart(&["10.0.0.1"]));
    assert_ne!(setup.id("10.96.0.1:80"), first);
}

#[test]
fn an_id_does_not_come_back_before_the_kernel_has_let_go_of_it() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1"]));
    let first = setup.id("10.96.0.1:80");
    // These deltas are not carried out yet.
    let away = setup.world.apply(cart(&[]));
    let back = setup.world.apply(cart(&["10.0.0.1"]));
    assert_eq!(away.retired, [first]);
    assert_ne!(back.add[0].1, first);
}

#[test]
fn a_change_of_one_endpoint_changes_its_service_alone() {
    let mut setup = Setup::new();
    let mut changes = cart(&["10.0.0.1", "10.0.0.2"]);
    changes.push(set(service("stock", &["10.96.0.2"], &[("grpc", 80)])));
    changes.push(slice("stock-1", "stock", &GRPC, &["10.0.1.1"]));
    setup.apply(changes);
    let before = setup.world.snapshot();
    let delta = setup.apply(vec![slice("cart-1", "cart", &GRPC, &["10.0.0.2", "10.0.0.3"])]);
    assert!(delta.add.is_empty() && delta.remove.is_empty() && delta.retired.is_empty());
    let after = setup.world.snapshot();
    assert_eq!(after.version, before.version + 1);
    let (cart, stock) = (setup.id("10.96.0.1:80"), setup.id("10.96.0.2:80"));
    assert!(Arc::ptr_eq(&before.destinations[&stock].backend, &after.destinations[&stock].backend));
    let loads =
        |snapshot: &Snapshot, at: usize| snapshot.destinations[&cart].backend.endpoints[at].load.clone();
    assert!(Arc::ptr_eq(&loads(&before, 1), &loads(&after, 0)), "10.0.0.2 goes on with its load");
    assert!(setup.apply(vec![slice("cart-1", "cart", &GRPC, &["10.0.0.2", "10.0.0.3"])]).is_empty());
}

#[test]
fn each_family_is_served_by_its_own_endpoints() {
    let mut setup = Setup::new();
    setup.apply(vec![
        set(service("cart", &["10.96.0.1", "fd00:96::1"], &[("grpc", 80)])),
        slice("cart-4", "cart", &GRPC, &["10.0.0.1"]),
    ]);
    assert_eq!(setup.captured(), ["10.96.0.1:80"], "IPv6 has nobody yet");
    setup.apply(vec![slice("cart-6", "cart", &GRPC, &["fd00::1"])]);
    assert_eq!(setup.leads_to(setup.id("10.96.0.1:80")).1, ["10.0.0.1:9000"]);
    assert_eq!(setup.leads_to(setup.id("[fd00:96::1]:80")).1, ["[fd00::1]:9000"]);
    let primary = setup.world.backend(&port_of("cart", 80)).unwrap();
    assert_eq!(primary.endpoints[0].address, addr("10.0.0.1:9000"));
}

#[test]
fn each_port_of_a_service_has_its_own_target() {
    let mut setup = Setup::new();
    setup.apply(vec![
        set(service("cart", &["10.96.0.1"], &[("grpc-api", 80), ("grpc-admin", 81), ("metrics", 82)])),
        slice(
            "cart-1",
            "cart",
            &[("grpc-api", 9000), ("grpc-admin", 9001), ("metrics", 9090)],
            &["10.0.0.1"],
        ),
    ]);
    assert_eq!(setup.captured(), ["10.96.0.1:80", "10.96.0.1:81"]);
    assert_eq!(
        setup.leads_to(setup.id("10.96.0.1:80")),
        ("shop/cart:80".into(), vec!["10.0.0.1:9000".into()])
    );
    assert_eq!(
        setup.leads_to(setup.id("10.96.0.1:81")),
        ("shop/cart:81".into(), vec!["10.0.0.1:9001".into()])
    );
}

#[test]
fn a_port_that_is_taken_out_goes_straight_and_its_old_connections_go_on() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1"]));
    let id = setup.id("10.96.0.1:80");
    setup.apply(vec![
        set(service("cart", &["10.96.0.1"], &[("tcp", 80)])),
        slice("cart-1", "cart", &[("tcp", 9000)], &["10.0.0.1", "10.0.0.2"]),
    ]);
    assert_eq!(setup.captured(), [] as [&str; 0]);
    assert_eq!(setup.leads_to(id).1, ["10.0.0.1:9000", "10.0.0.2:9000"]);
    setup.apply(vec![slice("cart-1", "cart", &[("tcp", 9000)], &["10.0.0.2"])]);
    assert_eq!(setup.leads_to(id).1, ["10.0.0.2:9000"]);
}

#[test]
fn a_service_that_goes_and_an_address_that_moves_never_share_an_id() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1"]));
    let carts = setup.id("10.96.0.1:80");
    // In one batch: cart goes, and stock gets its address.
    let delta = setup.apply(vec![
        remove("cart"),
        set(service("stock", &["10.96.0.1"], &[("grpc", 80)])),
        slice("stock-1", "stock", &GRPC, &["10.0.1.1"]),
    ]);
    let stocks = setup.id("10.96.0.1:80");
    assert_ne!(stocks, carts);
    assert_eq!((delta.retired, delta.remove), (vec![carts], vec![]), "the new id is written over the old");
    assert_eq!(setup.leads_to(stocks).0, "shop/stock:80");
    assert_eq!(setup.leads_to(carts), ("shop/cart:80".into(), vec![]));
    assert_eq!(setup.rest(), [carts]);
}

#[test]
fn a_slice_may_come_before_its_service_move_to_another_and_stay_behind() {
    let mut setup = Setup::new();
    let [service_row, slice_row] = cart(&["10.0.0.1"]).try_into().unwrap();
    setup.apply(vec![slice_row]);
    setup.apply(vec![service_row, set(service("stock", &["10.96.0.2"], &[("grpc", 80)]))]);
    assert_eq!(setup.captured(), ["10.96.0.1:80"]);
    setup.apply(vec![slice("cart-1", "stock", &GRPC, &["10.0.0.1"])]);
    assert_eq!(setup.captured(), ["10.96.0.2:80"]);
    setup.apply(vec![remove("stock")]);
    assert_eq!(setup.captured(), [] as [&str; 0]);
    setup.apply(vec![set(service("stock", &["10.96.0.2"], &[("grpc", 80)]))]);
    assert_eq!(setup.captured(), ["10.96.0.2:80"]);
    setup.apply(vec![
        Change::Remove(RowKey::Slice(ObjectName::new("shop", "cart-1"))),
        remove("stock"),
        remove("cart"),
    ]);
    assert_eq!(setup.captured(), [] as [&str; 0]);
    assert!(setup.world.services.is_empty(), "{:?}", setup.world.services);
}

#[test]
fn of_two_services_with_one_address_the_first_by_name_has_it_and_it_is_told() {
    let mut setup = Setup::new();
    let with_external = |name: &str, ip: &str, port_name: &str| {
        let external_ips = vec!["192.0.2.1".parse().unwrap()];
        set(ServiceRow { external_ips, ..service(name, &[ip], &[(port_name, 80)]) })
    };
    setup.apply(vec![
        with_external("stock", "10.96.0.2", "grpc"),
        slice("stock-1", "stock", &GRPC, &["10.0.1.1"]),
    ]);
    assert_eq!(setup.leads_to(setup.id("192.0.2.1:80")).0, "shop/stock:80");
    setup.apply(vec![
        with_external("cart", "10.96.0.1", "grpc"),
        slice("cart-1", "cart", &GRPC, &["10.0.0.1"]),
    ]);
    assert_eq!(setup.leads_to(setup.id("192.0.2.1:80")).0, "shop/cart:80");
    assert_eq!(
        setup.told(),
        [
            "Service shop/cart: address 192.0.2.1:80 is also that of shop/stock:80: shop/cart:80 is first by name and has \
          it; give each Service its own address"
        ]
    );
    // One that is not gRPC keeps its connections, too.
    setup.apply(vec![with_external("cart", "10.96.0.1", "web")]);
    assert_eq!(setup.captured(), ["10.96.0.2:80"]);
    let straight = |setup: &Setup| setup.world.services().pop().unwrap().ports[0].straight.clone();
    let reason = "192.0.2.1:80: the address is that of shop/cart:80, too, which is first by name";
    assert_eq!(straight(&setup), [reason]);
    setup.apply(vec![remove("cart")]);
    assert_eq!(setup.leads_to(setup.id("192.0.2.1:80")).0, "shop/stock:80");
    assert!(setup.told().is_empty() && straight(&setup).is_empty());
}

#[test]
fn a_headless_service_is_captured_at_its_endpoints_if_it_asks_for_it() {
    let mut setup = Setup::new();
    let headless = ServiceRow { kind: ServiceKind::Headless, ..service("cart", &[], &[("grpc", 80)]) };
    setup.apply(vec![set(headless.clone()), slice("cart-1", "cart", &GRPC, &["10.0.0.1", "10.0.0.2"])]);
    assert_eq!(setup.captured(), [] as [&str; 0]);
    assert!(setup.world.services()[0].ports[0].straight[0].contains("evenkeel.dev/headless"));
    setup.apply(vec![set(ServiceRow { balance_headless: true, ..headless })]);
    assert_eq!(setup.captured(), ["10.0.0.1:9000", "10.0.0.2:9000"]);
    let both = ["10.0.0.1:9000", "10.0.0.2:9000"];
    assert_eq!(setup.leads_to(setup.id("10.0.0.2:9000")).1, both);
    let id = setup.id("10.0.0.2:9000");
    setup.apply(vec![slice("cart-1", "cart", &GRPC, &["10.0.0.1"])]);
    assert_eq!(setup.captured(), ["10.0.0.1:9000"]);
    assert_eq!(setup.leads_to(id).1, ["10.0.0.1:9000"], "calls of its old connections have somewhere to go");
}

#[test]
fn ids_that_are_used_up_leave_addresses_straight_until_one_is_free() {
    let mut setup = Setup::with_capacity(1);
    let mut changes = cart(&["10.0.0.1"]);
    changes.push(set(service("stock", &["10.96.0.2"], &[("grpc", 80)])));
    changes.push(slice("stock-1", "stock", &GRPC, &["10.0.1.1"]));
    setup.apply(changes);
    assert_eq!(setup.captured(), ["10.96.0.1:80"]);
    assert_eq!(
        setup.told(),
        [
            "1 addresses, 10.96.0.2:80 first, are not captured: all 1 ids of destinations are in use or resting; raise \
          the limit of destinations"
        ]
    );
    let straight = setup.world.services()[1].ports[0].straight.clone();
    assert_eq!(straight, ["10.96.0.2:80: no id is free: raise the limit of destinations"]);
    setup.apply(vec![remove("cart")]);
    setup.apply(vec![]);
    assert_eq!(setup.captured(), [] as [&str; 0]);
    setup.rest();
    setup.apply(vec![]);
    assert_eq!(setup.captured(), ["10.96.0.2:80"]);
    assert!(setup.told().is_empty());
}

#[test]
fn a_restart_goes_on_with_the_ids_that_the_kernel_has() {
    let mut setup = Setup::new();
    let id = |number| DestinationId::new(number).unwrap();
    setup.kernel = BTreeMap::from([(addr("10.96.0.1:80"), id(7)), (addr("10.96.0.9:80"), id(8))]);
    setup.world.restore(setup.kernel.clone(), [id(7), id(8), id(9)], setup.now);
    let mut changes = cart(&["10.0.0.1"]);
    changes.push(set(service("stock", &["10.96.0.2"], &[("grpc", 80)])));
    changes.push(slice("stock-1", "stock", &GRPC, &["10.0.1.1"]));
    let delta = setup.apply(changes);
    assert_eq!(setup.id("10.96.0.1:80"), id(7));
    assert_eq!(setup.leads_to(id(7)).0, "shop/cart:80");
    assert_eq!(delta.add, [(addr("10.96.0.2:80"), id(10))], "what is there is not written again");
    assert_eq!((delta.remove, delta.retired), (vec![addr("10.96.0.9:80")], vec![id(8)]));
    assert_eq!(setup.rest(), [id(8), id(9)]);
}

#[test]
fn a_port_that_is_asked_for_by_name_has_a_backend_whatever_it_speaks() {
    let mut setup = Setup::new();
    assert!(setup.world.backend(&port_of("web", 80)).is_none());
    setup.apply(vec![set(service("web", &[], &[("http", 80), ("tcp", 81)]))]);
    assert!(setup.world.backend(&port_of("web", 80)).unwrap().endpoints.is_empty());
    setup.apply(vec![slice("web-1", "web", &[("http", 8080), ("tcp", 8081)], &["10.0.0.1"])]);
    assert_eq!(setup.world.backend(&port_of("web", 80)).unwrap().endpoints[0].address, addr("10.0.0.1:8080"));
    assert!(setup.world.backend(&port_of("web", 99)).is_none());
    assert_eq!(setup.captured(), [] as [&str; 0]);
}

fn namespace(enabled: Enabled, on_enrol: Option<OnEnrol>) -> Change {
    Change::Set(Row::Namespace(Arc::new(NamespaceRow { name: "shop".into(), enabled, on_enrol })))
}

fn pod(name: &str, enabled: Enabled) -> PodRow {
    PodRow {
        uid: format!("uid-{name}").into(),
        cgroup_uid: format!("uid-{name}").into(),
        name: ObjectName::new("shop", name),
        node: Some(NODE.into()),
        finished: false,
        host_network: false,
        addresses: Vec::new(),
        enabled,
        on_enrol: None,
        netns: None,
        declared_ports: Vec::new(),
    }
}

fn set_pod(row: PodRow) -> Change {
    Change::Set(Row::Pod(Arc::new(row)))
}

fn names(enrolments: &[Enrolment]) -> Vec<(&str, bool)> {
    enrolments.iter().map(|enrolment| (&*enrolment.pod.name.name, enrolment.reconnect)).collect()
}

#[test]
fn a_label_on_the_namespace_enrols_its_pods_and_its_loss_withdraws_them() {
    let mut setup = Setup::new();
    let pods = [("a", Enabled::Unset), ("b", Enabled::No), ("c", Enabled::Yes)];
    let delta = setup.apply(pods.into_iter().map(|(name, enabled)| set_pod(pod(name, enabled))).collect());
    assert_eq!(names(&delta.enrol), [("c", false)]);
    let delta = setup.apply(vec![namespace(Enabled::Yes, None)]);
    assert_eq!(names(&delta.enrol), [("a", false)]);
    let delta = setup.apply(vec![namespace(Enabled::Yes, Some(OnEnrol::Reconnect))]);
    assert_eq!(names(&delta.change), [("a", true), ("c", true)]);
    let delta = setup.apply(vec![Change::Remove(RowKey::Namespace("shop".into()))]);
    assert_eq!(delta.withdraw, ["uid-a".into()]);
    assert_eq!(names(&delta.change), [("c", false)]);
    let reasons: Vec<_> =
        setup.world.pods().into_iter().map(|pod| (pod.name, pod.enrol, pod.reason)).collect();
    let because = |reason: &str| Some(reason.to_owned());
    assert_eq!(
        reasons,
        [
            ("a".to_owned(), false, because("nothing is known of the pod's namespace")),
            ("b".to_owned(), false, because("the pod's label says no")),
            ("c".to_owned(), true, None),
        ]
    );
}

#[test]
fn a_pod_that_changes_ends_or_is_made_anew_is_told() {
    let mut setup = Setup::new();
    setup.apply(vec![set_pod(pod("a", Enabled::Yes))]);
    assert!(setup.apply(vec![set_pod(pod("a", Enabled::Yes))]).is_empty());
    let addresses = vec!["10.0.0.1".parse().unwrap()];
    let delta = setup.apply(vec![set_pod(PodRow { addresses, ..pod("a", Enabled::Yes) })]);
    assert_eq!(names(&delta.change), [("a", false)]);
    let delta = setup.apply(vec![set_pod(PodRow { finished: true, ..pod("a", Enabled::Yes) })]);
    assert_eq!(delta.withdraw, ["uid-a".into()]);
    setup.apply(vec![set_pod(pod("a", Enabled::Yes))]);
    let again = PodRow { uid: "uid-a2".into(), ..pod("a", Enabled::Yes) };
    let delta = setup.apply(vec![Change::Remove(RowKey::Pod("uid-a".into())), set_pod(again)]);
    assert_eq!((names(&delta.enrol), delta.withdraw), (vec![("a", false)], vec!["uid-a".into()]));
}

#[test]
fn what_the_admin_endpoint_shows() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1"]));
    let backend = setup.world.backend(&port_of("cart", 80)).unwrap();
    backend.endpoints[0].load.calls.store(3, std::sync::atomic::Ordering::Relaxed);
    let shown = serde_json::json!({
        "services": setup.world.services(),
        "endpoints": setup.world.endpoints(),
        "ids": setup.world.ids(),
    });
    assert_eq!(
        shown,
        serde_json::json!({
            "services": [{
                "namespace": "shop", "name": "cart", "addresses": ["10.96.0.1"], "picker": "ewma",
                "ports": [{"port": 80, "name": "grpc", "captured": ["10.96.0.1:80"], "endpoints": 1}],
            }],
            "endpoints": [{
                "service_port": "shop/cart:80", "address": "10.0.0.1:9000", "active": 0, "calls": 3, "failures": 0,
            }],
            "ids": {"capacity": 1000, "live": 1, "resting": 0},
        })
    );
    setup.apply(cart(&[]));
    let port = &setup.world.services()[0].ports[0];
    assert_eq!(
        (port.captured.len(), &port.straight[..]),
        (0, &["10.96.0.1:80: no endpoint is ready".to_owned()][..])
    );
}
