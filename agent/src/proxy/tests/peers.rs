//! Servers and clients on the `h2` crate.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream, server};
use http::{HeaderMap, Request, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::{TcpListener, TcpStream};

/// A server on a port of its own; what it does is decided by the path.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) calls: Arc<AtomicUsize>,
    pub(super) cancelled: Arc<AtomicUsize>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(server::Builder::new()).await
    }

    pub(super) async fn with(builder: server::Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, cancelled) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let server = Self { address, calls: calls.clone(), cancelled: cancelled.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (builder, calls, cancelled) = (builder.clone(), calls.clone(), cancelled.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        calls.fetch_add(1, Relaxed);
                        tokio::spawn(serve(request, respond, address, cancelled.clone()));
                    }
                });
            }
        });
        server
    }
}

async fn serve(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    address: SocketAddr,
    cancelled: Arc<AtomicUsize>,
) {
    let path = request.uri().path().to_owned();
    let timeout = request.headers().get("grpc-timeout").cloned();
    let mut body = request.into_body();
    let mut headers = Response::builder().header("content-type", "application/grpc");
    headers = headers.header("x-server", address.to_string());
    if let Some(timeout) = timeout {
        headers = headers.header("x-timeout", timeout);
    }
    match path.as_str() {
        // Every piece comes back as it arrives: all four shapes of call.
        "/echo" => {
            let Ok(mut send) = respond.send_response(headers.body(()).unwrap(), false) else { return };
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                if send_all(&mut send, piece).await.is_err() {
                    cancelled.fetch_add(1, Relaxed);
                    return;
                }
            }
            let mut trailers = trailers("0");
            if let Ok(Some(theirs)) = body.trailers().await {
                trailers.extend(theirs);
            }
            let _ = send.send_trailers(trailers);
        }
        // A status before the request is through, and nothing else.
        "/trailers-only" => {
            let _ = respond.send_response(headers.header("grpc-status", "5").body(()).unwrap(), true);
        }
        // As many bytes as the client asks for.
        "/produce" => {
            let mut wanted = String::new();
            while let Some(Ok(piece)) = body.data().await {
                wanted.push_str(std::str::from_utf8(&piece).unwrap());
                let _ = body.flow_control().release_capacity(piece.len());
            }
            let Ok(mut send) = respond.send_response(headers.body(()).unwrap(), false) else { return };
            let mut left: usize = wanted.parse().unwrap();
            let mut at = 0u64;
            while left > 0 {
                let size = left.min(10_000);
                if send_all(&mut send, pattern(at, size)).await.is_err() {
                    cancelled.fetch_add(1, Relaxed);
                    return;
                }
                at += size as u64;
                left -= size;
            }
            let _ = send.send_trailers(trailers("0"));
        }
        "/reset-before" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        "/refuse" => respond.send_reset(h2::Reason::REFUSED_STREAM),
        "/reset-after" => {
            let Ok(mut send) = respond.send_response(headers.body(()).unwrap(), false) else { return };
            let _ = send_all(&mut send, Bytes::from_static(b"some")).await;
            while body.data().await.is_some() {}
            send.send_reset(h2::Reason::NO_ERROR);
        }
        // Until the client has enough.
        "/hang" => {
            let reason = std::future::poll_fn(|context| respond.poll_reset(context)).await;
            assert!(reason.is_ok());
            cancelled.fetch_add(1, Relaxed);
        }
        other => panic!("no such path: {other}"),
    }
}

fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers
}

/// Bytes that say where in the stream they belong.
pub(super) fn pattern(at: u64, size: usize) -> Bytes {
    (at..at + size as u64).map(|position| (position ^ (position >> 8) ^ (position >> 16)) as u8).collect()
}

pub(super) async fn send_all(send: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let granted = match send.capacity() {
            0 => match std::future::poll_fn(|context| send.poll_capacity(context)).await {
                Some(granted) => granted?,
                None => return Err(h2::Reason::CANCEL.into()),
            },
            granted => granted,
        };
        let size = granted.min(data.len());
        send.send_data(data.split_to(size), false)?;
    }
    Ok(())
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

impl Answer {
    /// `grpc-status`, from wherever it stands.
    pub(super) fn grpc_status(&self) -> Option<&str> {
        let status = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"));
        status.map(|status| status.to_str().unwrap())
    }

    pub(super) fn message(&self) -> &str {
        let message = self.trailers.get("grpc-message").or_else(|| self.headers.get("grpc-message"));
        message.map_or("", |message| message.to_str().unwrap())
    }

    pub(super) fn server(&self) -> &str {
        self.headers["x-server"].to_str().unwrap()
    }
}

#[derive(Clone)]
pub(super) struct Client(SendRequest<Bytes>);

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self(send)
    }

    pub(super) async fn start(
        &self,
        path: &str,
        content_type: &str,
        extra: &[(&str, &str)],
        end: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut request =
            Request::post(format!("http://cart.shop{path}")).header("content-type", content_type);
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        let mut ready = self.0.clone().ready().await.unwrap();
        ready.send_request(request.body(()).unwrap(), end).unwrap()
    }

    /// Whether a call can be begun at all.
    pub(super) async fn call_result(&self, path: &str) -> Result<(), h2::Error> {
        let request = Request::post(format!("http://cart.shop{path}")).body(()).unwrap();
        self.0.clone().ready().await?.send_request(request, true)?.0.await.map(drop)
    }

    /// A gRPC call with this body.
    pub(super) async fn call(&self, path: &str, body: Bytes) -> Result<Answer, h2::Error> {
        self.call_with(path, "application/grpc", &[], body).await
    }

    pub(super) async fn call_with(
        &self,
        path: &str,
        content_type: &str,
        extra: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, h2::Error> {
        let (response, mut send) = self.start(path, content_type, extra, body.is_empty()).await;
        let sending = async {
            // The server may answer before it has read everything.
            if !body.is_empty() && send_all(&mut send, body).await.is_ok() {
                let _ = send.send_data(Bytes::new(), true);
            }
        };
        let (_, answer) = tokio::join!(sending, read(response));
        answer
    }
}

pub(super) async fn read(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let response = response.await?;
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers })
}
