//! What is not HTTP/2.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a tunnel's server gets: the connection, once.
async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_hundred_megabytes_each_way_and_each_end_by_itself() {
    run(async {
        const SIZE: usize = 100 << 20;
        let (listener, address) = server().await;
        let path = Path::start(&[address]);
        let mut client = TcpStream::connect(path.address).await.unwrap();
        // A TLS ClientHello's beginning.
        client.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut start = [0; 6];
        server.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"\x16\x03\x01\x02\x00\x01");
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        async fn produce(mut to: tokio::net::tcp::OwnedWriteHalf) {
            let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
            for _ in 0..SIZE >> 20 {
                to.write_all(&block).await.unwrap();
            }
            to.shutdown().await.unwrap();
        }
        async fn consume(mut from: tokio::net::tcp::OwnedReadHalf) {
            let (mut total, mut block) = (0usize, vec![0; 1 << 16]);
            loop {
                let size = from.read(&mut block).await.unwrap();
                if size == 0 {
                    break;
                }
                for (i, byte) in block[..size].iter().enumerate() {
                    assert_eq!(*byte, ((total + i) % (1 << 20) % 251) as u8, "byte {}", total + i);
                }
                total += size;
            }
            assert_eq!(total, SIZE);
        }
        tokio::join!(
            produce(client_write),
            produce(server_write),
            consume(client_read),
            consume(server_read)
        );
        path.quiesce().await;
    });
}

#[test]
fn a_half_that_has_ended_leaves_the_other_open() {
    run(async {
        let (listener, address) = server().await;
        let path = Path::start(&[address]);
        let mut client = TcpStream::connect(path.address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        server.read_to_end(&mut request).await.unwrap();
        assert_eq!(request, b"GET / HTTP/1.1\r\n\r\n");
        server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 204 No Content\r\n\r\n");
        path.quiesce().await;
    });
}

#[test]
fn a_silent_client_hears_a_server_that_speaks_first() {
    run(async {
        let (listener, address) = server().await;
        let path = Path::start(&[address]);
        let mut client = TcpStream::connect(path.address).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"220 mail.example\r\n").await.unwrap();
        let mut greeting = [0; 18];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 mail.example\r\n");
        drop((client, server));
        path.quiesce().await;
    });
}

#[test]
fn the_first_byte_that_differs_from_the_preface_decides() {
    run(async {
        for start in [&b"P"[..], b"PRI * HTTP/1.1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"] {
            let (listener, address) = server().await;
            let path = Path::start(&[address]);
            let mut client = TcpStream::connect(path.address).await.unwrap();
            for byte in start {
                client.write_all(&[*byte]).await.unwrap();
            }
            client.shutdown().await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, start);
        }
    });
}

#[test]
fn a_reset_and_a_refusal_reach_the_client_as_a_reset() {
    run(async {
        let (listener, address) = server().await;
        let path = Path::start(&[address]);
        let mut client = TcpStream::connect(path.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        // Closed with bytes unread: the kernel sends a reset.
        server.peek(&mut [0; 1]).await.unwrap();
        drop(server);
        let error = client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let (_socket, refusing) = refusing();
        path.publish(&[refusing], Picker::RoundRobin, path.address);
        let mut client = TcpStream::connect(path.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let error = client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        path.quiesce().await;
    });
}

#[test]
fn a_pods_tunnel_goes_to_the_address_it_dialled() {
    run(async {
        let (original, original_address) = server().await;
        let path = Path::with_source(&[], 1, Source::Pod(pod()), "0.0.0.0");
        path.publish(&["127.0.0.1:1".parse().unwrap()], Picker::RoundRobin, original_address);
        let address = SocketAddr::new(fixed().to_loopback().into(), path.address.port());
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (mut server, _) = original.accept().await.unwrap();
        let mut received = [0; 5];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"hello");
    });
}

#[test]
fn under_session_affinity_each_relayed_connection_of_evenkeel_proxy_is_a_source_of_its_own() {
    let mut turns = super::turns::Turns::new(&[1]);
    let endpoints = [1, 2, 3].map(super::turns::address);
    turns.engine.publish(snapshot(2, &endpoints, Picker::SourceHash, super::turns::address(100)));
    for _ in 0..60 {
        let client = turns.engine.accepted(super::super::Origin::Agent, fixed()).expect("it is known");
        turns.feed(client, b"GET / HTTP/1.1\r\n\r\n");
        turns.settle();
    }
    for endpoint in endpoints {
        let count = turns.dials.iter().filter(|(_, to)| *to == endpoint).count();
        assert!(count > 0, "none of 60 went to {endpoint}");
    }
}
