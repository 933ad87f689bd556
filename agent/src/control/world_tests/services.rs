//! Services, their addresses and their ids.

use super::*;
use crate::sources::rows::ServiceKind;

#[test]
fn a_service_is_captured_from_its_first_endpoint_to_its_last_under_one_id() {
    let mut setup = Setup::new();
    let address = addr("10.96.0.1:80");
    let [service, slice_row] = cart(&["10.0.0.1"]).try_into().unwrap();
    let delta = setup.apply(vec![service]);
    let id = setup.marked[&address];
    assert_eq!((delta.add, delta.without_endpoint), (vec![], vec![(address, id)]), "counted, not captured");
    let delta = setup.apply(vec![slice_row]);
    assert_eq!((delta.add, delta.snapshot.is_some()), (vec![(address, id)], true));
    assert_eq!(setup.leads_to(id), ("shop/cart:80".into(), vec!["10.0.0.1:9000".into()]));

    let delta = setup.apply(vec![slice("cart-1", "cart", &GRPC, &[])]);
    assert_eq!((delta.without_endpoint, delta.remove, delta.retired), (vec![(address, id)], vec![], vec![]));
    assert_eq!(setup.leads_to(id).1, [] as [&str; 0], "calls in hand are told that there is nobody");
    assert!(setup.apply(vec![slice("cart-1", "cart", &GRPC, &[])]).is_empty());

    let delta = setup.apply(vec![slice("cart-1", "cart", &GRPC, &["10.0.0.2"])]);
    assert_eq!((delta.add, delta.without_endpoint), (vec![(address, id)], vec![]));
    assert_eq!(setup.rest(), [], "it was never retired");
    let delta = setup.apply(vec![remove("cart")]);
    assert_eq!((delta.remove, delta.retired), (vec![address], vec![id]));
    assert_eq!(setup.rest(), [id]);
}

#[test]
fn an_address_that_comes_back_in_time_has_its_old_id_and_later_another() {
    let mut setup = Setup::new();
    setup.apply(cart(&["10.0.0.1"]));
    let first = setup.id("10.96.0.1:80");
    setup.apply(vec![remove("cart")]);
    let delta = setup.apply(cart(&["10.0.0.2"]));
    assert_eq!(delta.add, [(addr("10.96.0.1:80"), first)]);
    assert_eq!(setup.leads_to(first).1, ["10.0.0.2:9000"]);
    assert_eq!(setup.rest(), [], "it is live");

    setup.apply(vec![remove("cart")]);
    // Back without an endpoint is back as well.
    setup.apply(cart(&[]));
    assert_eq!(setup.marked[&addr("10.96.0.1:80")], first);
    assert_eq!(setup.rest(), []);

    setup.apply(vec![remove("cart")]);
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
    let away = setup.world.apply(vec![remove("cart")]);
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
            "Service shop/cart: address 192.0.2.1:80 is also that of shop/stock:80: shop/cart:80 comes first and has \
          it; give each Service its own address"
        ]
    );
    // One that is not gRPC keeps its connections, too.
    setup.apply(vec![with_external("cart", "10.96.0.1", "web")]);
    assert_eq!(setup.captured(), ["10.96.0.2:80"]);
    let straight = |setup: &Setup| setup.world.services().pop().unwrap().ports[0].straight.clone();
    let reason = "192.0.2.1:80: the address is that of shop/cart:80, too, which comes first";
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
    let mut setup = Setup::with_room(2, 1);
    let mut changes = cart(&["10.0.0.1"]);
    changes.push(set(service("stock", &["10.96.0.2"], &[("grpc", 80)])));
    changes.push(slice("stock-1", "stock", &GRPC, &["10.0.1.1"]));
    setup.apply(changes);
    assert_eq!(setup.captured(), ["10.96.0.1:80"]);
    assert_eq!(
        setup.told(),
        [
            "1 addresses, 10.96.0.2:80 first, are not captured: all 1 ids of destinations are in use or resting; raise \
          --max-destinations"
        ]
    );
    let straight = setup.world.services()[1].ports[0].straight.clone();
    assert_eq!(
        straight,
        ["10.96.0.2:80: no room: there are more destinations than --max-destinations allows"]
    );
    setup.apply(vec![remove("cart")]);
    setup.apply(vec![]);
    assert_eq!(setup.captured(), [] as [&str; 0]);
    assert!(!setup.world.can_place_more());
    setup.rest();
    // It is free a round after it was dropped: that round finds nothing else to drop.
    assert!(setup.world.can_place_more());
    setup.apply(vec![]);
    assert_eq!(setup.captured(), ["10.96.0.2:80"]);
    assert!(setup.told().is_empty() && !setup.world.can_place_more());
}

#[test]
fn nobody_takes_a_services_own_address_by_writing_it_into_another() {
    let thief = |name: &str| {
        let external_ips = vec!["10.96.0.1".parse().unwrap()];
        set(ServiceRow { external_ips, ..service(name, &["10.96.0.9"], &[("web", 80)]) })
    };
    for order in [true, false] {
        let mut setup = Setup::new();
        let mut changes = cart(&["10.0.0.1"]);
        changes.insert(if order { 0 } else { 2 }, thief("a"));
        for change in changes {
            setup.apply(vec![change]);
        }
        assert_eq!(setup.leads_to(setup.id("10.96.0.1:80")).0, "shop/cart:80");
        let straight = setup.straight("a", 80);
        assert!(straight[0].contains("web") || straight[0].contains("gRPC"), "{straight:?}");
        // Two endpoints that a headless Service shares with another's cluster address lose, too.
        let mut headless = service("b", &[], &[("grpc", 80)]);
        (headless.kind, headless.balance_headless) = (ServiceKind::Headless, true);
        setup.apply(vec![set(headless), slice("b-1", "b", &[("grpc", 80)], &["10.96.0.1"])]);
        assert_eq!(setup.leads_to(setup.id("10.96.0.1:80")).0, "shop/cart:80");
        setup.apply(vec![remove("cart"), remove("a")]);
        assert_eq!(setup.leads_to(setup.id("10.96.0.1:80")).0, "shop/b:80");
    }
}

#[test]
fn no_more_addresses_are_placed_than_the_kernels_map_holds() {
    let mut setup = Setup::with_room(1, 2);
    let mut changes = cart(&["10.0.0.1"]);
    changes.push(set(service("stock", &["10.96.0.2"], &[("grpc", 80)])));
    changes.push(slice("stock-1", "stock", &GRPC, &["10.0.1.1"]));
    setup.apply(changes.clone());
    assert_eq!(setup.captured(), ["10.96.0.1:80"]);
    let told = "1 addresses, 10.96.0.2:80 first, are not captured: the kernel's map is full, with 1 destinations; raise \
                --max-destinations";
    assert_eq!(setup.told(), [told]);
    assert!(!setup.world.can_place_more());
    setup.apply(vec![remove("cart")]);
    assert!(setup.world.can_place_more() || setup.captured() == ["10.96.0.2:80"]);
    setup.apply(vec![]);
    assert_eq!(setup.captured(), ["10.96.0.2:80"], "the old id rests, and there is another");
    assert!(setup.told().is_empty());

    // What a process before this one left counts, too, until it is known to be wanted no more.
    let mut setup = Setup::with_room(1, 4);
    let id = DestinationId::new(1).unwrap();
    setup.restore(vec![Live { address: addr("10.96.0.2:80"), id, has_endpoint: true }], vec![id]);
    setup.apply(changes);
    assert_eq!(setup.captured(), ["10.96.0.2:80"]);
}

#[test]
fn a_restart_goes_on_with_the_ids_that_the_kernel_has() {
    let mut setup = Setup::new();
    let id = |number| DestinationId::new(number).unwrap();
    let live = |address, number, has_endpoint| Live { address: addr(address), id: id(number), has_endpoint };
    setup.restore(
        vec![live("10.96.0.1:80", 7, true), live("10.96.0.9:80", 8, true)],
        vec![id(7), id(8), id(9)],
    );
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
fn a_restart_finds_out_what_has_an_endpoint_now() {
    let mut setup = Setup::new();
    let ids: [DestinationId; 4] = [1, 2, 3, 4].map(|number| DestinationId::new(number).unwrap());
    let names = ["gone", "come", "still", "never"];
    let before = [true, false, true, false];
    let addresses = [1, 2, 3, 4].map(|host| SocketAddr::from(([10, 96, 0, host], 80)));
    let live = (0..4).map(|at| Live { address: addresses[at], id: ids[at], has_endpoint: before[at] });
    setup.restore(live.collect(), ids.to_vec());
    let mut changes = Vec::new();
    for (name, address) in names.iter().zip(addresses) {
        changes.push(set(service(name, &[&address.ip().to_string()], &[("grpc", 80)])));
    }
    changes.extend(["come", "still"].map(|name| slice(&format!("{name}-1"), name, &GRPC, &["10.0.0.1"])));
    let delta = setup.apply(changes);
    assert_eq!(delta.add, [(addresses[1], ids[1])]);
    assert_eq!(delta.without_endpoint, [(addresses[0], ids[0])]);
    assert!(delta.remove.is_empty() && delta.retired.is_empty());
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
