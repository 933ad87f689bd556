//! Clients that take many calls back at once, and what becomes of their neighbours at the same server.

use super::peers::{Client, Server};
use super::*;
use crate::http2::{Connection, FieldList};
use bytes::Bytes;
use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;

fn request() -> FieldList {
    let mut fields = FieldList::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/hang"),
        (":authority", "cart.shop"),
        ("content-type", "application/grpc"),
    ] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

#[test]
fn a_burst_of_cancels_does_not_cost_the_neighbours_their_calls_at_a_server_that_counts_them() {
    run(async {
        // The h2 crate as it comes: 20 requests that it was sent together with their resets, and the connection ends.
        let server = Server::start().await;
        let path = Path::start(&[server.address]);
        let neighbour = Client::connect(path.address).await;
        let (response, mut send) = neighbour.start("/echo", "application/grpc", &[], false).await;
        send.send_data(Bytes::from_static(b"a"), false).unwrap();
        let mut stream = response.await.unwrap().into_body();
        assert_eq!(stream.data().await.unwrap().unwrap(), "a");
        // While nobody waits here the server, on the same thread, does nothing: what came meanwhile it reads in one go.
        let blocking = |what: &str, condition: &dyn Fn() -> bool| {
            let end = std::time::Instant::now() + PATIENCE;
            while !condition() {
                assert!(std::time::Instant::now() < end, "waited in vain until {what}");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        for round in 1..=5 {
            let mut hasty = Connection::client(&Limits::default());
            let streams: Vec<_> = (0..100).map(|_| hasty.open(&request(), false, 0).unwrap()).collect();
            let mut socket = std::net::TcpStream::connect(path.address).unwrap();
            socket.write_all(hasty.output()).unwrap();
            hasty.sent(hasty.output().len());
            blocking("the calls are under way", &|| path.workers.counters().calls == 100 * round + 1);
            for stream in streams {
                hasty.reset_at_once_for_test(stream);
            }
            socket.write_all(hasty.output()).unwrap();
            blocking("all are cancelled", &|| path.workers.counters().cancelled == 100 * round);
            tokio::task::yield_now().await;
        }
        send.send_data(Bytes::from_static(b"b"), true).unwrap();
        assert_eq!(stream.data().await.unwrap().unwrap(), "b");
        assert_eq!(stream.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        assert_eq!(path.workers.counters().connects, 1, "the connection has lived through it");
        drop((stream, send, neighbour));
        path.quiesce().await;
        // The server is told of every call that it has begun.
        eventually("none is left at the server", || {
            server.cancelled.load(Relaxed) + 1 == server.calls.load(Relaxed)
        })
        .await;
    });
}
