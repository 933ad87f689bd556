//! Calls that are sent again by the Service's policy (gRFC A6), on the engine alone.

use super::super::ConnId;
use super::rules::{SECOND_NS, advance, request, server_speaks};
use super::turns::{START_NS, Turns, address, list, read};
use crate::http2::{Connection, ErrorCode, Event, HeadersKind, Name, StreamKey};
use crate::mesh::{Balancing, Picker};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

const MS: u64 = 1_000_000;
const POLICY: &str = "attempts=3 on=unavailable backoff=100ms..1s budget=20%";

/// An attempt that is at a server.
#[derive(Debug)]
struct Attempt {
    conn: ConnId,
    stream: StreamKey,
    to: SocketAddr,
    /// `grpc-previous-rpc-attempts`.
    previous: Option<String>,
}

/// The engine and its servers.
struct Scene {
    turns: Turns,
    servers: BTreeMap<ConnId, (SocketAddr, Connection)>,
    /// What each server has got of requests' bodies.
    bodies: BTreeMap<ConnId, Vec<u8>>,
    now_ns: u64,
}

impl Scene {
    fn new(hosts: &[u8], policy: &str) -> Self {
        let mut turns = Turns::new(hosts);
        let retry = Some(policy.parse().expect("a policy"));
        turns.publish_as(hosts, Balancing { retry, ..Picker::RoundRobin.into() });
        Self { turns, servers: BTreeMap::new(), bodies: BTreeMap::new(), now_ns: START_NS }
    }

    fn call(&mut self) {
        self.turns.call("/a");
        self.turns.client_speaks();
    }

    fn wait(&mut self, ms: u64) {
        self.now_ns += ms * MS;
        advance(&mut self.turns, self.now_ns);
    }

    /// The attempts that have come to servers since the last look.
    fn attempts(&mut self) -> Vec<Attempt> {
        while let Some(&(_, to)) = self.turns.dials.last() {
            let (conn, server) = self.turns.serve();
            self.servers.insert(conn, (to, server));
        }
        let mut attempts = Vec::new();
        for (&conn, (to, server)) in &mut self.servers {
            let bytes = self.turns.output(conn);
            let bodies = &mut self.bodies;
            read(server, &bytes, |event, fields| match event {
                Event::Headers { stream, kind: HeadersKind::Request, .. } => {
                    let previous = fields.find(Name::GrpcPreviousRpcAttempts);
                    let previous = previous.map(|value| String::from_utf8_lossy(value).into_owned());
                    attempts.push(Attempt { conn, stream, to: *to, previous });
                }
                Event::Data { payload, .. } => {
                    bodies.entry(conn).or_default().extend_from_slice(payload);
                }
                _ => {}
            });
        }
        attempts
    }

    /// The one attempt that has come.
    fn attempt(&mut self) -> Attempt {
        let mut attempts = self.attempts();
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        attempts.remove(0)
    }

    fn answer(&mut self, attempt: &Attempt, status: &str, more: &[(&str, &str)]) {
        let mut fields =
            list(&[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", status)]);
        more.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        let (_, server) = self.servers.get_mut(&attempt.conn).expect("it is there");
        server.send_headers(attempt.stream, &fields, true);
        server_speaks(&mut self.turns, attempt.conn, server);
    }

    fn told(&mut self) -> Vec<String> {
        self.turns.answers()
    }

    fn retries(&self) -> (u64, u64) {
        let counters = self.turns.engine.counters();
        (counters.policy_retries, counters.retries_over_budget)
    }
}

#[test]
fn a_call_that_fails_as_the_policy_says_is_tried_on_other_endpoints_and_its_client_gets_the_last_answer() {
    for last in ["0", "14"] {
        let mut scene = Scene::new(&[1, 2, 3], POLICY);
        scene.call();
        let mut met = Vec::new();
        for (number, waits_ms) in [(0, 130), (1, 260), (2, 0)] {
            let attempt = scene.attempt();
            assert_eq!(attempt.previous, (number > 0).then(|| number.to_string()));
            assert!(!met.contains(&attempt.to), "each goes to another one");
            met.push(attempt.to);
            scene.answer(&attempt, if number < 2 { "14" } else { last }, &[]);
            if number < 2 {
                assert_eq!(scene.told(), [] as [&str; 0]);
                // 100 ms, then 200, each less a fifth at the earliest.
                scene.wait(waits_ms * 6 / 10);
                assert_eq!(scene.attempts().len(), 0, "it waits");
                scene.wait(waits_ms * 4 / 10);
            }
        }
        assert_eq!(scene.told(), [last]);
        let failed = |host: u8| {
            let endpoint = scene.turns.endpoints.iter().find(|endpoint| endpoint.address == address(host));
            endpoint.expect("one of them").load.failures.load(Relaxed)
        };
        assert_eq!(
            (1..=3).map(failed).sum::<u64>(),
            if last == "0" { 2 } else { 3 },
            "each attempt counts for its endpoint"
        );
        let counters = scene.turns.engine.counters();
        assert_eq!((counters.calls, counters.answered, counters.calls_open), (1, 1, 0), "and the call once");
        assert_eq!(counters.server_failures, u64::from(last != "0"));
        assert_eq!(scene.retries(), (2, 0));
        assert!(scene.turns.endpoints.iter().all(|endpoint| endpoint.load.active() == 0));
    }
}

#[test]
fn the_only_endpoint_is_tried_again() {
    let mut scene = Scene::new(&[1], POLICY);
    scene.call();
    let attempt = scene.attempt();
    scene.answer(&attempt, "14", &[]);
    scene.wait(125);
    let attempt = scene.attempt();
    scene.answer(&attempt, "0", &[]);
    assert_eq!(scene.told(), ["0"]);
}

#[test]
fn what_the_policy_does_not_say_or_cannot_be_sent_again_is_answered_as_it_is() {
    // Another status, and one that says nothing.
    for status in ["13", "8", "0", "x", "270"] {
        let mut scene = Scene::new(&[1, 2], POLICY);
        scene.call();
        let attempt = scene.attempt();
        scene.answer(&attempt, status, &[]);
        assert_eq!((scene.told(), scene.retries()), (vec![status.to_owned()], (0, 0)));
    }
    // No gRPC call.
    let mut scene = Scene::new(&[1, 2], POLICY);
    scene.turns.client.open(&request("application/json", 0), true, 0).expect("there is room");
    scene.turns.client_speaks();
    let attempt = scene.attempt();
    scene.answer(&attempt, "14", &[]);
    assert_eq!((scene.told().len(), scene.retries()), (1, (0, 0)));
    // More of a body than is held.
    let mut scene = Scene::new(&[1, 2], POLICY);
    let stream = scene.turns.client.open(&request("application/grpc", 0), false, 0).expect("there is room");
    scene.turns.client_speaks();
    let attempt = scene.attempt();
    for _ in 0..10 {
        scene.turns.client.send_data(stream, &[7; 10_000], false);
        scene.turns.client_speaks();
        scene.attempts();
        scene.told();
        let (_, server) = scene.servers.get_mut(&attempt.conn).expect("it is there");
        server.grant(attempt.stream, 10_000);
        server_speaks(&mut scene.turns, attempt.conn, server);
    }
    scene.answer(&attempt, "14", &[]);
    assert_eq!((scene.told(), scene.retries()), (vec!["14".to_owned()], (0, 0)));
}

#[test]
fn a_server_says_when_or_that_never() {
    for never in ["-1", "soon", "", "1.5", "99999999999"] {
        let mut scene = Scene::new(&[1, 2], POLICY);
        scene.call();
        let attempt = scene.attempt();
        scene.answer(&attempt, "14", &[("grpc-retry-pushback-ms", never)]);
        assert_eq!((scene.told(), scene.retries()), (vec!["14".to_owned()], (0, 0)), "{never}");
    }
    let mut scene = Scene::new(&[1, 2], POLICY);
    scene.call();
    let attempt = scene.attempt();
    scene.answer(&attempt, "14", &[("grpc-retry-pushback-ms", "3000")]);
    scene.wait(2_900);
    assert_eq!(scene.attempts().len(), 0);
    scene.wait(110);
    let attempt = scene.attempt();
    // One's own times begin anew behind it.
    scene.answer(&attempt, "14", &[]);
    scene.wait(125);
    scene.attempt();
}

#[test]
fn no_attempt_begins_behind_the_deadline() {
    let mut scene = Scene::new(&[1, 2], POLICY);
    for (timeout, again) in [("70m", false), ("1S", true)] {
        let mut fields = request("application/grpc", 0);
        fields.push(b"grpc-timeout", timeout.as_bytes());
        scene.turns.client.open(&fields, true, 0).expect("there is room");
        scene.turns.client_speaks();
        let attempt = scene.attempt();
        scene.answer(&attempt, "14", &[]);
        assert_eq!(scene.told().is_empty(), again, "{timeout}");
    }
    scene.wait(125);
    scene.attempt();
    scene.wait(SECOND_NS / MS);
    assert_eq!(scene.told(), ["4"], "and it holds for the call, not for an attempt");
}

#[test]
fn retries_are_a_share_of_the_live_calls_and_a_few_at_least() {
    for (calls, share, retried) in [(10, "20%", 3), (10, "60%", 6), (2, "1%", 2)] {
        let policy = format!("on=unavailable budget={share}");
        let mut scene = Scene::new(&[1, 2, 3], &policy);
        (0..calls).for_each(|_| scene.call());
        let attempts = scene.attempts();
        assert_eq!(attempts.len(), calls);
        // The others are live all the time.
        let (first, rest) = attempts.split_at(retried + calls.saturating_sub(retried).min(2));
        first.iter().for_each(|attempt| scene.answer(attempt, "14", &[]));
        let refused = first.len() - retried;
        assert_eq!((scene.told().len(), scene.retries()), (refused, (0, refused as u64)), "{share}");
        scene.wait(125);
        let again = scene.attempts();
        assert_eq!((again.len(), scene.retries()), (retried, (retried as u64, refused as u64)), "{share}");
        again.iter().chain(rest).for_each(|attempt| scene.answer(attempt, "0", &[]));
        assert_eq!(scene.told(), vec!["0"; retried + rest.len()]);
        // All of the budget is free again.
        scene.call();
        let attempt = scene.attempt();
        scene.answer(&attempt, "14", &[]);
        assert_eq!(scene.told().len(), 0);
    }
}

#[test]
fn the_request_goes_again_whole_with_what_came_while_it_waited() {
    let mut scene = Scene::new(&[1, 2], POLICY);
    let mut fields = request("application/grpc", 0);
    // The client is at its second attempt itself.
    fields.push(b"grpc-previous-rpc-attempts", b"1");
    let stream = scene.turns.client.open(&fields, false, 0).expect("there is room");
    scene.turns.client.send_data(stream, &[1; 20_000], false);
    scene.turns.client_speaks();
    let attempt = scene.attempt();
    assert_eq!(attempt.previous.as_deref(), Some("1"));
    assert_eq!(scene.bodies[&attempt.conn].len(), 20_000);
    scene.answer(&attempt, "14", &[]);
    scene.turns.client.send_data(stream, &[2; 10_000], true);
    scene.turns.client_speaks();
    scene.wait(125);
    let attempt = scene.attempt();
    assert_eq!(attempt.previous.as_deref(), Some("2"));
    let body = &scene.bodies[&attempt.conn];
    assert_eq!(body[..], [vec![1; 20_000], vec![2; 10_000]].concat()[..]);
    scene.answer(&attempt, "0", &[]);
    assert_eq!(scene.told(), ["0"]);
}

#[test]
fn a_lost_connection_a_reset_and_a_refused_connection_have_their_status_too() {
    for number in 0..3 {
        let mut scene = Scene::new(&[1], "on=unavailable,internal");
        scene.call();
        if number == 2 {
            let (conn, _) = scene.turns.dials.pop().expect("a connection is wanted");
            scene.turns.engine.connect_failed(conn);
            scene.turns.settle();
        } else {
            let attempt = scene.attempt();
            let (_, server) = scene.servers.get_mut(&attempt.conn).expect("it is there");
            if number == 0 {
                scene.servers.remove(&attempt.conn);
                scene.turns.engine.failed(attempt.conn);
                scene.turns.settle();
            } else {
                server.reset(attempt.stream, ErrorCode::InternalError);
                server_speaks(&mut scene.turns, attempt.conn, server);
            }
        }
        assert_eq!(scene.told(), [] as [&str; 0], "{number}");
        scene.wait(125);
        let attempt = scene.attempt();
        scene.answer(&attempt, "0", &[]);
        assert_eq!((scene.told(), scene.retries()), (vec!["0".to_owned()], (1, 0)), "{number}");
    }
}

#[test]
fn a_client_that_cancels_while_its_call_waits_leaves_nothing() {
    let mut scene = Scene::new(&[1], "on=unavailable budget=1%");
    for _ in 0..4 {
        let stream = scene.turns.call("/a");
        scene.turns.client_speaks();
        let attempt = scene.attempt();
        scene.answer(&attempt, "14", &[]);
        assert_eq!(scene.told(), [] as [&str; 0], "there is room for it");
        scene.turns.client.reset(stream, ErrorCode::Cancel);
        scene.turns.client.release(stream);
        scene.turns.client_speaks();
        scene.wait(200);
        assert_eq!(scene.attempts().len(), 0);
    }
    let counters = scene.turns.engine.counters();
    assert_eq!((counters.cancelled, counters.calls_open), (4, 0));
}
