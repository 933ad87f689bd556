//! What the whole call path costs a unary call, without sockets: a client's connection, the engine, a server's connection, fed
//! from memory. Instructions are counted with
//! `valgrind --tool=callgrind --toggle-collect='*engine_turn*' target/release/deps/calls-… BATCHES`.

use evenkeel::http2::{Connection, Event, FieldList, HeadersKind, Limits};
use evenkeel::mesh::{
    Backend, Destination, DestinationId, Endpoint, ObjectName, Picker, ServicePort, Snapshot,
};
use evenkeel::proxy::{Action, ConnId, Engine, Origin};
use evenkeel::telemetry::Telemetry;
use std::net::SocketAddr;
use std::sync::Arc;

/// Calls in flight together, as on a busy connection.
const BATCH: usize = 16;
const BODY: [u8; 1_024] = [b'x'; 1_024];
/// Between two turns.
const TURN_NS: u64 = 100_000;

struct Bench {
    engine: Engine,
    now_ns: u64,
    actions: Vec<Action>,
    flush: Vec<ConnId>,
    buffer: Vec<u8>,
    fields: FieldList,
}

impl Bench {
    /// What one turn of a worker thread does: read, settle, write.
    #[inline(never)]
    fn engine_turn(&mut self, conn: ConnId, input: &mut Connection, to: ConnId, output: &mut Vec<u8>) {
        self.now_ns += TURN_NS;
        self.engine.set_time(self.now_ns);
        let held = self.engine.restore(conn, &mut self.buffer);
        let bytes = input.output();
        self.buffer[held..held + bytes.len()].copy_from_slice(bytes);
        let length = held + bytes.len();
        input.sent(length - held);
        self.engine.receive(conn, &self.buffer[..length]);
        self.engine.expire();
        self.engine.settle(&mut self.flush);
        self.flush.clear();
        let written = self.engine.output(to);
        output.clear();
        output.extend_from_slice(written);
        let length = written.len();
        self.engine.sent(to, length);
        self.engine.settle(&mut self.flush);
        self.engine.take_actions(&mut self.actions);
    }

    /// Has a peer take in what was written to it.
    fn hear(
        &mut self,
        peer: &mut Connection,
        bytes: &[u8],
        mut event: impl FnMut(&mut Connection, Event<'_>),
    ) {
        let held = peer.restore(&mut self.buffer);
        self.buffer[held..held + bytes.len()].copy_from_slice(bytes);
        let mut input = &self.buffer[..held + bytes.len()];
        while let Some(seen) = peer.receive(&mut input, &mut self.fields).expect("the engine keeps the rules")
        {
            event(peer, seen);
        }
        peer.keep(input);
    }
}

fn request(fields: &mut FieldList, call: usize) {
    let mixed = (call as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    fields.clear();
    fields.push(b":method", b"POST");
    fields.push(b":scheme", b"http");
    fields.push(b":path", format!("/shop.Cart/Method{}", call % 8).as_bytes());
    fields.push(b":authority", b"cart.shop.svc.cluster.local:8080");
    fields.push(b"content-type", b"application/grpc");
    fields.push(b"user-agent", b"grpc-go/1.70.0");
    fields.push(b"te", b"trailers");
    fields.push(b"grpc-timeout", format!("{}u", 1_000_000 + (mixed >> 50)).as_bytes());
    fields.push(b"traceparent", format!("00-{mixed:016x}{:016x}-{mixed:016x}-01", !mixed).as_bytes());
}

fn snapshot(id: DestinationId) -> Snapshot {
    let address = SocketAddr::from(([10, 0, 0, 1], 50051));
    let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
    let endpoints = [Arc::new(Endpoint::at(address))].into();
    let backend = Arc::new(Backend::new(service_port, endpoints, Picker::Ewma));
    let mut snapshot = Snapshot { version: 1, ..Snapshot::default() };
    snapshot.destinations.insert(id, Destination { original: address, backend });
    snapshot
}

fn main() {
    // `cargo bench` hands over options of its own.
    let batches = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(20_000);
    let limits = Limits::default();
    let id = DestinationId::new(7).expect("in the space");
    // Without: what the counting of calls adds.
    let counts = std::env::var_os("UNCOUNTED").is_none();
    let telemetry = counts.then(|| Arc::new(Telemetry::new(true)));
    let mut bench = Bench {
        engine: Engine::new(limits.clone(), 1, 1_000_000_000).counting(telemetry),
        now_ns: 1_000_000_000,
        actions: Vec::new(),
        flush: Vec::new(),
        buffer: vec![0; 256 << 10],
        fields: FieldList::new(),
    };
    bench.engine.publish(Arc::new(snapshot(id)));
    let down = bench.engine.accepted(Origin::Agent, id).expect("the destination is known");
    let (mut client, mut server) = (Connection::client(&limits), Connection::server(&limits));
    let mut output = Vec::new();
    let (mut fields, mut header, mut trailers) = (FieldList::new(), FieldList::new(), FieldList::new());
    header.push(b":status", b"200");
    header.push(b"content-type", b"application/grpc");
    trailers.push(b"grpc-status", b"0");
    trailers.push(b"grpc-message", b"");

    // The first call opens the connection to the server.
    request(&mut fields, 0);
    client.open(&fields, true, 0).expect("no limit");
    bench.engine_turn(down, &mut client, down, &mut output);
    bench.hear(&mut client, &output, |_, _| ());
    let Some(Action::Connect { conn: up, .. }) = bench.actions.pop() else {
        panic!("no connection is wanted")
    };
    bench.engine.connected(up);
    bench.engine_turn(up, &mut server, up, &mut output);

    let mut answered = 0;
    for batch in 0..batches {
        let answer = |server: &mut Connection, event: Event<'_>| match event {
            Event::Headers { stream, kind: HeadersKind::Request, end_stream: true, .. }
            | Event::Data { stream, end_stream: true, .. } => {
                server.send_headers(stream, &header, false);
                server.send_data(stream, &BODY, false);
                server.send_trailers(stream, &trailers);
                server.release(stream);
            }
            _ => {}
        };
        for call in 0..BATCH {
            request(&mut fields, batch * BATCH + call);
            let stream = client.open(&fields, false, 0).expect("no limit");
            client.send_data(stream, &BODY, true);
        }
        let from_client = std::mem::take(&mut output);
        bench.hear(&mut server, &from_client, answer);
        output = from_client;
        bench.engine_turn(down, &mut client, up, &mut output);
        let from_client = std::mem::take(&mut output);
        bench.hear(&mut server, &from_client, answer);
        output = from_client;
        bench.engine_turn(up, &mut server, down, &mut output);
        let from_server = std::mem::take(&mut output);
        bench.hear(&mut client, &from_server, |client, event| match event {
            Event::Data { stream, payload, .. } => client.grant(stream, payload.len() as u32),
            Event::Headers { stream, end_stream: true, .. } => {
                client.release(stream);
                answered += 1;
            }
            _ => {}
        });
        output = from_server;
        output.clear();
    }
    assert!(answered >= batches * BATCH, "every call was answered: {answered}");
    println!("{answered} calls");
}
