//! Which endpoints a call may go to, and with what odds.

use super::*;

fn endpoint_of(world: &World, address: &str) -> Arc<crate::mesh::Endpoint> {
    let port = crate::mesh::ServicePort { service: ObjectName::new("shop", "cart"), port: 80 };
    let backend = world.backend(&port).unwrap();
    let found = backend.endpoints.iter().find(|endpoint| endpoint.address == address.parse().unwrap());
    found.unwrap().clone()
}

#[test]
fn who_is_left_out_is_said_for_this_pod_and_why() {
    let world = world(shop());
    let (own, other) = (crate::balance::source_of("uid-web"), 99);
    let until_ns = NOW_NS + 5_000_000_000;
    let [first, second] = ["10.0.0.1:9000", "10.0.0.2:9000"].map(|address| endpoint_of(&world, address));
    first.load.left_out.add(own, until_ns, REASON, NOW_NS);
    second.load.left_out.add(other, until_ns, REASON, NOW_NS);
    let told = ask(&world, "cart:80", &[], &enrolled());
    let step = answer(&told, "Which of them are left out");
    assert_eq!(step.answer, "1 of 3");
    assert_eq!(
        step.detail,
        [
            "10.0.0.1:9000: it failed this pod's calls; for 5 s more",
            "10.0.0.2:9000: by another pod alone, which is no word on this one's calls"
        ]
    );
    let states: Vec<_> = told.endpoints.iter().map(|one| (one.state, one.odds_percent)).collect();
    assert_eq!(states, [("ejected", Some(0.0)), ("candidate", Some(50.0)), ("candidate", Some(50.0))]);
    // Two of three: fewer than half are left, so all are used.
    second.load.left_out.add(own, until_ns, REASON, NOW_NS);
    let told = ask(&world, "cart:80", &[], &enrolled());
    let step = answer(&told, "Which of them are left out");
    assert_eq!(step.answer, "2 of 3 would be, so none is");
    assert!(told.endpoints.iter().all(|one| one.state == "candidate"), "{told:#?}");
}

#[test]
fn of_an_endpoint_that_its_check_says_is_ill_that_is_said() {
    let world = world(shop());
    endpoint_of(&world, "10.0.0.3:9000").load.left_out.set_unhealthy(NOW_NS + 1);
    let told = ask(&world, "cart:80", &[], &enrolled());
    assert_eq!(told.endpoints[2].state, "unhealthy");
    assert!(answer(&told, "Which of them are left out").detail[0].contains("its health check"), "{told:#?}");
}

#[test]
fn the_picker_says_by_what_it_chooses_and_what_it_would_choose() {
    let balanced = |picker, hash_on: &str| {
        let hash_on: HashOn = hash_on.parse().unwrap();
        let change =
            move |row: &mut ServiceRow| row.balancing = Balancing { picker, hash_on, ..Balancing::default() };
        world([enabled(), pod(|_| ())].into_iter().chain(cart(change)))
    };
    // The slower one is not among those that lose to none, and so is never the better of two.
    let world_of_one_slow = balanced(Picker::Ewma, "source");
    for (address, latency_ns) in
        [("10.0.0.1:9000", 90_000_000), ("10.0.0.2:9000", 2_000_000), ("10.0.0.3:9000", 2_000_000)]
    {
        let load = &endpoint_of(&world_of_one_slow, address).load;
        load.latency_ewma_ns.store(latency_ns, Relaxed);
        load.latency_at_ns.store(NOW_NS, Relaxed);
    }
    let told = ask(&world_of_one_slow, "cart:80", &[], &enrolled());
    let shown: Vec<_> = told.endpoints.iter().map(|one| (one.odds_percent, one.cost_us)).collect();
    assert_eq!(shown, [(Some(0.0), Some(90_000)), (Some(50.0), Some(2_000)), (Some(50.0), Some(2_000))]);

    for picker in [Picker::RingHash, Picker::Maglev] {
        let by_user = balanced(picker, "header:x-user");
        let chosen = |header: &str| ask(&by_user, "cart:80", &[header], &enrolled()).endpoint;
        let all: std::collections::BTreeSet<_> =
            (0..20).filter_map(|user| chosen(&format!("x-user={user}"))).collect();
        assert!(all.len() > 1, "users are spread: {all:?}");
        assert!(chosen("x-user=anna").is_some() && chosen("x-user=anna") == chosen("X-User: anna"));
        let told = ask(&by_user, "cart:80", &[], &enrolled());
        assert_eq!(told.endpoint, None);
        assert!(answer(&told, "How is one chosen?").detail[1].contains("no header x-user"), "{told:#?}");
        let by_source = ask(&balanced(picker, "source"), "cart:80", &[], &enrolled());
        assert!(by_source.summary.contains("this call goes to 10.0.0."), "{}", by_source.summary);
    }
    let stays = [enabled(), pod(|_| ())].into_iter().chain(cart(|row| row.source_affinity = true));
    let stays = world(stays);
    let told = ask(&stays, "cart:80", &[], &enrolled());
    assert!(
        told.endpoint.is_some()
            && answer(&told, "How is one chosen?").answer.starts_with("source-hash: 10.0.0.")
    );
    // A session that has begun stays where it is, wherever the hash leads.
    let port = crate::mesh::ServicePort { service: ObjectName::new("shop", "cart"), port: 80 };
    for home in ["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000"].map(|text| text.parse().unwrap()) {
        let live = Live { homes: vec![(port.clone(), home)], ..enrolled() };
        assert_eq!(ask(&stays, "cart:80", &[], &live).endpoint, Some(home));
    }
    let gone = Live { homes: vec![(port, "10.0.0.9:9000".parse().unwrap())], ..enrolled() };
    assert_eq!(ask(&stays, "cart:80", &[], &gone).endpoint, told.endpoint);
}

#[test]
fn where_ejection_is_off_health_checks_alone_leave_an_endpoint_out() {
    let off = |row: &mut ServiceRow| row.balancing.ejection = Ejection::Off;
    let world = world([enabled(), pod(|_| ())].into_iter().chain(cart(off)));
    let own = crate::balance::source_of("uid-web");
    endpoint_of(&world, "10.0.0.1:9000").load.left_out.add(own, NOW_NS + 1_000_000_000, REASON, NOW_NS);
    endpoint_of(&world, "10.0.0.2:9000").load.left_out.set_unhealthy(NOW_NS + 1);
    let told = ask(&world, "cart:80", &[], &enrolled());
    let states: Vec<_> = told.endpoints.iter().map(|one| one.state).collect();
    assert_eq!(states, ["candidate", "unhealthy", "candidate"], "{told:#?}");
}

#[test]
fn endpoints_that_serve_others_are_shown_with_the_reason() {
    let hinted = |address: &str, zone: &str| EndpointRow {
        hints: sample::hints(&[zone], &[]),
        ..sample::endpoint(address)
    };
    let not_ready = Conditions { ready: Some(false), ..Conditions::default() };
    let mut rows = shop();
    rows.extend([
        Row::Node(Arc::new(NodeRow { name: "node-1".into(), zone: Some("a".into()) })),
        slice(
            "cart",
            [
                hinted("10.0.0.1", "a"),
                hinted("10.0.0.2", "b"),
                EndpointRow { conditions: not_ready, ..hinted("10.0.0.3", "a") },
            ],
        ),
    ]);
    let world = world(rows);
    let told = ask(&world, "cart:80", &[], &enrolled());
    let step = answer(&told, "Which endpoints may serve it?");
    assert_eq!(step.answer, "1", "{told:#?}");
    assert_eq!(
        step.detail[..2],
        ["1 not: hinted for other zones, and others for this one", "1 not: not ready"]
    );
    let states: Vec<_> = told.endpoints.iter().map(|one| one.state).collect();
    assert_eq!(states, ["candidate", "unused", "unused"]);
    // Those nearby fail, and calls go farther.
    let own = crate::balance::source_of("uid-web");
    endpoint_of(&world, "10.0.0.1:9000").load.left_out.add(own, NOW_NS + 1_000_000_000, REASON, NOW_NS);
    let told = ask(&world, "cart:80", &[], &enrolled());
    let states: Vec<_> = told.endpoints.iter().map(|one| (one.state, one.odds_percent)).collect();
    assert_eq!(states, [("ejected", Some(0.0)), ("farther", Some(100.0)), ("unused", None)], "{told:#?}");
}

#[test]
fn endpoints_are_counted_beyond_those_that_are_shown() {
    let addresses = (0..1_200).map(|number| format!("10.1.{}.{}", number / 200, number % 200 + 1));
    let endpoints: Vec<_> = addresses.map(|address| sample::endpoint(&address)).collect();
    let told = ask(&world(shop().into_iter().chain([slice("cart", endpoints)])), "cart:80", &[], &enrolled());
    assert_eq!(told.summary, "The connection is taken; each call goes to one of 1200 endpoints.");
    assert!(told.endpoints.len() < 1_200);
}

#[test]
fn the_policy_of_the_address_that_is_dialled_counts() {
    let on = |node: &str, address: &str| EndpointRow { node: Some(node.into()), ..sample::endpoint(address) };
    let local = |row: &mut ServiceRow| {
        row.internal_traffic_local = true;
        row.external_ips = vec!["192.0.2.7".parse().unwrap()];
    };
    let rows = [enabled(), pod(|_| ())].into_iter().chain(cart(local));
    let world = world(rows.chain([slice("cart", [on("node-1", "10.0.0.1"), on("node-2", "10.0.0.2")])]));
    let says_local = |told: &Explanation| {
        answer(told, "Which endpoints may serve it?")
            .detail
            .iter()
            .any(|line| line.contains("internalTrafficPolicy"))
    };
    let inside = ask(&world, "cart:80", &[], &enrolled());
    let states: Vec<_> = inside.endpoints.iter().map(|one| one.state).collect();
    assert!(says_local(&inside) && states == ["candidate", "unused"], "{inside:#?}");
    let outside = ask(&world, "192.0.2.7:80", &[], &enrolled());
    let states: Vec<_> = outside.endpoints.iter().map(|one| one.state).collect();
    assert!(!says_local(&outside) && states == ["candidate"; 2], "{outside:#?}");
}

#[test]
fn endpoints_of_the_other_family_are_not_spoken_of() {
    let not_ready = Conditions { ready: Some(false), ..Conditions::default() };
    let endpoint = |address: &str, conditions| EndpointRow { conditions, ..sample::endpoint(address) };
    let rows = [enabled(), pod(|_| ())].into_iter().chain(cart(|row| {
        row.cluster_ips.push("fd00::1".parse().unwrap());
    }));
    let both = ["10.0.0.1", "fd00:1::1"].map(|address| endpoint(address, Conditions::default()));
    let neither = ["10.0.0.2", "fd00:1::2"].map(|address| endpoint(address, not_ready));
    let world = world(rows.chain([slice("cart", both.into_iter().chain(neither))]));
    for (to, family) in [("10.96.0.1:80", "10."), ("[fd00::1]:80", "[fd00")] {
        let told = ask(&world, to, &[], &enrolled());
        assert_eq!(answer(&told, "Which endpoints may serve it?").detail, ["1 not: not ready"], "{to}");
        let shown: Vec<_> = told.endpoints.iter().map(|one| (one.address.to_string(), one.state)).collect();
        assert!(
            shown.len() == 2 && shown.iter().all(|(address, _)| address.starts_with(family)),
            "{shown:?}"
        );
    }
}
