//! Clients that take many calls back at once, and what becomes of their neighbours at the same server.

use super::peers::{Client, Server};
use super::*;
use crate::http2::{Connection, FieldList};
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::AsyncWriteExt;

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
        for round in 1..=5 {
            let mut hasty = Connection::client(&Limits::default());
            for _ in 0..100 {
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
                let stream = hasty.open(&fields, false, 0).unwrap();
                // Resets of streams that are unheard of are held by a good client: this one is none.
                hasty.reset_at_once_for_test(stream);
            }
            let mut socket = tokio::net::TcpStream::connect(path.address).await.unwrap();
            socket.write_all(hasty.output()).await.unwrap();
            eventually("all are cancelled", || path.workers.counters().cancelled == 100 * round).await;
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
