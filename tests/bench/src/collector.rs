//! Where a peer's spans go: an OTLP collector that takes all and keeps none.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// An ExportTraceServiceResponse without a word, as a gRPC message.
const TAKEN: &[u8] = &[0; 5];
/// The exporter never waits for a window.
const WINDOW: u32 = 16 << 20;

/// Listens, prints where, and serves until it is killed.
///
/// # Errors
/// If it cannot listen.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port on loopback")?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (socket, from) = listener.accept().await?;
            tokio::spawn(async move {
                if let Err(error) = serve(socket).await {
                    eprintln!("collector: {from}: {error:#}");
                }
            });
        }
    })
}

async fn serve(socket: TcpStream) -> Result<()> {
    let mut builder = server::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let mut connection = builder.handshake::<_, Bytes>(socket).await?;
    while let Some(call) = connection.accept().await {
        let (request, answer) = call?;
        tokio::spawn(async move {
            if let Err(error) = take(request, answer).await {
                eprintln!("collector: {error:#}");
            }
        });
    }
    Ok(())
}

async fn take(request: Request<h2::RecvStream>, mut answer: SendResponse<Bytes>) -> Result<()> {
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let headers = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = answer.send_response(headers, false)?;
    stream.send_data(Bytes::from_static(TAKEN), false)?;
    stream.send_trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]))?;
    Ok(())
}

/// The address of a collector that has said its port.
pub(crate) fn address(port: &str) -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, port.parse::<u16>().context("a collector's first line is its port")?).into())
}
