//! What the HTTP/2 layer alone costs a relayed unary call: one server-role and one client-role connection, fed from
//! memory. It prints how many calls it relayed and how long one took; instructions are counted with
//! `valgrind --tool=callgrind --toggle-collect='*relay_batch*' target/release/deps/relay-… BATCHES`.

use std::time::Instant;

use evenkeel::http2::{Connection, Event, FieldList, HeadersKind, Limits, StreamKey};

/// Calls in flight together, as on a busy connection.
const BATCH: usize = 16;
const BODY: [u8; 1_024] = [b'x'; 1_024];

/// A peer at one end of the relay, and its read buffer.
struct End {
    connection: Connection,
    buffer: Vec<u8>,
    fields: FieldList,
}

impl End {
    fn new(connection: Connection) -> Self {
        Self { connection, buffer: vec![0; 256 << 10], fields: FieldList::new() }
    }

    /// Reads what `from` has written, as one `read` would.
    fn read(&mut self, from: &mut Connection) -> usize {
        let held = self.connection.restore(&mut self.buffer);
        let bytes = from.output();
        self.buffer[held..held + bytes.len()].copy_from_slice(bytes);
        let length = held + bytes.len();
        from.sent(bytes.len());
        length
    }
}

/// Which stream is the other half of which, by slot.
#[derive(Default)]
struct Calls {
    pairs: Vec<Option<(StreamKey, StreamKey)>>,
    free: Vec<u32>,
}

impl Calls {
    fn insert(&mut self, pair: (StreamKey, StreamKey)) -> u32 {
        match self.free.pop() {
            Some(at) => {
                self.pairs[at as usize] = Some(pair);
                at
            }
            None => {
                self.pairs.push(Some(pair));
                self.pairs.len() as u32 - 1
            }
        }
    }
}

/// The relay: requests of one read go up, answers of one read come down.
#[inline(never)]
fn relay_batch_up(down: &mut End, length: usize, up: &mut Connection, calls: &mut Calls) {
    let mut input = &down.buffer[..length];
    while let Some(event) = down.connection.receive(&mut input, &mut down.fields).expect("a right peer") {
        match event {
            Event::Headers { stream, kind: HeadersKind::Request, end_stream, .. } => {
                let upstream = up.open(&down.fields, end_stream, 0).expect("no limit");
                let token = calls.insert((stream, upstream));
                down.connection.set_token(stream, token);
                up.set_token(upstream, token);
            }
            Event::Data { stream, token, payload, end_stream } => {
                let (_, upstream) = calls.pairs[token as usize].expect("a call");
                up.send_data(upstream, payload, end_stream);
                down.connection.grant(stream, payload.len() as u32);
            }
            _ => {}
        }
    }
    down.connection.keep(input);
}

#[inline(never)]
fn relay_batch_down(up: &mut End, length: usize, down: &mut Connection, calls: &mut Calls) -> usize {
    let mut input = &up.buffer[..length];
    let mut answered = 0;
    while let Some(event) = up.connection.receive(&mut input, &mut up.fields).expect("a right peer") {
        match event {
            Event::Headers { token, kind, end_stream, .. } => {
                let (downstream, upstream) = calls.pairs[token as usize].expect("a call");
                if kind == HeadersKind::Trailers {
                    down.send_trailers(downstream, &up.fields);
                } else {
                    down.send_headers(downstream, &up.fields, end_stream);
                }
                if end_stream {
                    down.release(downstream);
                    up.connection.release(upstream);
                    calls.pairs[token as usize] = None;
                    calls.free.push(token);
                    answered += 1;
                }
            }
            Event::Data { stream, token, payload, end_stream } => {
                let (downstream, _) = calls.pairs[token as usize].expect("a call");
                down.send_data(downstream, payload, end_stream);
                up.connection.grant(stream, payload.len() as u32);
            }
            _ => {}
        }
    }
    up.connection.keep(input);
    answered
}

/// What changes with every call, so that no table can hold the whole of a request.
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
    fields.push(b"grpc-timeout", format!("{}u", mixed >> 44).as_bytes());
    fields.push(b"traceparent", format!("00-{mixed:016x}{:016x}-{mixed:016x}-01", !mixed).as_bytes());
}

fn answer(peer: &mut End, length: usize, header: &FieldList, trailers: &FieldList) {
    let mut input = &peer.buffer[..length];
    while let Some(event) = peer.connection.receive(&mut input, &mut peer.fields).expect("a right relay") {
        if let Event::Data { stream, payload, end_stream, .. } = event {
            peer.connection.grant(stream, payload.len() as u32);
            if end_stream {
                peer.connection.send_headers(stream, header, false);
                peer.connection.send_data(stream, &BODY, false);
                peer.connection.send_trailers(stream, trailers);
                peer.connection.release(stream);
            }
        }
    }
    peer.connection.keep(input);
}

fn finish(peer: &mut End, length: usize) {
    let mut input = &peer.buffer[..length];
    while let Some(event) = peer.connection.receive(&mut input, &mut peer.fields).expect("a right relay") {
        match event {
            Event::Data { stream, payload, .. } => peer.connection.grant(stream, payload.len() as u32),
            Event::Headers { stream, end_stream: true, .. } => peer.connection.release(stream),
            _ => {}
        }
    }
    peer.connection.keep(input);
}

fn main() {
    // `cargo bench` hands over options of its own.
    let batches = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(20_000);
    let limits = Limits::default();
    let mut client = End::new(Connection::client(&limits));
    let mut down = End::new(Connection::server(&limits));
    let mut up = End::new(Connection::client(&limits));
    let mut server = End::new(Connection::server(&limits));
    let mut calls = Calls::default();
    let (mut fields, mut header, mut trailers) = (FieldList::new(), FieldList::new(), FieldList::new());
    header.push(b":status", b"200");
    header.push(b"content-type", b"application/grpc");
    trailers.push(b"grpc-status", b"0");
    trailers.push(b"grpc-message", b"");
    let mut answered = 0;
    let (mut call, started) = (0, Instant::now());
    let mut relaying = std::time::Duration::ZERO;
    for _ in 0..batches {
        for _ in 0..BATCH {
            request(&mut fields, call);
            call += 1;
            let stream = client.connection.open(&fields, false, 0).expect("no limit");
            client.connection.send_data(stream, &BODY, true);
        }
        let length = down.read(&mut client.connection);
        let begun = Instant::now();
        relay_batch_up(&mut down, length, &mut up.connection, &mut calls);
        relaying += begun.elapsed();
        let length = server.read(&mut up.connection);
        answer(&mut server, length, &header, &trailers);
        let length = up.read(&mut server.connection);
        let begun = Instant::now();
        answered += relay_batch_down(&mut up, length, &mut down.connection, &mut calls);
        relaying += begun.elapsed();
        let length = client.read(&mut down.connection);
        finish(&mut client, length);
    }
    assert_eq!(answered, batches * BATCH, "every call was answered");
    println!(
        "{answered} calls in {:?}; relaying took {:?}, {:.0} ns a call",
        started.elapsed(),
        relaying,
        relaying.as_nanos() as f64 / answered as f64
    );
}
