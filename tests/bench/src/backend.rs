//! A gRPC server that answers as the request asks, on the h2 crate.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener as StdListener};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Response, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::wire::{Order, PREFIX};

/// Windows that never make the proxy wait: what is measured is the proxy.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 64 << 20;
/// More than any scenario opens.
pub(crate) const CONCURRENT_STREAMS: u32 = 4096;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What its answers call it
    #[arg(long)]
    number: u8,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Serves until it is killed; its first line is its port.
pub(crate) fn run(options: &Options) -> Result<()> {
    let listener =
        StdListener::bind(options.listen).with_context(|| format!("cannot listen on {}", options.listen))?;
    listener.set_nonblocking(true)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?.port())?;
    stdout.flush()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(listener, options.number))
}

async fn serve(listener: StdListener, number: u8) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await.context("cannot accept")?;
        spawn_local(async move {
            // A client that goes away is nothing to tell.
            let _ = connection(socket, number).await;
        });
    }
}

async fn connection(socket: TcpStream, number: u8) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CONCURRENT_STREAMS)
        // The longest header that a scenario sends, with room.
        .max_header_list_size(16 << 10);
    let mut connection = builder.handshake::<_, Bytes>(socket).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        spawn_local(async move {
            // The load sees a call that failed.
            let _ = answer(request.into_body(), respond, number).await;
        });
    }
    Ok(())
}

async fn answer(mut body: RecvStream, mut respond: SendResponse<Bytes>, number: u8) -> Result<()> {
    let mut request = BytesMut::new();
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        body.flow_control().release_capacity(bytes.len())?;
        request.extend_from_slice(&bytes);
    }
    let length = request.get(1..PREFIX).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    let order = Order::decode(&request).context("a request without an order")?;
    // A request that lost bytes on the way must not be answered as a good one.
    let is_whole = length.is_some_and(|length| request.len() == PREFIX + length as usize);

    let mut head = Response::new(());
    head.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(head, false)?;
    for message in 0..order.messages {
        stream.send_data(order.answer(number, message), false)?;
        if order.messages > 1 {
            // Messages of a stream come one by one, not in a block.
            tokio::task::yield_now().await;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if is_whole { "0" } else { "13" }));
    stream.send_trailers(trailers)?;
    Ok(())
}
