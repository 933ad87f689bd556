//! One connection's flood of useful frames, and another one's call on the same worker, counted in turns.

use super::hang::{ByHand, exchange};
use super::*;
use crate::http2::{Connection, Event, FieldList, HeadersKind, StreamKey};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;

/// A stream's first window, in frames of a byte each.
const FRAMES: usize = 65_535;
/// With what a frame begins.
const FRAME_BYTES: usize = 10;

fn request(ends: bool) -> (Connection, StreamKey) {
    let mut http2 = Connection::client(&Limits::default());
    let mut fields = FieldList::new();
    for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("te", "trailers")] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let stream = http2.open(&fields, ends, 0).unwrap();
    (http2, stream)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

#[test]
fn a_flood_of_small_frames_takes_many_turns_and_anothers_call_few() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let tick: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
    let (workers, mut ready) = Workers::prepare(&config(), &[tick]).unwrap();
    let mut by_hand = ByHand::new(ready.pop().unwrap());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    workers.listen(ListenerSpec { socket, source: Source::Fixed(fixed()) }).unwrap();
    workers.publish(&snapshot(1, &[server.local_addr().unwrap()], Picker::RoundRobin, address));
    by_hand.until("the worker has the snapshot", |_| workers.applied() == 1);

    // The one's call is under way, and then it floods.
    let (mut one_http2, _) = request(false);
    let mut one = connect(address);
    exchange(&mut one_http2, &mut one, |_| {});
    by_hand.until("it dials", |worker| worker.engine.counters().connects == 1);
    let (mut server, _) = server.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    let mut server_http2 = Connection::server(&Limits::default());
    server.write_all(server_http2.output()).unwrap();
    server_http2.sent(server_http2.output().len());
    let mut begun = false;
    by_hand.until("the call is at the server", |_| {
        exchange(&mut server_http2, &mut server, |event| begun |= matches!(event, Event::Headers { .. }));
        begun
    });
    let frame = [0, 0, 1, 0, 0, 0, 0, 0, 1, 7];
    assert_eq!(frame.len(), FRAME_BYTES);
    let flood = frame.repeat(FRAMES);
    let mut sent = 0;
    let (mut other_http2, _) = request(true);
    let mut other = connect(address);
    let (mut turns, mut came, mut answered_after) = (0, 0, None);
    by_hand.until("all of the flood is at the server", |_| {
        turns += 1;
        match one.write(&flood[sent..]) {
            Ok(written) => sent += written,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let mut fresh = None;
        exchange(&mut server_http2, &mut server, |event| match event {
            Event::Data { payload, .. } => came += payload.len(),
            Event::Headers { stream, kind: HeadersKind::Request, .. } => fresh = Some(stream),
            _ => {}
        });
        if let Some(stream) = fresh {
            let mut fields = FieldList::new();
            fields.push(b":status", b"200");
            server_http2.send_headers(stream, &fields, true);
            exchange(&mut server_http2, &mut server, |_| {});
        }
        exchange(&mut other_http2, &mut other, |event| {
            if matches!(event, Event::Headers { .. }) {
                answered_after = Some(turns);
            }
        });
        came == FRAMES
    });
    // Of the first read nobody knows what it brings.
    assert!(turns > FRAMES / 512 / 2, "the flood took {turns} turns");
    let answered_after = answered_after.expect("the flood is over, and there is no answer");
    assert!(answered_after <= 20, "the call took {answered_after} turns");
}
