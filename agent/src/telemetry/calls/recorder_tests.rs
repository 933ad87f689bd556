//! What is counted, and what of it is bounded.

use super::super::{CallStats, Flag, MOST_METHODS};
use super::*;
use crate::http2::FieldList;
use crate::mesh::ObjectName;
use std::time::Instant;

fn in_groups(telemetry: &Telemetry) -> u64 {
    telemetry.call_sums(Instant::now()).groups.iter().map(|(_, counts)| counts.calls()).sum()
}

fn service_port() -> ServicePort {
    ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 }
}

fn endpoints(count: usize) -> Vec<Endpoint> {
    let at = |host: usize| Endpoint::at(([10, 0, (host / 250) as u8, (host % 250) as u8], 50051).into());
    (0..count).map(at).collect()
}

fn record(recorder: &mut Recorder, methods: &mut Methods, path: &str, endpoint: &Endpoint, http: u16) {
    let id = methods.intern(path.as_bytes(), path.len() as u32);
    let request = FieldList::new();
    let end = CallEnd {
        source: None,
        service_port: &service_port(),
        original: None,
        endpoint: Some(endpoint),
        method: methods.name(id),
        request: &request,
        stats: CallStats {
            status: Status { is_grpc: true, http, grpc: Some(0), flag: Flag::None },
            began_ns: 1_000,
            ended_ns: 3_000_000,
            request_bytes: 10,
            response_bytes: 2_000,
            request_messages: 1,
            response_messages: 2,
            attempts: 1,
            ..CallStats::default()
        },
    };
    recorder.record(&end, id);
}

#[test]
fn a_call_is_counted_once_under_each_of_its_names() {
    let telemetry = Arc::new(Telemetry::new(true));
    let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
    let (mut methods, endpoints) = (Methods::default(), endpoints(2));
    for (path, endpoint, http, times) in
        [("/a.B/C", 0, 200, 3), ("/a.B/C", 1, 200, 4), ("/a.B/D", 1, 200, 5), ("/a.B/D", 1, 503, 6)]
    {
        for _ in 0..times {
            record(&mut recorder, &mut methods, path, &endpoints[endpoint], http);
        }
    }
    let mut calls: Vec<_> = telemetry
        .calls()
        .into_iter()
        .map(|(key, counts)| (key.method.to_string(), counts.calls(), counts.response_bytes))
        .collect();
    calls.sort();
    let expected = [("a.B/C", 3), ("a.B/C", 4), ("a.B/D", 5), ("a.B/D", 6)];
    assert_eq!(calls, expected.map(|(method, calls)| (method.to_owned(), calls, 2_000 * calls)));
    let sizes: u64 = telemetry
        .sizes(Instant::now())
        .iter()
        .map(|(_, sizes)| sizes.request_sizes.iter().sum::<u64>())
        .sum();
    assert_eq!(sizes, 18);
    // Its endpoint goes: the sums stay.
    recorder.keep(std::iter::once(&endpoints[1]));
    assert_eq!(recorder.entries.len(), 3);
    assert_eq!(in_groups(&telemetry), 18);
}

#[test]
fn scrapes_of_a_thousand_endpoints_lose_nothing_of_what_is_counted_meanwhile() {
    const CALLS: usize = 100_000;
    let telemetry = Arc::new(Telemetry::new(true));
    let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
    let (mut methods, endpoints) = (Methods::default(), endpoints(1_000));
    let sum = || in_groups(&telemetry);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for call in 0..CALLS {
                record(&mut recorder, &mut methods, "/a.B/C", &endpoints[call * 7 % 1_000], 200);
            }
            (recorder, endpoints)
        });
        let mut before = 0;
        while !writer.is_finished() {
            let now = sum();
            assert!(now >= before, "{now} after {before}");
            before = now;
        }
        writer.join().expect("the writer ends")
    });
    // Its writer is gone, and what it counted is not.
    assert_eq!(sum(), CALLS as u64);
}

#[test]
fn methods_beyond_the_limit_are_counted_together() {
    let telemetry = Arc::new(Telemetry::new(false));
    let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
    let (mut methods, endpoints) = (Methods::default(), endpoints(1));
    for round in 0..2 {
        for method in 0..300 {
            record(&mut recorder, &mut methods, &format!("/a.B/{method}"), &endpoints[0], 200);
        }
        for strange in ["", "/", "no-slash", &format!("/{}", "x".repeat(300))] {
            record(&mut recorder, &mut methods, strange, &endpoints[0], 200);
        }
        assert_eq!(telemetry.series(), MOST_METHODS + 1, "round {round}");
    }
    let other = telemetry.calls().into_iter().find(|(key, _)| &*key.method == OTHER_METHOD);
    assert_eq!(other.expect("there are others").1.calls(), 2 * 204);
}

#[test]
fn whatever_a_server_invents_its_series_are_bounded_and_no_call_is_missing() {
    let telemetry = Arc::new(Telemetry::new(true));
    let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
    let (mut methods, endpoints) = (Methods::default(), endpoints(300));
    let mut calls = 0;
    for method in 0..100 {
        for status in 100..600 {
            let endpoint = &endpoints[(method * 7 + usize::from(status)) % 300];
            record(&mut recorder, &mut methods, &format!("/a.B/{method}"), endpoint, status);
            calls += 1;
        }
    }
    assert!(recorder.entries.len() < 2 * MOST_SERIES + 100, "{}", recorder.entries.len());
    assert_eq!(telemetry.calls().iter().map(|(_, counts)| counts.calls()).sum::<u64>(), calls);
}

#[test]
fn whatever_is_invented_is_bounded_over_all_recorders_that_there_ever_are() {
    let telemetry = Arc::new(Telemetry::new(false));
    let endpoints = endpoints(1);
    let mut calls = 0;
    for round in 0..5 {
        // A target ends when its pod has had no connection for a while, and comes back.
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
        let mut methods = recorder.methods();
        for method in 0..MOST_METHODS {
            for status in 100..180 {
                let path = format!("/a.B/{round}-{method}");
                record(&mut recorder, &mut methods, &path, &endpoints[0], status);
                calls += 1;
            }
        }
        drop(recorder);
        telemetry.tidy();
        assert!(telemetry.series() <= (MOST_METHODS + 1) * 80, "round {round}: {}", telemetry.series());
    }
    assert_eq!(telemetry.calls().iter().map(|(_, counts)| counts.calls()).sum::<u64>(), calls);
}

#[test]
fn a_pods_series_are_bounded_over_all_services_that_it_calls() {
    let telemetry = Arc::new(Telemetry::new(false));
    let endpoints = endpoints(90);
    let mut calls = 0;
    let recorders: Vec<_> = (0..8)
        .map(|port| {
            let service_port = ServicePort { port, ..service_port() };
            let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port);
            let mut methods = recorder.methods();
            for endpoint in &endpoints {
                for method in 0..MOST_METHODS {
                    record(&mut recorder, &mut methods, &format!("/a.B/{method}"), endpoint, 200);
                    calls += 1;
                }
            }
            recorder
        })
        .collect();
    let of_pod = Arc::clone(&recorders[0].of_pod);
    assert!(of_pod.load(Relaxed) <= MOST_SERIES_OF_POD + 8 * endpoints.len(), "{of_pod:?}");
    assert_eq!(telemetry.calls().iter().map(|(_, counts)| counts.calls()).sum::<u64>(), calls);
    drop(recorders);
    assert_eq!(of_pod.load(Relaxed), 0);
}

#[test]
fn a_kind_that_counts_as_another_is_found_like_any_other() {
    let telemetry = Arc::new(Telemetry::new(false));
    let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
    let (mut methods, endpoints) = (recorder.methods(), endpoints(1));
    for status in 100..400 {
        record(&mut recorder, &mut methods, "/a.B/C", &endpoints[0], status);
    }
    let entries = recorder.entries.len();
    assert!(entries < 100, "{entries}");
    assert_eq!(recorder.by_key.len(), 300, "each is found by its own key");
}

#[test]
fn an_address_that_is_another_pods_now_counts_for_that_pod() {
    let telemetry = Arc::new(Telemetry::new(true));
    let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
    let mut methods = recorder.methods();
    let before = Endpoint { pod: Some("shop/cart-0".into()), ..endpoints(1).remove(0) };
    record(&mut recorder, &mut methods, "/a.B/C", &before, 200);
    // Its load goes on, as it does when a slice changes in one batch.
    let now = Endpoint {
        pod: Some("shop/other-0".into()),
        load: Arc::clone(&before.load),
        ..endpoints(1).remove(0)
    };
    recorder.keep(std::iter::once(&now));
    record(&mut recorder, &mut methods, "/a.B/C", &now, 200);
    record(&mut recorder, &mut methods, "/a.B/C", &now, 200);
    let of = |pod: &str| -> u64 {
        let calls = telemetry.calls();
        let its = calls
            .iter()
            .filter(|(key, _)| key.endpoint.as_ref().and_then(|at| at.pod.as_deref()) == Some(pod));
        its.map(|(_, counts)| counts.calls()).sum()
    };
    assert_eq!((of("shop/cart-0"), of("shop/other-0")), (1, 2));
    let destinations = telemetry.sizes(Instant::now()).into_iter().map(|(group, _)| group.destination);
    let destinations: std::collections::BTreeSet<_> =
        destinations.flatten().map(|workload| workload.name.to_string()).collect();
    assert_eq!(destinations, ["cart", "other"].map(String::from).into());
}
