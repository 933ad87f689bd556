//! Calls that go well.

use super::peers::{Client, Server, pattern, read, send_all};
use super::turns::{list, take};
use super::*;
use crate::http2::Connection;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::AsyncWriteExt as _;

async fn servers(count: usize) -> (Vec<Server>, Vec<SocketAddr>) {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::start().await);
    }
    let addresses = servers.iter().map(|server| server.address).collect();
    (servers, addresses)
}

#[test]
fn the_calls_of_one_connection_are_spread_over_all_endpoints() {
    run(async {
        let (_servers, addresses) = servers(3).await;
        let path = Path::start(&addresses);
        let client = Client::connect(path.address).await;
        let mut shares = BTreeMap::new();
        for index in 0..600u32 {
            let body = Bytes::from(index.to_be_bytes().to_vec());
            let answer = client.call("/echo", body.clone()).await.unwrap();
            assert_eq!((answer.status, answer.grpc_status()), (200, Some("0")));
            assert_eq!(answer.body, body);
            *shares.entry(answer.server().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(shares.values().copied().collect::<Vec<_>>(), [200, 200, 200]);
        drop(client);
        path.quiesce().await;
        assert_eq!(path.workers.counters().answered, 600);
    });
}

#[test]
fn all_four_shapes_of_call_pass_with_their_trailers() {
    run(async {
        let (_servers, addresses) = servers(2).await;
        let path = Path::start(&addresses);
        let client = Client::connect(path.address).await;
        // A stream each way, a message at a time: nothing is held back.
        let (response, mut send) = client.start("/echo", "application/grpc", &[], false).await;
        send_all(&mut send, Bytes::from_static(b"one")).await.unwrap();
        let mut stream = response.await.unwrap().into_body();
        assert_eq!(stream.data().await.unwrap().unwrap(), "one");
        for message in ["two", "three"] {
            send_all(&mut send, Bytes::from(message)).await.unwrap();
            assert_eq!(stream.data().await.unwrap().unwrap(), message);
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-request-trailer", "kept".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        assert!(stream.data().await.is_none());
        let trailers = stream.trailers().await.unwrap().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["x-request-trailer"]),
            (&"0".parse().unwrap(), &"kept".parse().unwrap())
        );
        // Many to one, one to many, and an answer without a body.
        let size = 3_000_000;
        let answer = client.call("/echo", pattern(0, size)).await.unwrap();
        assert!(answer.body == pattern(0, size), "a large body comes back as it was");
        let answer = client.call("/produce", Bytes::from("5000000")).await.unwrap();
        assert!(answer.body == pattern(0, 5_000_000), "a large answer is what the server sent");
        let answer = client.call("/trailers-only", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!((answer.grpc_status(), answer.body.len()), (Some("5"), 0));
        drop((client, send, stream));
        path.quiesce().await;
    });
}

#[test]
fn many_concurrent_calls_on_many_connections_are_never_mixed_up() {
    run(async {
        let (_servers, addresses) = servers(3).await;
        let path = Path::with_source(&addresses, 2, Source::Fixed(fixed()), "127.0.0.1");
        path.publish(&addresses, Picker::Ewma, path.address);
        let mut tasks = Vec::new();
        for connection in 0..8u64 {
            let client = Client::connect(path.address).await;
            for call in 0..60u64 {
                let client = client.clone();
                tasks.push(tokio::spawn(async move {
                    let body = pattern(connection << 32 | call << 16, 1 + call as usize * 700);
                    let answer = client.call("/echo", body.clone()).await.unwrap();
                    assert_eq!(answer.grpc_status(), Some("0"));
                    assert!(answer.body == body);
                }));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        path.quiesce().await;
        assert_eq!(path.workers.counters().answered, 480);
    });
}

#[test]
fn a_reader_that_stops_stalls_nobody_else() {
    run(async {
        let (servers, addresses) = servers(1).await;
        let path = Path::start(&addresses);
        let lazy = Client::connect(path.address).await;
        // Answers that nobody reads: far more than all windows together.
        let mut unread = Vec::new();
        for _ in 0..20 {
            let (response, mut send) = lazy.start("/produce", "application/grpc", &[], false).await;
            send_all(&mut send, Bytes::from("20000000")).await.unwrap();
            send.send_data(Bytes::new(), true).unwrap();
            unread.push((response.await.unwrap(), send));
        }
        // On another connection, which shares the server's.
        let busy = Client::connect(path.address).await;
        for _ in 0..50 {
            assert_eq!(busy.call("/echo", pattern(0, 100_000)).await.unwrap().body.len(), 100_000);
        }
        drop((unread, lazy, busy));
        path.quiesce().await;
        eventually("the servers hear of it", || {
            servers[0].cancelled.load(std::sync::atomic::Ordering::Relaxed) == 20
        })
        .await;
    });
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_server() {
    run(async {
        let (servers, addresses) = servers(1).await;
        let path = Path::start(&addresses);
        let client = Client::connect(path.address).await;
        let (response, send) = client.start("/hang", "application/grpc", &[], true).await;
        let calls = &servers[0].calls;
        eventually("the call is there", || calls.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
        drop((response, send));
        let cancelled = &servers[0].cancelled;
        eventually("it is cancelled", || cancelled.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
        // And so are those of a client that goes away.
        let (response, send) = client.start("/hang", "application/grpc", &[], true).await;
        eventually("the call is there", || calls.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
        drop((response, send, client));
        eventually("it is cancelled", || cancelled.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
        path.quiesce().await;
        assert_eq!(path.workers.counters().cancelled, 2);
    });
}

#[test]
fn beyond_a_servers_stream_limit_another_connection_is_opened_and_then_calls_queue() {
    run(async {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(3);
        let server = Server::with(builder).await;
        let path = Path::start(&[server.address]);
        let client = Client::connect(path.address).await;
        let mut streams = Vec::new();
        for _ in 0..40 {
            let (response, send) = client.start("/echo", "application/grpc", &[], false).await;
            streams.push((tokio::spawn(read(response)), send));
        }
        eventually("all connections are open", || path.workers.counters().upstreams_open == 8).await;
        eventually("the limit is used", || server.calls.load(std::sync::atomic::Ordering::Relaxed) == 24)
            .await;
        for (answer, mut send) in streams {
            send.send_data(Bytes::from_static(b"done"), true).unwrap();
            assert_eq!(answer.await.unwrap().unwrap().body, b"done");
        }
        drop(client);
        path.quiesce().await;
        assert_eq!(path.workers.counters().own_errors, 0);
    });
}

#[test]
fn a_pods_destination_rides_in_the_address_it_dialled() {
    run(async {
        let (_servers, addresses) = servers(2).await;
        let pod = pod();
        let path = Path::with_source(&addresses, 2, Source::Pod(pod.clone()), "0.0.0.0");
        let address = SocketAddr::new(fixed().to_loopback().into(), path.address.port());
        let client = Client::connect(address).await;
        assert_eq!(client.call("/echo", Bytes::from_static(b"x")).await.unwrap().body, b"x");
        assert_eq!((path.workers.pod_connections(&pod.key), path.workers.connections(fixed())), (1, 1));
        // An id that nobody knows.
        let unknown =
            SocketAddr::new(DestinationId::new(8).unwrap().to_loopback().into(), path.address.port());
        let connect_and_read = async {
            let mut stream = tokio::net::TcpStream::connect(unknown).await?;
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 8]).await
        };
        let error = connect_and_read.await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        // The pod ends: so do its connections.
        let (response, _send) = client.start("/hang", "application/grpc", &[], true).await;
        path.workers.unlisten(path.listener, true);
        assert!(response.await.is_err());
        path.quiesce().await;
        eventually("its connections to servers go too", || path.workers.counters().upstreams_open == 0).await;
        assert!(std::net::TcpStream::connect(address).is_err());
    });
}

#[test]
fn a_pods_next_connection_is_served_by_another_worker_while_its_home_is_busy() {
    run(async {
        let (_servers, addresses) = servers(1).await;
        let path = Path::with_source(&addresses, 2, Source::Pod(pod()), "0.0.0.0");
        let address = SocketAddr::new(fixed().to_loopback().into(), path.address.port());
        let mailboxes = &path.workers.shared.mailboxes;
        let connections = |worker: usize| mailboxes[worker].connections.load(Relaxed);
        let first = Client::connect(address).await;
        first.call("/echo", Bytes::from_static(b"x")).await.unwrap();
        let home = usize::from(connections(1) == 1);
        let mut clients = vec![first];
        // The workers say how busy they are ten times a second: one of these times the connection comes in between.
        while connections(1 - home) == 0 {
            mailboxes[home].busy_permille.store(1_000, Relaxed);
            mailboxes[1 - home].busy_permille.store(0, Relaxed);
            let client = Client::connect(address).await;
            let answer = client.call("/echo", Bytes::from_static(b"y")).await.unwrap();
            assert_eq!(answer.body, b"y");
            clients.push(client);
        }
        // Its end is the pod's.
        path.workers.unlisten(path.listener, true);
        path.quiesce().await;
        assert_eq!((connections(0), connections(1)), (0, 0));
    });
}

#[test]
fn what_the_kernel_holds_for_a_client_that_does_not_read_is_charged_to_its_pod_until_it_goes() {
    run(async {
        let (_servers, addresses) = servers(1).await;
        let pod = pod();
        let path = Path::with_source(&addresses, 1, Source::Pod(pod.clone()), "0.0.0.0");
        let address = SocketAddr::new(fixed().to_loopback().into(), path.address.port());
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let limits = Limits { stream_window: 8 << 20, ..Limits::default() };
        let mut http2 = Connection::client(&limits);
        let request = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/produce"),
            ("content-type", "application/grpc"),
        ];
        let stream = http2.open(&list(&request), false, 0).unwrap();
        http2.send_data(stream, b"30000000", true);
        client.write_all(&take(&mut http2)).await.unwrap();
        let held = || path.workers.pod_memory(&pod.key).0;
        // What the agent itself holds of it is less: 256 KiB of output, and a stream's first window.
        eventually("the kernel's part is counted", || held() > 400 << 10).await;
        assert!(held() < 16 << 20, "{} bytes", held());
        drop(client);
        path.quiesce().await;
        path.workers.unlisten(path.listener, true);
        eventually("nothing is held for it", || held() == 0).await;
    });
}
