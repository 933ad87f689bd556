//! A worker thread that was kept from its work for a long time: by a debugger, a frozen cgroup, a machine that sleeps.

use super::super::worker::Worker;
use super::*;
use crate::http2::{Connection, Event, FieldList, HeadersKind};
use mio::Events;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A worker without a thread: its turns are made, and its clock is set, by hand.
pub(super) struct ByHand {
    pub(super) worker: Worker,
    events: Events,
    now_ns: u64,
}

impl ByHand {
    pub(super) fn new(worker: Worker) -> Self {
        Self { worker, events: Worker::events(), now_ns: crate::clock::monotonic_ns() }
    }

    /// Turns at one and the same time, until that is so.
    pub(super) fn until(&mut self, what: &str, mut condition: impl FnMut(&Worker) -> bool) {
        let end = std::time::Instant::now() + PATIENCE;
        while !condition(&self.worker) {
            assert!(std::time::Instant::now() < end, "waited in vain until {what}");
            self.turn();
        }
    }

    pub(super) fn turn(&mut self) {
        self.worker.poll.poll(&mut self.events, Some(Duration::from_millis(5))).unwrap();
        self.worker.turn(&self.events, self.now_ns);
    }
}

/// What has come, and was not read yet; the connection's own answers go out.
pub(super) fn exchange(http2: &mut Connection, stream: &mut TcpStream, mut event: impl FnMut(Event<'_>)) {
    let mut buffer = vec![0; 100_000];
    let held = http2.restore(&mut buffer);
    let read = match stream.read(&mut buffer[held..]) {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    };
    let (mut input, mut fields) = (&buffer[..held + read], FieldList::new());
    while let Some(seen) = http2.receive(&mut input, &mut fields).unwrap() {
        event(seen);
    }
    http2.keep(input);
    stream.write_all(http2.output()).unwrap();
    http2.sent(http2.output().len());
}

#[test]
fn what_came_while_a_worker_hung_has_come_in_time() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let tick: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
    let (workers, mut ready) = Workers::prepare(&config(), &[tick]).unwrap();
    let mut by_hand = ByHand::new(ready.pop().unwrap());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    workers.listen(ListenerSpec { socket, source: Source::Fixed(fixed()) }).unwrap();
    workers.publish(&snapshot(1, &[server.local_addr().unwrap()], Picker::RoundRobin, address));
    by_hand.until("the worker has the snapshot", |_| workers.applied() == 1);

    let mut client_http2 = Connection::client(&Limits::default());
    let mut request = FieldList::new();
    for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("te", "trailers")] {
        request.push(name.as_bytes(), value.as_bytes());
    }
    client_http2.open(&request, true, 0).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nonblocking(true).unwrap();
    exchange(&mut client_http2, &mut client, |_| {});
    by_hand.until("it dials", |worker| worker.engine.counters().connects == 1);
    let (mut server, _) = server.accept().unwrap();
    server.set_nonblocking(true).unwrap();

    // The worker does nothing. The server greets, and the client acknowledges SETTINGS, in time.
    let mut server_http2 = Connection::server(&Limits::default());
    server.write_all(server_http2.output()).unwrap();
    server_http2.sent(server_http2.output().len());
    exchange(&mut client_http2, &mut client, |_| {});
    by_hand.now_ns += 31_000_000_000;
    let mut requests = 0;
    by_hand.until("the call is at the server", |_| {
        exchange(&mut server_http2, &mut server, |event| {
            requests += u32::from(matches!(event, Event::Headers { kind: HeadersKind::Request, .. }));
        });
        requests == 1
    });
    let counters = by_hand.worker.engine.counters();
    assert_eq!((counters.connects, counters.connect_failures, counters.settings_timeouts), (1, 0, 0));
}
