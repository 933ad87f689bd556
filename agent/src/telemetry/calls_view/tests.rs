//! Rows, beside what was called.

use super::super::{CallEnd, CallStats, Flag, MethodId, Recorder, Status, Telemetry};
use super::{calls_view, view_at};
use crate::http2::FieldList;
use crate::mesh::{Endpoint, ObjectName, ServicePort};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// Calls of one client to two endpoints of a Service port, three of five at the first; each endpoint's last fails.
fn counted(ports: u16) -> Telemetry {
    let telemetry = Arc::new(Telemetry::new(false));
    let request = FieldList::new();
    let endpoints = [1, 2].map(|host| Endpoint::at(([10, 0, 0, host], 50051).into()));
    for port in 1..=ports {
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port };
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port.clone());
        for (endpoint, status) in [(0, 0), (0, 5), (0, 14), (1, 0), (1, 14)] {
            let end = CallEnd {
                source: None,
                service_port: &service_port,
                original: None,
                endpoint: Some(&endpoints[endpoint]),
                method: "a.B/C",
                request: &request,
                stats: CallStats {
                    status: Status { is_grpc: true, http: 200, grpc: Some(status), flag: Flag::None },
                    began_ns: 1_000,
                    ended_ns: 2_000_000,
                    request_bytes: 10,
                    response_bytes: 20,
                    request_messages: 1,
                    response_messages: 1,
                    attempts: 1,
                    ..CallStats::default()
                },
            };
            recorder.record(&end, MethodId::NONE);
        }
    }
    Arc::into_inner(telemetry).expect("the recorders are gone")
}

fn view(telemetry: &Telemetry, by: &str, most: usize) -> Value {
    serde_json::to_value(calls_view(telemetry, by.parse().unwrap(), most, None, |_, _| true)).unwrap()
}

#[test]
fn what_rows_are_not_told_apart_by_is_summed_up() {
    let telemetry = counted(1);
    for (by, rows) in [("service", 1), ("method", 1), ("endpoint", 2), ("status", 3), ("endpoint,status", 5)]
    {
        let view = view(&telemetry, by, 100);
        let calls = view["calls"].as_array().unwrap();
        assert_eq!((calls.len(), &view["total"], &view["cut"]), (rows, &json!(rows), &json!(false)), "{by}");
        let sum = |field: &str| calls.iter().filter_map(|row| row[field].as_u64()).sum::<u64>();
        assert_eq!((sum("calls"), sum("failures"), sum("response_bytes")), (5, 2, 100), "{by}");
        assert!(view["others"].is_null());
    }
    let row = &view(&telemetry, "service", 1)["calls"][0];
    assert_eq!(row["service"], "shop/cart:1");
    assert!(["pod", "method", "endpoint", "flag", "protocol"].iter().all(|field| row[*field].is_null()));
    let busiest = &view(&telemetry, "endpoint", 1)["calls"][0];
    assert_eq!((&busiest["endpoint"], &busiest["calls"]), (&json!("10.0.0.1:50051"), &json!(3)));
}

#[test]
fn an_answer_is_bounded_and_what_is_cut_off_is_summed_up() {
    let telemetry = counted(50);
    let cut = view(&telemetry, "service,endpoint", 10);
    assert_eq!(cut["calls"].as_array().unwrap().len(), 10);
    assert_eq!((&cut["total"], &cut["cut"]), (&json!(100), &json!(true)));
    assert_eq!((&cut["others"]["calls"], &cut["others"]["failures"]), (&json!(50 * 5 - 30), &json!(90)));
    assert_eq!(cut, view(&telemetry, "service,endpoint", 10), "the same rows each time");
}

#[test]
fn no_row_falls_while_it_goes_on() {
    let telemetry = Arc::new(Telemetry::new(false));
    let endpoint = Endpoint::at("10.0.0.1:50051".parse().unwrap());
    let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 80 };
    let new = || Recorder::new(Arc::clone(&telemetry), None, service_port.clone());
    let call = |recorder: &mut Recorder, method: u8, is_grpc: bool| {
        let (mut methods, path) = (recorder.methods(), format!("/a.B/{method}"));
        let id = methods.intern(path.as_bytes(), method.into());
        let end = CallEnd {
            source: None,
            service_port: &service_port,
            original: None,
            endpoint: Some(&endpoint),
            method: methods.name(id),
            request: &FieldList::new(),
            stats: CallStats {
                status: Status { is_grpc, http: 200, grpc: is_grpc.then_some(0), flag: Flag::None },
                ended_ns: 1,
                attempts: 1,
                ..CallStats::default()
            },
        };
        recorder.record(&end, id);
    };
    // What was called once, and what goes on, by others.
    let mut once = new();
    (0..100).for_each(|_| call(&mut once, 1, true));
    (0..100).for_each(|_| call(&mut once, 2, false));
    drop(once);
    let mut goes_on = new();
    let start = Instant::now();
    let mut before = FxHashMap::default();
    for minute in (0..900).step_by(5) {
        call(&mut goes_on, 3, true);
        call(&mut goes_on, 4, false);
        for by in ["service", "status", "service,status", "service,endpoint", "pod"] {
            let now = start + std::time::Duration::from_secs(60 * minute);
            let view = view_at(&telemetry, by.parse().unwrap(), 100, None, |_, _| true, now);
            let rows: Vec<u64> = view.calls.iter().map(|row| row.counts.calls).collect();
            let last = before.insert(by, rows.clone()).unwrap_or_default();
            assert!(rows.iter().zip(&last).all(|(now, last)| now > last), "{by}: {rows:?} after {last:?}");
            assert!(last.is_empty() || rows.len() == last.len(), "{by}: {rows:?} after {last:?}");
        }
    }
}
