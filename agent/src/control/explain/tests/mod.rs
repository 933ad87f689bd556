//! Worlds in which something is said, questions, and what is answered.

mod endpoints;

use super::name::{Meaning, meaning};
use super::question::Host;
use super::*;
use crate::control::{Settings, World};
use crate::mesh::{Balancing, Ejection, EjectionReason, HashOn, ObjectName, Picker};
use crate::sources::rows::{
    Change, Conditions, Enabled, EndpointRow, NamespaceRow, NodeRow, PodRow, Row, ServiceKind,
    ServicePortRow, ServiceRow, Transport,
};
use crate::sources::sample;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const NOW_NS: u64 = 1_000_000_000_000;
const REASON: EjectionReason = EjectionReason::ConsecutiveFailures;

fn world(rows: impl IntoIterator<Item = Row>) -> World {
    let mut world = World::new(Settings {
        node: Some("node-1".into()),
        own_pod_uid: Some("uid-agent".into()),
        addresses: 100,
        ids: 100,
        explicit_ports: Vec::new(),
    });
    world.apply(rows.into_iter().map(Change::Set).collect());
    world
}

fn enabled() -> Row {
    Row::Namespace(Arc::new(sample::namespace(Enabled::Yes)))
}

fn pod(change: impl FnOnce(&mut PodRow)) -> Row {
    let mut pod = sample::pod("web", Enabled::Unset);
    change(&mut pod);
    Row::Pod(Arc::new(pod))
}

fn service(name: &str, ips: &[&str], ports: &[ServicePortRow], change: impl FnOnce(&mut ServiceRow)) -> Row {
    let mut service = ServiceRow {
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports: ports.to_vec(),
        ..sample::service(name)
    };
    change(&mut service);
    Row::Service(Arc::new(service))
}

fn slice(name: &str, endpoints: impl IntoIterator<Item = EndpointRow>) -> Row {
    Row::Slice(Arc::new(sample::slice(&format!("{name}-1"), name, &[("grpc", 9000)], endpoints)))
}

/// The Service `cart` at 10.96.0.1:80, with three endpoints.
fn cart(change: impl FnOnce(&mut ServiceRow)) -> [Row; 2] {
    let endpoints = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(sample::endpoint);
    [service("cart", &["10.96.0.1"], &[sample::service_port("grpc", 80)], change), slice("cart", endpoints)]
}

/// A namespace that is enrolled, the pod `web` in it, and `cart`.
fn shop() -> Vec<Row> {
    [enabled(), pod(|_| ())].into_iter().chain(cart(|_| ())).collect()
}

fn enrolled() -> Live {
    let facts = Facts { seconds: 90, ipv6_route: true, connection_limit: 100, ..Facts::default() };
    Live { heart: Heart::Beats, mark: 0x1000, pod: Standing::Enrolled(facts), homes: Vec::new() }
}

fn ask(world: &World, to: &str, headers: &[&str], live: &Live) -> Explanation {
    let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    let question = Question::parse("shop/web", to, Some("/shop.Cart/Add"), &headers).unwrap();
    world.explain(&question, live, NOW_NS)
}

/// The answer to the question that begins so.
fn answer<'a>(told: &'a Explanation, question: &str) -> &'a Step {
    let found = told.steps.iter().find(|step| step.question.starts_with(question));
    found.unwrap_or_else(|| panic!("{question} is not asked: {told:#?}"))
}

#[test]
fn a_call_that_is_balanced_is_followed_to_its_endpoints() {
    let world = world(shop());
    let told = ask(&world, "cart:80", &[], &enrolled());
    assert_eq!((told.outcome, told.reason), (Outcome::Balanced, None), "{told:#?}");
    assert_eq!(told.summary, "The connection is taken; each call goes to one of 3 endpoints.");
    assert_eq!(told.address, Some("10.96.0.1:80".parse().unwrap()));
    assert_eq!(told.service_port.as_deref(), Some("shop/cart:80"));
    for (question, expected) in [
        ("Is the pod enrolled?", "yes, for 1 min"),
        ("What does cart stand for?", "the Service shop/cart"),
        ("Whose is 10.96.0.1:80?", "the Service port shop/cart:80"),
        ("Are connections to it taken?", "yes"),
        ("What do the kernel programs say", "takes the connection"),
        ("What does the agent do", "looks at its first bytes"),
        ("Which backend", "shop/cart:80"),
        ("Which endpoints may serve it?", "3"),
        ("Which of them are left out", "none"),
        ("How is one chosen?", "ewma: by chance, with the odds below"),
    ] {
        let step = answer(&told, question);
        assert_eq!((step.answer.as_str(), step.hypothetical), (expected, false), "{question}");
    }
    let odds: Vec<_> = told.endpoints.iter().map(|one| (one.state, one.odds_percent)).collect();
    assert_eq!(odds, [("candidate", Some(33.3)); 3]);
}

#[test]
fn a_host_means_what_dns_would_say_of_it() {
    let headless = |row: &mut ServiceRow| row.kind = ServiceKind::Headless;
    let external = |row: &mut ServiceRow| row.kind = ServiceKind::ExternalName;
    let mut rows = shop();
    let not_ready = Conditions { ready: Some(false), ..Conditions::default() };
    rows.extend([
        service("db", &[], &[], headless),
        slice(
            "db",
            [
                sample::endpoint("10.0.1.1"),
                EndpointRow { conditions: not_ready, ..sample::endpoint("10.0.1.2") },
            ],
        ),
        service("empty", &[], &[], headless),
        service("bank", &[], &[], external),
    ]);
    let world = world(rows);
    let named = |name: &str| ObjectName::new("shop", name);
    let at = |name: &str, ip: &str| Meaning::Service(named(name), vec![ip.parse().unwrap()]);
    for (namespace, host, expected) in [
        ("shop", "cart", at("cart", "10.96.0.1")),
        ("other", "cart", Meaning::NoSuchService(ObjectName::new("other", "cart"))),
        ("other", "cart.shop", at("cart", "10.96.0.1")),
        ("other", "cart.shop.svc", at("cart", "10.96.0.1")),
        ("other", "cart.shop.svc.cluster.local", at("cart", "10.96.0.1")),
        ("shop", "nobody.shop.svc.cluster.local", Meaning::NoSuchService(named("nobody"))),
        ("shop", "db", at("db", "10.0.1.1")),
        ("shop", "empty", Meaning::NoAddress(named("empty"))),
        ("shop", "bank", Meaning::ExternalName(named("bank"))),
        ("shop", "db-0.db", Meaning::PodOf(named("db"))),
        ("other", "db-0.db", Meaning::Outside),
        ("other", "db-0.db.shop.svc.cluster.local", Meaning::PodOf(named("db"))),
        ("other", "cart-0.cart.shop.svc.cluster.local", Meaning::NoSuchService(named("cart"))),
        ("shop", "example.com", Meaning::Outside),
        ("shop", "api.example.com", Meaning::Outside),
    ] {
        assert_eq!(meaning(&world, namespace, &Host::Name(host.into())), expected, "{host} in {namespace}");
    }
}

#[test]
fn a_question_is_understood_or_it_is_said_what_is_wrong_with_it() {
    for (to, expected) in [
        ("cart:80", "cart:80"),
        ("Cart.Shop.svc.:80", "cart.shop.svc:80"),
        ("dns:///cart.shop:80", "cart.shop:80"),
        ("10.96.0.1:80", "10.96.0.1:80"),
        ("[fd00::1]:80", "[fd00::1]:80"),
        ("[::ffff:10.96.0.1]:80", "10.96.0.1:80"),
    ] {
        assert_eq!(Question::parse("shop/web", to, None, &[]).unwrap().to.to_string(), expected, "{to}");
    }
    let header = |text: &str| vec![text.to_owned()];
    for (pod, to, method, headers, said) in [
        ("web", "cart:80", None, vec![], "pod=\"web\": expected namespace/name"),
        ("a/b/c", "cart:80", None, vec![], "pod="),
        ("shop/web", "cart", None, vec![], "to=\"cart\": expected host:port"),
        ("shop/web", "cart:0", None, vec![], "to="),
        ("shop/web", "cart:65536", None, vec![], "to="),
        ("shop/web", ":80", None, vec![], "to="),
        ("shop/web", "a b:80", None, vec![], "to="),
        ("shop/web", "http://cart:80", None, vec![], "to="),
        ("shop/web", "cart:80", Some("shop.Cart/Add"), vec![], "method="),
        ("shop/web", "cart:80", Some("/"), vec![], "method="),
        ("shop/web", "cart:80", None, header("x-user"), "header=\"x-user\": expected name=value"),
        ("shop/web", "cart:80", None, header("=x"), "header="),
        ("shop/web", "cart:80", None, header("x=a\nb"), "header="),
        ("shop/web", "cart:80", None, vec!["x=y".to_owned(); 101], "101 headers"),
    ] {
        let wrong = Question::parse(pod, to, method, &headers).unwrap_err();
        assert!(wrong.starts_with(said), "{wrong}");
    }
    let long = Question::parse(&"x".repeat(100_000), "cart:80", None, &[]).unwrap_err();
    assert!(long.len() < 200, "{long}");
}

#[test]
fn why_a_connection_goes_straight_is_said_by_the_first_thing_that_makes_it_so() {
    let facts = |change: fn(&mut Facts)| {
        let mut live = enrolled();
        let Standing::Enrolled(facts) = &mut live.pod else { unreachable!() };
        change(facts);
        live
    };
    let waiting = Live { pod: Standing::Waiting { reason: "no process".into(), seconds: 3 }, ..enrolled() };
    let with = |more: Vec<Row>| {
        let mut rows = shop();
        rows.extend(more);
        rows
    };
    let v6 = service("six", &["fd00::1"], &[sample::service_port("grpc", 80)], |_| ());
    let v6 = vec![v6, slice("six", [sample::endpoint("fd00:1::1")])];
    let headless = |row: &mut ServiceRow| row.kind = ServiceKind::Headless;
    let db = vec![
        service("db", &[], &[sample::service_port("grpc", 9000)], headless),
        slice("db", [sample::endpoint("10.0.1.1")]),
    ];
    let claimed = vec![service("bus", &["10.96.0.9"], &[sample::service_port("grpc", 80)], |row| {
        row.external_ips = vec!["10.96.0.1".parse().unwrap()];
    })];
    for (what, rows, to, live, reason, said) in [
        (
            "an unlabelled namespace",
            vec![Row::Namespace(Arc::new(sample::namespace(Enabled::No)))],
            "cart:80",
            enrolled(),
            None,
            "the pod is not enrolled (the namespace is not labelled",
        ),
        (
            "a host-network pod",
            vec![pod(|pod| pod.host_network = true)],
            "cart:80",
            enrolled(),
            None,
            "hostNetwork",
        ),
        (
            "a pod of another node",
            vec![pod(|pod| pod.node = Some("node-2".into()))],
            "cart:80",
            enrolled(),
            None,
            "on another node, node-2",
        ),
        ("a pod that waits", vec![], "cart:80", waiting, None, "not enrolled yet (no process)"),
        ("a name outside", vec![], "example.com:443", enrolled(), None, "example.com is no Service's name"),
        (
            "an address outside",
            vec![],
            "192.0.2.1:80",
            enrolled(),
            Some("unknown_destination"),
            "the address of no Service",
        ),
        (
            "a port that it has not",
            vec![],
            "cart:81",
            enrolled(),
            Some("unknown_destination"),
            "shop/cart has no TCP port 81; it has 80",
        ),
        (
            "an endpoint's own address",
            vec![],
            "10.0.0.1:9000",
            enrolled(),
            Some("unknown_destination"),
            "dialled by its own address",
        ),
        ("a headless Service", db, "db:9000", enrolled(), Some("unknown_destination"), "shop/db is headless"),
        (
            "a port of another protocol",
            cart(|row| row.ports[0].app_protocol = Some("https".into())).into(),
            "cart:80",
            enrolled(),
            Some("unknown_destination"),
            "not gRPC: appProtocol is \"https\"",
        ),
        (
            "no endpoint",
            vec![slice("cart", [])],
            "cart:80",
            enrolled(),
            Some("no_endpoint"),
            "no endpoint is ready",
        ),
        (
            "lo that is down",
            vec![],
            "cart:80",
            facts(|facts| facts.loopback_down = true),
            Some("loopback_down"),
            "lo is down",
        ),
        (
            "too many connections",
            vec![],
            "cart:80",
            facts(|facts| facts.at_connection_limit = true),
            Some("connection_limit"),
            "of 100 at most",
        ),
        (
            "no IPv6 route",
            v6,
            "six:80",
            facts(|facts| facts.ipv6_route = false),
            Some("no_ipv6_route"),
            "no route",
        ),
        (
            "an agent that does not serve",
            vec![],
            "cart:80",
            Live { heart: Heart::Stopped, ..enrolled() },
            Some("agent_silent"),
            "does not serve",
        ),
        (
            "lo before the heart",
            vec![],
            "cart:80",
            Live { heart: Heart::Stopped, ..facts(|facts| facts.loopback_down = true) },
            Some("loopback_down"),
            "lo is down",
        ),
        (
            "a worker thread that hangs",
            vec![],
            "cart:80",
            Live { heart: Heart::Silent(1_200), ..enrolled() },
            Some("agent_silent"),
            "a worker thread of the agent has been silent for 1200 ms",
        ),
        (
            "a port that it has by UDP",
            cart(|row| {
                row.ports
                    .push(ServicePortRow { transport: Transport::Other, ..sample::service_port("dns", 53) });
            })
            .into(),
            "cart:53",
            enrolled(),
            Some("unknown_destination"),
            "shop/cart has no TCP port 53; it has 80",
        ),
    ] {
        let told = ask(&world(with(rows)), to, &[], &live);
        assert_eq!((told.outcome, told.reason), (Outcome::Straight, reason), "{what}: {told:#?}");
        assert!(told.summary.contains(said), "{what}: {}", told.summary);
        assert_eq!(told.endpoint, None, "{what}");
        let Some(kernel) = told.steps.iter().find(|step| step.question.starts_with("What do the kernel"))
        else {
            continue;
        };
        // The programs are asked of every connection of a pod that is enrolled.
        assert_eq!(kernel.hypothetical, told.steps[0].answer != "yes, for 1 min", "{what}: {told:#?}");
        if let Some(reason) = reason {
            assert_eq!(kernel.answer, format!("lets it go straight, counted as {reason}"), "{what}");
        }
        let at = told.steps.iter().position(|step| step == kernel).unwrap();
        assert!(told.steps[at + 1..].iter().all(|step| step.hypothetical), "{what}: {told:#?}");
    }
    // Its own by the stronger right.
    let told = ask(&world(with(claimed)), "cart:80", &[], &enrolled());
    assert_eq!(told.outcome, Outcome::Balanced);
    assert!(answer(&told, "Whose is").detail[0].contains("shop/bus:80 claim it too"), "{told:#?}");
    let nobody = ask(&world(shop()), "nobody:80", &[], &enrolled());
    assert_eq!(nobody.outcome, Outcome::Unresolved);
    assert_eq!(answer(&nobody, "What does nobody stand for?").answer, "nothing");
}

#[test]
fn what_would_be_if_it_were_otherwise_is_told_as_such() {
    let mut rows = shop();
    rows.push(pod(|pod| pod.enabled = Enabled::No));
    let told = ask(&world(rows), "cart:80", &[], &enrolled());
    assert!(!told.steps[0].hypothetical, "that it is not enrolled is so");
    assert!(told.steps[1..].iter().all(|step| step.hypothetical));
    assert!(told.endpoints.len() == 3 && told.summary.contains("the pod's label says no"), "{told:#?}");
    let gone = world([enabled()].into_iter().chain(cart(|_| ())));
    let told = ask(&gone, "cart.shop:80", &[], &enrolled());
    assert!(told.summary.contains("node-1 has no pod shop/web"), "{}", told.summary);
    assert_eq!(answer(&told, "How is one chosen?").answer, "ewma: by chance, with the odds below");
}

#[test]
fn an_address_without_room_is_one_that_the_kernel_does_not_know() {
    for (endpoints, said) in [(vec!["10.0.0.1"], "no room"), (vec![], "no endpoint is ready")] {
        let mut full = World::new(Settings {
            node: Some("node-1".into()),
            own_pod_uid: None,
            addresses: 0,
            ids: 100,
            explicit_ports: Vec::new(),
        });
        let rows = [enabled(), pod(|_| ())].into_iter().chain(cart(|_| ()));
        let rows = rows.chain([slice("cart", endpoints.into_iter().map(sample::endpoint))]);
        full.apply(rows.map(Change::Set).collect());
        let told = ask(&full, "cart:80", &[], &enrolled());
        assert_eq!(
            (told.outcome, told.reason),
            (Outcome::Straight, Some("unknown_destination")),
            "{told:#?}"
        );
        assert!(told.summary.contains(said), "{}", told.summary);
        let kernel = answer(&told, "What do the kernel programs say");
        assert_eq!(kernel.answer, "lets it go straight, counted as unknown_destination");
        assert_eq!(
            kernel.detail.last().unwrap(),
            "→ unknown_destination: the address is not one that is balanced"
        );
    }
}

#[test]
fn what_is_not_known_here_is_said_where_it_may_change_the_answer() {
    let unknown = |told: &Explanation| {
        let step = answer(told, "How is one chosen?");
        step.detail.iter().any(|line| line.contains("refuses connections") && line.contains("not known here"))
    };
    let affinity = |row: &mut ServiceRow| row.source_affinity = true;
    for rows in [shop(), [enabled(), pod(|_| ())].into_iter().chain(cart(affinity)).collect()] {
        assert!(unknown(&ask(&world(rows), "cart:80", &[], &enrolled())));
    }
    let alone = shop().into_iter().chain([slice("cart", [sample::endpoint("10.0.0.1")])]);
    assert!(!unknown(&ask(&world(alone), "cart:80", &[], &enrolled())), "there is no other");
    let told = ask(&world(shop()), "cart.shop.svc.example.org:80", &[], &enrolled());
    let meaning = answer(&told, "What does cart.shop.svc.example.org stand for?");
    assert!(meaning.detail[1].contains("whose domain is not known here"), "{meaning:?}");
    let told = ask(&world(shop()), "cart.shop.svc.cluster.local:80", &[], &enrolled());
    assert_eq!(answer(&told, "What does cart.shop.svc.cluster.local stand for?").detail.len(), 1);
}

#[test]
fn a_refused_call_goes_nowhere() {
    let mut told = ask(&world(shop()), "cart:80", &[], &enrolled());
    told.endpoint = Some("10.0.0.1:9000".parse().unwrap());
    told.refused("UNAVAILABLE: its circuit is open");
    assert_eq!((told.outcome, told.endpoint), (Outcome::Refused, None));
    assert_eq!(
        told.summary,
        "The connection is taken; this call is answered UNAVAILABLE: its circuit is open."
    );
    told.step("What then?", "nothing", Vec::new());
    assert!(told.steps.last().unwrap().hypothetical);
}

#[test]
fn whatever_is_asked_the_answer_says_something() {
    let namespace = |name: &str| {
        Row::Namespace(Arc::new(NamespaceRow { name: name.into(), ..sample::namespace(Enabled::Yes) }))
    };
    let empty = world([namespace("shop")]);
    for to in ["a:1", "a.b:1", "a.b.svc:1", "a.b.c.svc:1", "127.0.0.1:1", "[::1]:1", "0.0.0.0:65535"] {
        for world in [&empty, &world(shop())] {
            let told = ask(
                world,
                to,
                &[],
                &Live { heart: Heart::Stopped, mark: 1, pod: Standing::Unknown, homes: Vec::new() },
            );
            assert!(!told.summary.is_empty() && told.outcome != Outcome::Balanced, "{to}: {told:#?}");
        }
    }
}
