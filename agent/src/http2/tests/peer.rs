//! Against the `h2` crate: its client with our server's role, our client's role with its server.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::wire::{list, pairs, request};
use crate::http2::{Connection, ErrorCode, Event, FieldList, HeadersKind, LastStream, Limits, StreamKey};

/// One turn of a connection's owner: write what there is, but read as soon as something comes.
async fn turn(
    connection: &mut Connection,
    socket: &mut DuplexStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let held = connection.restore(buffer);
    let (mut reader, mut writer) = tokio::io::split(socket);
    loop {
        let has_output = !connection.output().is_empty();
        tokio::select! {
            sent = writer.write(connection.output()), if has_output => connection.sent(sent?),
            came = reader.read(&mut buffer[held..]) => return Ok(held + came?),
        }
    }
}

/// A server that sends every body and every trailer back, on our layer.
async fn echo(mut socket: DuplexStream, limits: Limits) -> Connection {
    let mut connection = Connection::server(&limits);
    let (mut buffer, mut fields, mut progress) = (vec![0; 20_000], FieldList::new(), Vec::new());
    let mut seen = 0;
    loop {
        let Ok(length) = turn(&mut connection, &mut socket, &mut buffer).await else { return connection };
        let held = length;
        let mut input = &buffer[..length];
        let before = seen;
        while let Some(event) = connection.receive(&mut input, &mut fields).expect("h2 keeps to the protocol")
        {
            seen += 1;
            answer(&mut connection, &event, &fields);
        }
        let nothing_came = seen == before && input.len() == held;
        connection.keep(input);
        while connection.wants_advance() {
            progress.clear();
            connection.advance(&mut progress);
            for step in &progress {
                connection.grant(step.stream, step.bytes);
            }
        }
        if nothing_came && connection.output().is_empty() && is_over(&mut socket).await {
            return connection;
        }
    }
}

/// Whether the other end has closed; only asked when a read brought nothing to act on.
async fn is_over(socket: &mut DuplexStream) -> bool {
    matches!(tokio::time::timeout(std::time::Duration::ZERO, socket.read(&mut [])).await, Ok(Ok(0)))
}

fn answer(connection: &mut Connection, event: &Event<'_>, fields: &FieldList) {
    match *event {
        Event::Headers { stream, kind: HeadersKind::Request, end_stream, .. } => {
            match fields.find(crate::http2::Name::Path) {
                Some(b"/reset") => return connection.reset(stream, ErrorCode::EnhanceYourCalm),
                Some(b"/go-away") => connection.go_away(ErrorCode::NoError, LastStream::Seen),
                _ => {}
            }
            connection.send_headers(stream, &list(&[(":status", "103"), ("link", "x")]), false);
            connection.send_headers(stream, &list(&[(":status", "200"), ("content-type", "x")]), end_stream);
        }
        Event::Headers { stream, .. } => connection.send_trailers(stream, fields),
        Event::Data { stream, payload, end_stream, .. } => {
            let written = connection.send_data(stream, payload, end_stream);
            connection.grant(stream, written as u32);
        }
        _ => {}
    }
}

async fn collect(mut body: h2::RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        bytes.extend(part);
    }
    Ok((bytes, body.trailers().await?))
}

/// Sends a body as capacity comes.
async fn send_all(stream: &mut h2::SendStream<Bytes>, mut body: Bytes, end: bool) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let room = room.expect("open").expect("open").min(body.len());
        let last = end && room == body.len();
        stream.send_data(body.split_to(room), last).expect("open");
    }
}

fn numbered(length: usize) -> Bytes {
    (0..length).map(|i| (i / 7) as u8).collect::<Vec<_>>().into()
}

async fn client_of_the_crate(limits: Limits, window: u32) {
    let (ours, theirs) = tokio::io::duplex(10_000);
    let server = tokio::spawn(echo(ours, limits));
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window.max(65_535));
    let (client, mut connection) = builder.handshake::<_, Bytes>(theirs).await.expect("a handshake");
    let mut ping = connection.ping_pong().expect("the first one asked");
    let driver = tokio::spawn(connection);
    let mut calls = Vec::new();
    for length in [0, 1, 5, 1_000, 16_384, 65_535, 200_000] {
        let mut client = client.clone().ready().await.expect("open");
        calls.push(tokio::spawn(async move {
            let request =
                Request::post("http://host/echo").header("x-length", length).body(()).expect("valid");
            let (response, mut stream) = client.send_request(request, false).expect("open");
            let sender = tokio::spawn(async move {
                send_all(&mut stream, numbered(length), false).await;
                let mut trailers = HeaderMap::new();
                trailers.insert("x-length", length.into());
                stream.send_trailers(trailers).expect("open");
            });
            let response = response.await.expect("an answer");
            assert_eq!(response.status(), 200);
            let (body, trailers) = collect(response.into_body()).await.expect("a body");
            sender.await.expect("sent");
            assert!(body == numbered(length), "{length}: {} came back", body.len());
            assert_eq!(trailers.expect("trailers")["x-length"], length.to_string());
        }));
    }
    for call in calls {
        call.await.expect("every call is answered");
    }
    ping.ping(h2::Ping::opaque()).await.expect("answered");
    let mut client = client.ready().await.expect("open");
    let (response, _) =
        client.send_request(Request::get("http://host/reset").body(()).expect("valid"), true).expect("open");
    assert_eq!(response.await.expect_err("reset").reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    let mut client = client.ready().await.expect("open");
    let (response, _) = client
        .send_request(Request::get("http://host/go-away").body(()).expect("valid"), true)
        .expect("open");
    assert_eq!(response.await.expect("a stream that was let through").status(), 200);
    assert!(client.ready().await.is_err(), "the connection is going away");
    driver.await.expect("no panic").expect("a graceful end");
    drop(server);
}

#[tokio::test]
async fn the_crates_client_is_served() {
    client_of_the_crate(Limits::default(), 65_535).await;
}

#[tokio::test]
async fn the_crates_client_is_served_through_small_windows() {
    let limits = Limits {
        stream_window: 700,
        max_stream_window: 3_000,
        connection_window: 0,
        max_output: 1_000,
        ..Limits::default()
    };
    client_of_the_crate(limits, 900).await;
}

/// A server on the crate that sends bodies and trailers back; `/reset` is reset.
async fn crate_server(socket: DuplexStream, window: u32) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(window).max_concurrent_streams(4);
    let mut connection = builder.handshake::<_, Bytes>(socket).await.expect("a handshake");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if request.uri().path() == "/go-away" {
            connection.graceful_shutdown();
        }
        tokio::spawn(async move {
            if request.uri().path() == "/reset" {
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            let mut body = request.into_body();
            let mut stream = respond.send_response(Response::new(()), false).expect("open");
            while let Some(part) = body.data().await {
                let part = part.expect("open");
                body.flow_control().release_capacity(part.len()).expect("open");
                send_all(&mut stream, part, false).await;
            }
            let trailers = body.trailers().await.expect("open").unwrap_or_default();
            stream.send_trailers(trailers).expect("open");
        });
    }
}

/// What came of one call of ours.
#[derive(Default, Debug)]
struct Outcome {
    status: Option<String>,
    body: Vec<u8>,
    trailers: Option<Vec<(String, String)>>,
    reset: Option<ErrorCode>,
}

impl Outcome {
    fn is_over(&self) -> bool {
        self.trailers.is_some() || self.reset.is_some()
    }
}

/// Our client's role: bodies of these lengths, as many calls at once as the server allows.
async fn call_all(
    socket: &mut DuplexStream,
    limits: &Limits,
    paths: &[(&str, usize)],
) -> (Vec<Outcome>, Connection) {
    let mut connection = Connection::client(limits);
    let (mut buffer, mut fields, mut progress) = (vec![0; 20_000], FieldList::new(), Vec::new());
    let mut outcomes: Vec<Outcome> = paths.iter().map(|_| Outcome::default()).collect();
    let mut streams: HashMap<u32, StreamKey> = HashMap::new();
    let mut next = 0;
    let mut has_settings = false;
    while outcomes.iter().any(|outcome| !outcome.is_over()) {
        while has_settings && next < paths.len() && connection.can_open() {
            let (path, length) = paths[next];
            let stream = connection.open(&request(path), false, next as u32).expect("it can open");
            connection.send_data(stream, &numbered(length), false);
            connection.send_trailers(stream, &list(&[("x-length", &length.to_string())]));
            streams.insert(next as u32, stream);
            next += 1;
        }
        let length = turn(&mut connection, socket, &mut buffer).await.expect("an open socket");
        assert!(length > 0, "the server closed early: {outcomes:?}");
        let mut input = &buffer[..length];
        while let Some(event) = connection.receive(&mut input, &mut fields).expect("h2 keeps to the protocol")
        {
            match event {
                Event::Settings => has_settings = true,
                Event::Headers { token, kind: HeadersKind::Response, .. } => {
                    outcomes[token as usize].status = Some(pairs(&fields)[0].1.clone());
                }
                Event::Headers { stream, token, .. } => {
                    outcomes[token as usize].trailers = Some(pairs(&fields));
                    connection.release(stream);
                    streams.remove(&token);
                }
                Event::Data { stream, token, payload, .. } => {
                    outcomes[token as usize].body.extend_from_slice(payload);
                    connection.grant(stream, payload.len() as u32);
                }
                Event::Reset { stream, token, code, by_peer: true } => {
                    outcomes[token as usize].reset = Some(code);
                    connection.release(stream);
                    streams.remove(&token);
                }
                _ => {}
            }
        }
        connection.keep(input);
        while connection.wants_advance() {
            connection.advance(&mut progress);
        }
    }
    (outcomes, connection)
}

async fn server_of_the_crate(limits: Limits, window: u32) {
    let (mut ours, theirs) = tokio::io::duplex(10_000);
    let server = tokio::spawn(crate_server(theirs, window));
    let paths: Vec<_> = [0, 1, 5, 1_000, 16_384, 65_535, 200_000].map(|length| ("/echo", length)).into();
    let paths = [paths, vec![("/reset", 0), ("/echo", 3), ("/go-away", 3)]].concat();
    let (outcomes, connection) = call_all(&mut ours, &limits, &paths).await;
    for ((path, length), outcome) in paths.iter().zip(&outcomes) {
        if *path == "/reset" {
            assert_eq!(outcome.reset, Some(ErrorCode::RefusedStream));
            continue;
        }
        assert_eq!(outcome.status.as_deref(), Some("200"));
        assert!(outcome.body == numbered(*length), "{length}: {} came back", outcome.body.len());
        assert_eq!(outcome.trailers, Some(vec![("x-length".into(), length.to_string())]));
    }
    assert_eq!(connection.open_streams(), 0);
    drop(ours);
    server.await.expect("no panic");
}

#[tokio::test]
async fn the_crates_server_answers() {
    server_of_the_crate(Limits::default(), 65_535).await;
}

#[tokio::test]
async fn the_crates_server_answers_through_small_windows() {
    let limits = Limits {
        stream_window: 700,
        max_stream_window: 3_000,
        connection_window: 0,
        max_output: 1_000,
        ..Limits::default()
    };
    server_of_the_crate(limits, 900).await;
}
