//! Calls that do not go well, and what the client is told.

use super::peers::{Client, Server, pattern};
use super::turns::{list, take};
use super::*;
use crate::http2::Connection;
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::AsyncWriteExt as _;

#[test]
fn refused_connections_send_the_call_to_the_next_endpoint() {
    run(async {
        let server = Server::start().await;
        let (one, two) = (refusing(), refusing());
        let path = Path::start(&[one.1, two.1, server.address]);
        let client = Client::connect(path.address).await;
        for _ in 0..30 {
            let answer = client.call("/echo", pattern(0, 10_000)).await.unwrap();
            assert_eq!(answer.grpc_status(), Some("0"));
            assert!(answer.body == pattern(0, 10_000));
        }
        drop(client);
        path.quiesce().await;
        assert!(path.workers.counters().reconnects > 0);
    });
}

#[test]
fn where_all_refuse_the_client_is_told_so() {
    run(async {
        let all = [(); 4].map(|()| refusing());
        let path = Path::start(&all.each_ref().map(|(_, address)| *address));
        let client = Client::connect(path.address).await;
        let answer = client.call("/echo", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!((answer.status, answer.grpc_status()), (200, Some("14")));
        assert!(answer.message().contains("cannot connect to any of 3 endpoints"), "{}", answer.message());
        assert!(answer.message().contains("shop/cart:50051"), "{}", answer.message());
        let answer = client.call_with("/echo", "text/plain", &[], Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(answer.status, 503);
        drop(client);
        path.quiesce().await;
    });
}

#[test]
fn a_service_without_endpoints_answers_and_serves_as_soon_as_it_has_one() {
    run(async {
        let path = Path::start(&[]);
        let client = Client::connect(path.address).await;
        let answer = client.call("/echo", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(answer.grpc_status(), Some("14"));
        assert!(answer.message().contains("no endpoint is ready"), "{}", answer.message());
        let server = Server::start().await;
        // A call waits for a second only: on a busy machine that may be over before the endpoint is there.
        let mut refused = 1;
        loop {
            eventually("no call is open", || {
                let counters = path.workers.counters();
                (counters.calls_open, counters.own_errors) == (0, refused)
            })
            .await;
            let waiting = client.call("/echo", Bytes::from_static(b"y"));
            let publish = async {
                eventually("the call waits", || {
                    let counters = path.workers.counters();
                    counters.calls_open == 1 || counters.own_errors > refused
                })
                .await;
                path.publish(&[server.address], Picker::RoundRobin, path.address);
            };
            let (answer, ()) = tokio::join!(waiting, publish);
            let answer = answer.unwrap();
            if answer.grpc_status() == Some("0") {
                assert_eq!(answer.body, b"y");
                break;
            }
            assert!(answer.message().contains("no endpoint is ready"), "{}", answer.message());
            path.publish(&[], Picker::RoundRobin, path.address);
            refused += 1;
        }
        drop(client);
        path.quiesce().await;
    });
}

#[test]
fn a_pods_call_without_endpoint_is_refused_and_its_client_sent_away() {
    run(async {
        let path = Path::with_source(&[], 1, Source::Pod(pod()), "0.0.0.0");
        let address = SocketAddr::new(fixed().to_loopback().into(), path.address.port());
        let client = Client::connect(address).await;
        let error = client.call("/echo", Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM));
        path.quiesce().await;
    });
}

#[test]
fn a_refused_stream_is_sent_again_and_another_reset_is_told() {
    run(async {
        let (one, two) = (Server::start().await, Server::start().await);
        let path = Path::start(&[one.address, two.address]);
        let client = Client::connect(path.address).await;
        // Both refuse: once on each, and then the client hears of it.
        let answer = client.call("/refuse", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(answer.grpc_status(), Some("14"), "{}", answer.message());
        assert_eq!((one.calls.load(Relaxed), two.calls.load(Relaxed)), (1, 1));
        let answer = client.call("/reset-before", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(answer.grpc_status(), Some("13"), "{}", answer.message());
        let answer = client.call_with("/reset-before", "text/plain", &[], Bytes::new()).await.unwrap();
        assert_eq!(answer.status, 502);
        // In mid-answer: trailers say so to a gRPC client, a reset to any other.
        for content_type in ["application/grpc", "text/plain"] {
            let (response, mut send) = client.start("/reset-after", content_type, &[], false).await;
            let mut stream = response.await.unwrap().into_body();
            assert_eq!(stream.data().await.unwrap().unwrap(), "some");
            send.send_data(Bytes::from_static(b"go on"), true).unwrap();
            if content_type == "text/plain" {
                let error = stream.data().await.unwrap().unwrap_err();
                assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
            } else {
                assert!(stream.data().await.is_none());
                let trailers = stream.trailers().await.unwrap().unwrap();
                assert_eq!(trailers["grpc-status"], "14", "{trailers:?}");
            }
        }
        drop(client);
        path.quiesce().await;
        assert_eq!(path.workers.counters().retries, 1);
    });
}

#[test]
fn a_deadline_that_passes_is_answered_and_the_server_told() {
    run(async {
        let server = Server::start().await;
        let path = Path::start(&[server.address]);
        let client = Client::connect(path.address).await;
        // With the connection to the server there, the call is sent at once, however long anything takes.
        let answer = client.call("/echo", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(answer.grpc_status(), Some("0"), "{}", answer.message());
        let timeout = [("grpc-timeout", "50m")];
        let answer =
            client.call_with("/hang", "application/grpc", &timeout, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(answer.grpc_status(), Some("4"), "{}", answer.message());
        eventually("the server's call is cancelled", || server.cancelled.load(Relaxed) == 1).await;
        // One that has time gets it whole.
        let timeout = [("grpc-timeout", "30S")];
        let answer =
            client.call_with("/echo", "application/grpc", &timeout, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!((answer.grpc_status(), &answer.body[..]), (Some("0"), &b"x"[..]));
        drop(client);
        path.quiesce().await;
        assert_eq!(path.workers.counters().deadlines, 1);
    });
}

#[test]
fn a_server_that_dies_ends_its_calls_with_a_status() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = Path::start(&[listener.local_addr().unwrap()]);
        let client = Client::connect(path.address).await;
        let dying = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let call = connection.accept().await;
            drop((call, connection));
        };
        let (answer, ()) = tokio::join!(client.call("/echo", Bytes::from_static(b"x")), dying);
        let answer = answer.unwrap();
        assert!(
            matches!(answer.grpc_status(), Some("14" | "1")),
            "{:?} {}",
            answer.grpc_status(),
            answer.message()
        );
        drop(client);
        path.quiesce().await;
    });
}

#[test]
fn endpoints_that_go_get_no_further_calls_and_keep_those_they_have() {
    run(async {
        let (old, new) = (Server::start().await, Server::start().await);
        let path = Path::start(&[old.address]);
        let client = Client::connect(path.address).await;
        let (response, mut send) = client.start("/echo", "application/grpc", &[], false).await;
        send.send_data(Bytes::from_static(b"a"), false).unwrap();
        let mut stream = response.await.unwrap().into_body();
        assert_eq!(stream.data().await.unwrap().unwrap(), "a");
        path.publish(&[new.address], Picker::RoundRobin, path.address);
        for _ in 0..10 {
            let answer = client.call("/echo", Bytes::from_static(b"x")).await.unwrap();
            assert_eq!(answer.server(), new.address.to_string());
        }
        send.send_data(Bytes::from_static(b"b"), true).unwrap();
        assert_eq!(stream.data().await.unwrap().unwrap(), "b");
        assert_eq!(stream.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        eventually("its connection is closed", || path.workers.counters().upstreams_open == 1).await;
        drop((client, stream, send));
        path.quiesce().await;
    });
}

#[test]
fn a_drain_lets_calls_end_and_sends_clients_away() {
    run(async {
        let server = Server::start().await;
        let path = Path::start(&[server.address]);
        let client = Client::connect(path.address).await;
        let (response, mut send) = client.start("/echo", "application/grpc", &[], false).await;
        send.send_data(Bytes::from_static(b"a"), false).unwrap();
        let mut stream = response.await.unwrap().into_body();
        assert_eq!(stream.data().await.unwrap().unwrap(), "a");
        path.workers.drain(Duration::from_secs(20));
        send.send_data(Bytes::from_static(b"b"), true).unwrap();
        assert_eq!(stream.data().await.unwrap().unwrap(), "b");
        assert_eq!(stream.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        eventually("everybody is gone", || path.workers.drained()).await;
        assert!(client.call_result("/echo").await.is_err(), "the client was told to go");
        assert_eq!(path.workers.counters().own_errors, 0);
        path.workers.stop().unwrap();
    });
}

#[test]
fn at_the_end_of_a_drain_calls_end_with_a_status() {
    run(async {
        let server = Server::start().await;
        let path = Path::start(&[server.address]);
        let client = Client::connect(path.address).await;
        let call = client.call("/hang", Bytes::from_static(b"x"));
        let drain = async {
            eventually("the call is there", || server.calls.load(Relaxed) == 1).await;
            path.workers.drain(Duration::from_millis(200));
        };
        let (answer, ()) = tokio::join!(call, drain);
        let answer = answer.unwrap();
        assert_eq!(answer.grpc_status(), Some("14"), "{}", answer.message());
        assert!(answer.message().contains("shutting down"), "{}", answer.message());
        eventually("everybody is gone", || path.workers.drained()).await;
        path.workers.stop().unwrap();
    });
}

#[test]
fn an_answer_that_a_reset_follows_is_still_an_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// HEADERS that end stream 1: `:status: 200`, and a literal `grpc-status: 0`.
    const ANSWER: &[u8] = b"\0\0\x10\x01\x05\0\0\0\x01\x88\0\x0bgrpc-status\x010";
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = Path::start(&[listener.local_addr().unwrap()]);
        let client = Client::connect(path.address).await;
        for _ in 0..200 {
            let serving = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                let mut request = Vec::new();
                // Its HEADERS frame, which ends the stream.
                while !request.windows(6).any(|bytes| bytes == b"\x01\x05\0\0\0\x01") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                }
                stream.set_zero_linger().unwrap();
                stream.write_all(ANSWER).await.unwrap();
            };
            let (answer, ()) = tokio::join!(client.call("/echo", Bytes::new()), serving);
            let answer = answer.unwrap();
            assert_eq!(answer.grpc_status(), Some("0"), "{}", answer.message());
            eventually("the connection is gone", || path.workers.counters().upstreams_open == 0).await;
        }
        drop(client);
        path.quiesce().await;
    });
}

/// A server of this crate says GOAWAY to a connection on which twenty requests are cancelled before it has looked at them.
#[test]
fn a_client_that_cancels_many_calls_at_once_costs_no_other_client_a_call() {
    run(async {
        let server = Server::start().await;
        let path = Path::start(&[server.address]);
        let other = Client::connect(path.address).await;
        assert_eq!(other.call("/echo", pattern(0, 100)).await.unwrap().grpc_status(), Some("0"));
        let mut offender = tokio::net::TcpStream::connect(path.address).await.unwrap();
        let mut http2 = Connection::client(&Limits::default());
        let request = list(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/hang"),
            ("content-type", "application/grpc"),
        ]);
        for _ in 0..20 {
            for _ in 0..100 {
                let stream = http2.open(&request, true, 0).unwrap();
                http2.reset_at_once_for_test(stream);
                http2.release(stream);
            }
            offender.write_all(&take(&mut http2)).await.unwrap();
            for _ in 0..5 {
                let answer = other.call("/echo", pattern(0, 100)).await.unwrap();
                assert_eq!(answer.grpc_status(), Some("0"), "{}", answer.message());
            }
        }
        eventually("all are cancelled", || path.workers.counters().cancelled == 2_000).await;
        assert_eq!(path.workers.counters().connects, 1, "the server has sent nobody away");
        drop((offender, other));
        path.quiesce().await;
    });
}
