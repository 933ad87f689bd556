//! The engine alone, a turn at a time: what depends on what comes together, and on what does not come.

use super::super::shared_use::Ledger;
use super::super::{Action, ConnId, Engine, Origin};
use super::fixed;
use crate::balance::latency::FAILURE_FLOOR_NS;
use crate::http2::{
    Connection, ErrorCode, Event, FieldList, HeadersKind, LastStream, Limits, Name, StreamKey,
};
use crate::mesh::Protection;
use crate::mesh::{
    Backend, Balancing, Destination, DestinationId, Endpoint, ObjectName, Picker, ServicePort, Snapshot,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The node has been up for a while.
pub(super) const START_NS: u64 = 1_000_000_000_000;

pub(super) struct Turns {
    pub(super) engine: Engine,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    version: u64,
    pub(super) client: Connection,
    pub(super) client_conn: ConnId,
    /// Connections that the engine wants and nobody has opened.
    pub(super) dials: Vec<(ConnId, SocketAddr)>,
    pub(super) resumed: Vec<ConnId>,
    /// Connections that are closed, and whether with a reset.
    pub(super) closed: Vec<(ConnId, bool)>,
    /// Connections whose writing half is shut down.
    pub(super) shut: Vec<ConnId>,
}

pub(super) fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 50051))
}

impl Turns {
    pub(super) fn new(hosts: &[u8]) -> Self {
        Self::protected(hosts, Protection::default())
    }

    pub(super) fn protected(hosts: &[u8], protection: Protection) -> Self {
        Self::beside(hosts, protection, Ledger::default())
    }

    /// A worker that shares the ledger with others.
    pub(super) fn beside(hosts: &[u8], protection: Protection, ledger: Ledger) -> Self {
        let mut engine = Engine::new(Limits::default(), 1, START_NS).protected(protection, ledger);
        let mut version = 0;
        let endpoints = publish(&mut engine, &mut version, hosts);
        let client_conn = engine.accepted(Origin::Agent, fixed()).expect("the destination is known");
        let client = Connection::client(&Limits::default());
        let (dials, resumed, closed, shut) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut turns =
            Self { engine, endpoints, version, client, client_conn, dials, resumed, closed, shut };
        turns.client_speaks();
        turns
    }

    pub(super) fn publish(&mut self, hosts: &[u8]) {
        self.endpoints = publish(&mut self.engine, &mut self.version, hosts);
        self.settle();
    }

    pub(super) fn publish_as(&mut self, hosts: &[u8], balancing: Balancing) {
        self.endpoints = publish_all(&mut self.engine, [(fixed(), "cart", hosts, balancing)]);
        self.version = self.engine.snapshot.version;
        self.settle();
    }

    /// The first of these is near, the others farther away.
    pub(super) fn publish_one_near(&mut self, hosts: &[u8]) {
        let endpoints: Vec<_> = hosts.iter().map(|host| Arc::new(Endpoint::at(address(*host)))).collect();
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
        let near = endpoints[..1].into();
        let backend = Backend::new(service_port, near, Picker::RoundRobin).with_wider(endpoints.into());
        let mut snapshot = Snapshot { version: self.engine.snapshot.version + 1, ..Snapshot::default() };
        let destination = Destination { original: address(100), backend: Arc::new(backend) };
        snapshot.destinations.insert(fixed(), destination);
        self.engine.publish(Arc::new(snapshot));
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        loop {
            self.engine.settle(&mut Vec::new());
            let mut actions = Vec::new();
            self.engine.take_actions(&mut actions);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Connect { conn, address, .. } => self.dials.push((conn, address)),
                    Action::Close { conn, reset } => {
                        self.closed.push((conn, reset));
                        self.dials.retain(|(dialled, _)| *dialled != conn);
                        self.engine.closed(conn);
                    }
                    Action::Resume { conn } => self.resumed.push(conn),
                    Action::ShutdownWrite { conn } => self.shut.push(conn),
                }
            }
        }
    }

    pub(super) fn feed(&mut self, conn: ConnId, bytes: &[u8]) {
        for piece in bytes.chunks(60_000) {
            let mut buffer = vec![0; 20_000 + piece.len()];
            let held = self.engine.restore(conn, &mut buffer);
            buffer[held..held + piece.len()].copy_from_slice(piece);
            self.engine.receive(conn, &buffer[..held + piece.len()]);
        }
    }

    /// What the client has to say reaches the engine.
    pub(super) fn client_speaks(&mut self) {
        let bytes = take(&mut self.client);
        self.feed(self.client_conn, &bytes);
        self.settle();
    }

    pub(super) fn call(&mut self, path: &str) -> StreamKey {
        let fields = list(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            ("content-type", "application/grpc"),
        ]);
        self.client.open(&fields, true, 0).expect("there is room")
    }

    /// Opens the connection that the engine wants, and greets it as a server does.
    pub(super) fn serve(&mut self) -> (ConnId, Connection) {
        let (conn, _) = self.dials.pop().expect("a connection is wanted");
        self.engine.connected(conn);
        let mut server = Connection::server(&Limits::default());
        self.feed(conn, &take(&mut server));
        self.settle();
        (conn, server)
    }

    /// What the engine has for the connection, all of it at the socket.
    pub(super) fn output(&mut self, conn: ConnId) -> Vec<u8> {
        let bytes = self.engine.output(conn).to_vec();
        self.engine.sent(conn, bytes.len());
        self.settle();
        bytes
    }

    /// `grpc-status` of the answers that the client gets now.
    pub(super) fn answers(&mut self) -> Vec<String> {
        let bytes = self.output(self.client_conn);
        let mut answers = Vec::new();
        read(&mut self.client, &bytes, |event, fields| {
            if matches!(event, Event::Headers { kind: HeadersKind::Response | HeadersKind::Trailers, .. })
                && let Some(status) = fields.find(Name::GrpcStatus)
            {
                answers.push(String::from_utf8_lossy(status).into_owned());
            }
        });
        answers
    }
}

pub(super) fn publish(engine: &mut Engine, version: &mut u64, hosts: &[u8]) -> Vec<Arc<Endpoint>> {
    let endpoints = publish_all(engine, [(fixed(), "cart", hosts, Picker::RoundRobin.into())]);
    *version = engine.snapshot.version;
    endpoints
}

/// Publishes these Services, and returns the endpoints of the first.
pub(super) fn publish_all<const N: usize>(
    engine: &mut Engine,
    services: [(DestinationId, &str, &[u8], Balancing); N],
) -> Vec<Arc<Endpoint>> {
    let mut snapshot = Snapshot { version: engine.snapshot.version + 1, ..Snapshot::default() };
    let mut of_first = Vec::new();
    for (id, name, hosts, balancing) in services.into_iter().rev() {
        of_first = hosts.iter().map(|host| Arc::new(Endpoint::at(address(*host)))).collect();
        let service_port = ServicePort { service: ObjectName::new("shop", name), port: 50051 };
        let backend = Arc::new(Backend::new(service_port, of_first.clone().into(), balancing));
        snapshot.destinations.insert(id, Destination { original: address(100), backend });
    }
    engine.publish(Arc::new(snapshot));
    of_first
}

pub(super) fn list(fields: &[(&str, &str)]) -> FieldList {
    let mut list = FieldList::new();
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    list
}

pub(super) fn take(connection: &mut Connection) -> Vec<u8> {
    let bytes = connection.output().to_vec();
    connection.sent(bytes.len());
    bytes
}

pub(super) fn read(connection: &mut Connection, bytes: &[u8], mut event: impl FnMut(Event<'_>, &FieldList)) {
    let mut fields = FieldList::new();
    let mut buffer = vec![0; 20_000 + bytes.len()];
    let held = connection.restore(&mut buffer);
    buffer[held..held + bytes.len()].copy_from_slice(bytes);
    let mut input = &buffer[..held + bytes.len()];
    while let Some(seen) =
        connection.receive(&mut input, &mut fields).expect("the engine keeps to the protocol")
    {
        event(seen, &fields);
    }
    connection.keep(input);
}

#[test]
fn a_refused_connection_weighs_no_more_than_a_failure() {
    let mut turns = Turns::new(&[1]);
    turns.call("/a");
    turns.client_speaks();
    let (conn, _) = turns.dials.pop().expect("a connection is wanted");
    turns.engine.tick(START_NS + 1_000_000);
    turns.engine.connect_failed(conn);
    turns.settle();
    assert_eq!(turns.answers(), ["14"]);
    assert_eq!(turns.endpoints[0].load.latency_ewma_ns.load(Relaxed), FAILURE_FLOOR_NS);
}

#[test]
fn a_server_that_greets_and_leaves_is_given_up_after_the_attempts_that_a_refused_connection_gets() {
    for hosts in [&[1][..], &[1, 2, 3, 4]] {
        for says_goodbye in [true, false] {
            let mut turns = Turns::new(hosts);
            turns.call("/a");
            turns.client_speaks();
            let mut dials = 0;
            while let Some((conn, _)) = turns.dials.pop() {
                dials += 1;
                assert!(dials <= 3, "dials again and again");
                turns.engine.connected(conn);
                let mut server = Connection::server(&Limits::default());
                if says_goodbye {
                    server.go_away(ErrorCode::NoError, LastStream::Seen);
                }
                turns.feed(conn, &take(&mut server));
                turns.engine.eof(conn);
                turns.settle();
            }
            assert_eq!(dials, hosts.len().min(3));
            assert_eq!(turns.answers(), ["14"]);
            assert_eq!(turns.engine.counters().calls_open, 0);
        }
    }
}

#[test]
fn a_client_that_was_not_read_is_read_again_after_one_write_of_everything() {
    const CALLS: usize = 900;
    let mut turns = Turns::new(&[1]);
    for _ in 0..CALLS {
        turns.call("/a");
    }
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    let mut streams = Vec::new();
    let requests = turns.output(conn);
    read(&mut server, &requests, |event, _| {
        if let Event::Headers { stream, kind: HeadersKind::Request, .. } = event {
            streams.push(stream);
        }
    });
    assert_eq!(streams.len(), CALLS);
    for (index, stream) in streams.into_iter().enumerate() {
        let text = format!("{index:04}").repeat(500);
        server.send_headers(stream, &list(&[(":status", "200"), ("grpc-status", "0"), ("x", &text)]), true);
    }
    turns.feed(conn, &take(&mut server));
    turns.settle();
    assert!(!turns.engine.reads(turns.client_conn), "too much waits for it");
    assert_eq!(turns.answers().len(), CALLS);
    assert!(turns.engine.reads(turns.client_conn));
    assert_eq!(turns.resumed, [turns.client_conn]);
}

#[test]
fn calls_that_are_cancelled_at_once_fill_no_memory_while_the_server_does_not_read() {
    let mut turns = Turns::new(&[1]);
    turns.call("/first");
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    for index in 0..200 {
        let streams: Vec<_> = (0..100).map(|call| turns.call(&format!("/{index}/{call:0200}"))).collect();
        turns.client_speaks();
        for stream in streams {
            turns.client.reset_at_once_for_test(stream);
            turns.client.release(stream);
        }
        // As many as a client may cancel in a second.
        turns.engine.tick(START_NS + index * 12_000_000);
        turns.client_speaks();
        turns.output(turns.client_conn);
    }
    turns.client_speaks();
    let held = turns.engine.output(conn).len();
    assert!(held < 1_200_000, "{held} bytes wait for a server that does not read");
    // When it reads again, it serves again.
    turns.call("/last");
    turns.client_speaks();
    let mut goes_on = false;
    for _ in 0..200 {
        let bytes = turns.output(conn);
        read(&mut server, &bytes, |_, fields| goes_on |= fields.find(Name::Path) == Some(b"/last"));
        turns.feed(conn, &take(&mut server));
        turns.settle();
    }
    assert!(goes_on, "the call that waited has gone on");
}

#[test]
fn a_call_that_is_cancelled_in_the_breath_that_began_it_goes_to_no_server() {
    let mut turns = Turns::new(&[1]);
    let stream = turns.call("/cancelled");
    turns.client.release(stream);
    turns.call("/kept");
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    let mut paths = Vec::new();
    let bytes = turns.output(conn);
    read(&mut server, &bytes, |event, fields| {
        if matches!(event, Event::Headers { kind: HeadersKind::Request, .. }) {
            paths.push(String::from_utf8_lossy(fields.find(Name::Path).unwrap_or_default()).into_owned());
        }
    });
    assert_eq!(paths, ["/kept"]);
    assert_eq!((turns.engine.counters().cancelled, turns.engine.counters().calls_open), (1, 1));
}

#[test]
fn a_call_that_outlives_the_endpoints_it_tried_goes_to_those_that_come() {
    let mut turns = Turns::new(&[1, 2]);
    turns.call("/a");
    turns.call("/b");
    turns.client_speaks();
    assert_eq!(turns.dials.len(), 2);
    let second = turns.dials.iter().position(|(_, to)| *to == address(2)).expect("round robin");
    let (conn, _) = turns.dials.remove(second);
    turns.engine.connect_failed(conn);
    turns.settle();
    turns.publish(&[]);
    assert_eq!(turns.dials, []);
    turns.publish(&[3]);
    let (conn, mut server) = turns.serve();
    let mut requests = 0;
    let bytes = turns.output(conn);
    read(&mut server, &bytes, |event, _| {
        requests += usize::from(matches!(event, Event::Headers { kind: HeadersKind::Request, .. }));
    });
    assert_eq!(requests, 2);
}

#[test]
fn what_a_tunnels_server_said_before_its_reset_reaches_the_client_before_the_reset() {
    let mut turns = Turns::new(&[1]);
    let client = turns.engine.accepted(Origin::Agent, fixed()).expect("the destination is known");
    turns.feed(client, b"POST / HTTP/1.1\r\n\r\n");
    turns.settle();
    let (server, _) = turns.dials.pop().expect("a connection is wanted");
    turns.engine.connected(server);
    turns.settle();
    turns.feed(server, b"HTTP/1.1 413 Content Too Large\r\n\r\n");
    turns.engine.failed(server);
    turns.feed(client, b"more of the body");
    turns.settle();
    assert_eq!((&turns.output(server)[..], &turns.closed[..]), (&b""[..], &[][..]));
    assert_eq!(turns.output(client), b"HTTP/1.1 413 Content Too Large\r\n\r\n");
    assert_eq!(turns.closed, [(client, true), (server, true)]);
    assert_eq!(turns.engine.counters().tunnels_open, 0);
}
