//! Several pods of a node and the servers of a Service, a call at a time: what one pod's calls meet, and what the others then
//! get. No dice: what a server says is the test's to say.

use super::{MS, destination};
use crate::balance::ejection::{BASE_NS, CONSECUTIVE_FAILURES};
use crate::http2::{Connection, ErrorCode, Event, FieldList, HeadersKind, Limits, Name};
use crate::mesh::{
    Backend, Balancing, Destination, Ejection, Endpoint, ObjectName, Picker, Pod, PodKey, ServicePort,
    Snapshot, Workload,
};
use crate::proxy::{Action, ConnId, Engine, Origin};
use crate::telemetry::Telemetry;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a server does with a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Trailers-only, with this `grpc-status`.
    Status(&'static str),
    /// Its connection breaks.
    Lost,
    /// It takes no connection.
    Refused,
    /// It takes no stream.
    StreamRefused,
}

/// Which pod's call, and which server's: what comes of it.
pub(super) type Script = fn(pod: usize, server: usize) -> Answer;

pub(super) struct Node {
    pub(super) engine: Engine,
    telemetry: Arc<Telemetry>,
    pub(super) now_ns: u64,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) script: Script,
    /// Of the endpoints, so many are near, from this one on.
    pub(super) near: usize,
    near_from: usize,
    version: u64,
    pods: Vec<(ConnId, Connection)>,
    pub(super) servers: BTreeMap<ConnId, (usize, Connection)>,
    refused: Vec<ConnId>,
}

pub(super) fn address(server: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (server / 250) as u8, (server % 250) as u8 + 1], 50051))
}

pub(super) fn origin(pod: usize) -> Origin {
    Origin::Pod(Arc::new(Pod {
        key: PodKey { uid: format!("u-{pod}").into(), netns_cookie: pod as u64 },
        name: ObjectName::new("shop", &format!("client-{pod}")),
        workload: Arc::new(Workload::named("shop", "client", "Deployment")),
        netns: std::fs::File::open("/proc/self/ns/net").expect("there is one").into(),
    }))
}

impl Node {
    pub(super) fn new(pods: usize, servers: usize, balancing: impl Into<Balancing>, script: Script) -> Self {
        Self::seeded(1, pods, servers, balancing, script)
    }

    /// One of several nodes, with dice of its own.
    pub(super) fn seeded(
        seed: u64,
        pods: usize,
        servers: usize,
        balancing: impl Into<Balancing>,
        script: Script,
    ) -> Self {
        let now_ns = 1_000_000 * MS;
        let telemetry = Arc::new(Telemetry::new(true));
        let mut node = Self {
            engine: Engine::new(Limits::default(), seed, now_ns).counting(Some(Arc::clone(&telemetry))),
            telemetry,
            now_ns,
            endpoints: (0..servers).map(|server| Arc::new(Endpoint::at(address(server)))).collect(),
            script,
            near: servers,
            near_from: 0,
            version: 0,
            pods: Vec::new(),
            servers: BTreeMap::new(),
            refused: Vec::new(),
        };
        node.publish(balancing.into());
        for pod in 0..pods {
            let joined = node.join(pod);
            node.pods.push(joined);
        }
        node
    }

    /// Of the endpoints, so many from this one on are near, once that is published.
    pub(super) fn keep_near(&mut self, from: usize, count: usize) {
        (self.near_from, self.near) = (from, count);
    }

    fn join(&mut self, pod: usize) -> (ConnId, Connection) {
        let conn = self.engine.accepted(origin(pod), destination()).expect("it is known");
        // It speaks at once, as an HTTP/2 client does.
        let mut client = Connection::client(&Limits::default());
        feed(&mut self.engine, conn, &take(&mut client));
        (conn, client)
    }

    /// The pod has a connection again, after its last one has ended.
    pub(super) fn join_again(&mut self, pod: usize) {
        self.pods[pod] = self.join(pod);
    }

    pub(super) fn leave(&mut self, pod: usize) {
        self.engine.eof(self.pods[pod].0);
        self.settle(pod);
    }

    pub(super) fn publish(&mut self, balancing: Balancing) {
        self.version += 1;
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
        let mut backend =
            Backend::new(service_port, self.endpoints[self.near_from..][..self.near].into(), balancing);
        if self.near < self.endpoints.len() {
            backend = backend.with_wider(self.endpoints.clone().into());
        }
        let original = SocketAddr::from(([10, 96, 0, 1], 50051));
        let mut snapshot = Snapshot { version: self.version, ..Snapshot::default() };
        snapshot.destinations.insert(destination(), Destination { original, backend: Arc::new(backend) });
        self.engine.publish(Arc::new(snapshot));
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_ns += 1_000 * MS;
            self.engine.tick(self.now_ns);
            self.settle(usize::MAX);
        }
    }

    /// A call of the pod, from its begin to its end: its `grpc-status`, and the servers that had it.
    pub(super) fn call(&mut self, pod: usize) -> (String, Vec<usize>) {
        self.now_ns += MS;
        self.engine.tick(self.now_ns);
        let mut fields = FieldList::new();
        for (name, value) in
            [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "cart")]
        {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields.push(b"content-type", b"application/grpc");
        self.pods[pod].1.open(&fields, true, 0).expect("there is room");
        let (mut status, mut servers) = (None, Vec::new());
        for _ in 0..20 {
            let (conn, client) = &mut self.pods[pod];
            let conn = *conn;
            let output = take(client);
            feed(&mut self.engine, conn, &output);
            self.settle(pod);
            self.serve(pod, &mut servers);
            let output = self.engine.output(conn).to_vec();
            self.engine.sent(conn, output.len());
            read(&mut self.pods[pod].1, &output, |_, event, fields| {
                if let Event::Headers { end_stream: true, .. } = event {
                    let value = fields.find(Name::GrpcStatus).expect("an answer has a status");
                    status = Some(String::from_utf8_lossy(value).into_owned());
                }
            });
            if let Some(status) = status {
                self.settle(pod);
                return (status, servers);
            }
        }
        panic!("the call does not end");
    }

    /// How many of so many calls of the pod each server had, and how many failed.
    pub(super) fn calls(&mut self, pod: usize, calls: usize) -> (Vec<usize>, usize) {
        let (mut shares, mut failed) = (vec![0; self.endpoints.len()], 0);
        for _ in 0..calls {
            let (status, servers) = self.call(pod);
            failed += usize::from(status != "0");
            servers.into_iter().for_each(|server| shares[server] += 1);
        }
        (shares, failed)
    }

    pub(super) fn settle(&mut self, pod: usize) {
        loop {
            self.engine.settle(&mut Vec::new());
            let mut actions = Vec::new();
            self.engine.take_actions(&mut actions);
            if actions.is_empty() && self.refused.is_empty() {
                return;
            }
            for conn in std::mem::take(&mut self.refused) {
                self.engine.connect_failed(conn);
            }
            for action in actions {
                match action {
                    Action::Connect { conn, address: to, .. } => {
                        let server = (0..self.endpoints.len()).find(|server| address(*server) == to);
                        let server = server.expect("an endpoint's address");
                        if (self.script)(pod, server) == Answer::Refused {
                            self.refused.push(conn);
                        } else {
                            self.engine.connected(conn);
                            self.servers.insert(conn, (server, Connection::server(&Limits::default())));
                        }
                    }
                    Action::Close { conn, .. } => {
                        self.servers.remove(&conn);
                        self.engine.closed(conn);
                    }
                    Action::ShutdownWrite { .. } | Action::Resume { .. } => {}
                }
            }
        }
    }

    /// Every server reads what there is for it, and answers.
    fn serve(&mut self, pod: usize, served: &mut Vec<usize>) {
        for conn in self.servers.keys().copied().collect::<Vec<_>>() {
            let output = self.engine.output(conn).to_vec();
            self.engine.sent(conn, output.len());
            let (server, http2) = self.servers.get_mut(&conn).expect("it is there");
            let mut answer = None;
            read(http2, &output, |http2, event, _| {
                if let Event::Headers { stream, kind: HeadersKind::Request, .. } = event {
                    let said = (self.script)(pod, *server);
                    answer = Some(said);
                    if said == Answer::StreamRefused {
                        http2.reset(stream, ErrorCode::RefusedStream);
                        http2.release(stream);
                    }
                    if let Answer::Status(status) = said {
                        let mut fields = FieldList::new();
                        fields.push(b":status", b"200");
                        fields.push(b"content-type", b"application/grpc");
                        fields.push(b"grpc-status", status.as_bytes());
                        http2.send_headers(stream, &fields, true);
                        http2.release(stream);
                    }
                }
            });
            if answer.is_some() {
                served.push(*server);
            }
            let said = take(http2);
            if matches!(answer, Some(Answer::Lost | Answer::Refused)) {
                self.servers.remove(&conn);
                self.engine.failed(conn);
            } else {
                feed(&mut self.engine, conn, &said);
            }
        }
        self.settle(pod);
    }
}

fn take(connection: &mut Connection) -> Vec<u8> {
    let bytes = connection.output().to_vec();
    connection.sent(bytes.len());
    bytes
}

fn feed(engine: &mut Engine, conn: ConnId, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let mut buffer = vec![0; 20_000 + bytes.len()];
    let held = engine.restore(conn, &mut buffer);
    buffer[held..held + bytes.len()].copy_from_slice(bytes);
    engine.receive(conn, &buffer[..held + bytes.len()]);
}

fn read(
    connection: &mut Connection,
    bytes: &[u8],
    mut event: impl FnMut(&mut Connection, Event<'static>, &FieldList),
) {
    let mut fields = FieldList::new();
    let mut buffer = vec![0; 20_000 + bytes.len()];
    let held = connection.restore(&mut buffer);
    buffer[held..held + bytes.len()].copy_from_slice(bytes);
    let mut input = &buffer[..held + bytes.len()];
    loop {
        // Bodies play no part here.
        let seen =
            match connection.receive(&mut input, &mut fields).expect("the engine keeps to the protocol") {
                None => break connection.keep(input),
                Some(Event::Headers { stream, token, kind, end_stream }) => {
                    Event::Headers { stream, token, kind, end_stream }
                }
                Some(_) => continue,
            };
        event(connection, seen, &fields);
    }
}

pub(super) const FIVE: usize = CONSECUTIVE_FAILURES as usize;

thread_local! {
    /// For scripts: which servers do not serve, a bit each; and how often something has happened.
    pub(super) static FAILING: Cell<u128> = const { Cell::new(0) };
    pub(super) static TIMES: Cell<u32> = const { Cell::new(0) };
}

pub(super) fn is_failing(server: usize) -> bool {
    FAILING.get() >> server & 1 == 1
}

pub(super) fn set_failing(servers: impl Iterator<Item = usize>) {
    FAILING.set(servers.fold(0, |bits, server| bits | 1 << server));
}

pub(super) fn good(_: usize, _: usize) -> Answer {
    Answer::Status("0")
}

#[test]
fn a_server_that_fails_all_its_calls_loses_them_to_the_others_and_gets_them_back() {
    let bad: [Script; 3] = [
        |_, server| Answer::Status(if server == 1 { "14" } else { "0" }),
        |_, server| if server == 1 { Answer::Lost } else { Answer::Status("0") },
        |_, server| if server == 1 { Answer::Refused } else { Answer::Status("0") },
    ];
    for (number, script) in bad.into_iter().enumerate() {
        let mut node = Node::new(3, 4, Picker::RoundRobin, script);
        // Two pods meet it. A refused connection costs no call, and is not tried each time.
        for pod in 0..2 {
            let (shares, failed) = node.calls(pod, 400);
            if number == 2 {
                assert_eq!((shares[1], failed), (0, 0));
            } else {
                assert_eq!((shares[1], failed), (FIVE, FIVE), "script {number}, pod {pod}");
            }
        }
        if number == 2 {
            continue;
        }
        assert_eq!(node.endpoints[1].load.left_out.sources(node.now_ns), (2, true));
        // A third one, which never did, is spared it.
        node.wait(1);
        let (shares, failed) = node.calls(2, 300);
        assert_eq!((shares, failed), (vec![100, 0, 100, 100], 0), "script {number}");
        // It is well again, and after its time has its share again.
        node.script = |_, _| Answer::Status("0");
        node.wait(BASE_NS / (1_000 * MS));
        for pod in 0..3 {
            assert_eq!(node.calls(pod, 400), (vec![100; 4], 0), "script {number}, pod {pod}");
        }
        assert_eq!(node.engine.counters().ejections, 2);
        assert_eq!(node.endpoints[1].load.left_out.times(), 2);
    }
}

#[test]
fn what_is_counted_by_pod_and_endpoint_is_what_the_servers_had() {
    let script: Script = |pod, server| Answer::Status(if pod == server { "7" } else { "0" });
    let mut node = Node::new(3, 3, Picker::RoundRobin, script);
    for pod in 0..3 {
        let (shares, _) = node.calls(pod, 30 * (pod + 1));
        for (server, share) in shares.into_iter().enumerate() {
            let status = if pod == server { 7 } else { 0 };
            let name = format!("client-{pod}");
            let found: Vec<_> = (node.telemetry.calls().into_iter())
                .filter(|(key, _)| {
                    let caller = key.link.caller.as_ref().expect("a pod");
                    *caller.name.name == *name
                        && key.endpoint.as_ref().is_some_and(|endpoint| endpoint.address == address(server))
                })
                .map(|(key, counts)| (key.method.to_string(), key.status.grpc, counts.calls()))
                .collect();
            assert_eq!(found, [("a".to_owned(), Some(status), share as u64)], "{name} at {server}");
        }
    }
}

#[test]
fn a_pod_that_provokes_errors_everywhere_takes_no_endpoint_from_the_others() {
    let mut node =
        Node::new(3, 4, Picker::RoundRobin, |pod, _| Answer::Status(if pod == 0 { "13" } else { "0" }));
    for _ in 0..5 {
        let (_, failed) = node.calls(0, 100);
        assert_eq!(failed, 100, "its calls go on to be answered");
        node.wait(1);
        for pod in [1, 2] {
            assert_eq!(node.calls(pod, 100), (vec![25; 4], 0), "pod {pod}");
        }
    }
    let out =
        node.endpoints.iter().filter(|endpoint| endpoint.load.left_out.sources(node.now_ns) == (1, false));
    assert_eq!(out.count(), 2, "half of them is left out by that pod, and not more");
    assert!(node.endpoints.iter().all(|endpoint| endpoint.load.active.load(Relaxed) == 0));
}

#[test]
fn when_all_servers_fail_calls_still_reach_them() {
    let mut node = Node::new(2, 4, Picker::Ewma, |_, _| Answer::Status("14"));
    for pod in [0, 1, 0, 1] {
        let (shares, failed) = node.calls(pod, 100);
        assert_eq!((shares.iter().sum::<usize>(), failed), (100, 100));
        node.wait(1);
    }
}

#[test]
fn a_callers_own_quota_ejects_nobody() {
    let mut node =
        Node::new(1, 3, Picker::RoundRobin, |_, server| Answer::Status(if server == 0 { "8" } else { "0" }));
    assert_eq!(node.calls(0, 300), (vec![100; 3], 100));
    assert_eq!(node.engine.counters().ejections, 0);
}

#[test]
fn an_outlier_in_success_rate_gets_no_calls_where_the_service_asks_for_that() {
    for (ejection, of_it) in [(Ejection::SuccessRate, 0), (Ejection::ConsecutiveFailures, 100)] {
        let balancing = Balancing { ejection, ..Picker::RoundRobin.into() };
        // One of five calls to it fails, and never two in a row.
        TIMES.set(0);
        let mut node = Node::new(1, 6, balancing, |_, server| {
            let fails = server == 3 && TIMES.replace(TIMES.get() + 1).is_multiple_of(5);
            Answer::Status(if fails { "14" } else { "0" })
        });
        node.wait(1);
        let (shares, failed) = node.calls(0, 720);
        assert_eq!((shares, failed), (vec![120; 6], 24));
        node.wait(11);
        let (shares, _) = node.calls(0, 600);
        assert_eq!(shares[3], of_it, "{ejection:?}");
        assert_eq!(node.engine.counters().ejections, u64::from(of_it == 0));
    }
}
