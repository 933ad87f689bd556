//! The gRPC server.

use crate::greeter::greeter_server::{Greeter, GreeterServer};
use crate::greeter::{HelloReply, HelloRequest};
use crate::peer::{MAX_MESSAGE_BYTES, asked_to_stop, pattern};
use anyhow::Result;
use clap::Args;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::KeyAndValueRef;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::ServiceExt as _;

/// Replies that wait for a slow reader.
const REPLIES_AHEAD: usize = 4;

/// Arguments of `peer serve`.
#[derive(Args)]
pub(super) struct Serve {
    #[arg(long)]
    listen: SocketAddr,
    /// What the replies call this server; in a pod, its name if nothing else is said.
    #[arg(long, env = "HOSTNAME")]
    name: String,
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    #[arg(long)]
    max_streams: Option<u32>,
    /// Says the fields of each call that begin so, as a line of JSON: a list of names and values.
    #[arg(long, value_name = "PREFIX")]
    tell_fields: Vec<String>,
    /// So many attempts of each call get UNAVAILABLE: those that `grpc-previous-rpc-attempts` says are its first.
    #[arg(long, default_value_t = 0)]
    fail_attempts: u32,
    /// Says GOAWAY on each connection with so many calls.
    #[arg(long)]
    calls_per_connection: Option<usize>,
}

impl Serve {
    pub(super) async fn run(self) -> Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        println!("ready {}", listener.local_addr()?);
        let named =
            Named { name: self.name, told: self.tell_fields.into(), fail_attempts: self.fail_attempts };
        let greeter = GreeterServer::new(named).max_decoding_message_size(MAX_MESSAGE_BYTES);
        if let Some(calls) = self.calls_per_connection {
            tokio::select! {
                ended = serve_in_portions(listener, greeter, calls) => ended?,
                _ = asked_to_stop() => {}
            }
            return Ok(());
        }
        tonic::transport::Server::builder()
            .max_concurrent_streams(self.max_streams)
            .add_service(greeter)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = asked_to_stop().await;
            })
            .await?;
        Ok(())
    }
}

/// Each connection is sent away with its last call of so many, in good order: whoever has calls begun on it gets their answers.
async fn serve_in_portions(listener: TcpListener, greeter: GreeterServer<Named>, calls: usize) -> Result<()> {
    loop {
        let (stream, remote_addr) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connected =
            TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(remote_addr) };
        let (begun, enough) = (AtomicUsize::new(0), Arc::new(Notify::new()));
        let (greeter, told) = (greeter.clone(), enough.clone());
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            if begun.fetch_add(1, Relaxed) + 1 == calls {
                told.notify_one();
            }
            let mut request = request.map(tonic::body::Body::new);
            request.extensions_mut().insert(connected.clone());
            greeter.clone().oneshot(request)
        });
        tokio::spawn(async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                _ = connection.as_mut() => {}
                () = enough.notified() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
}

#[derive(Clone)]
struct Named {
    name: String,
    /// Prefixes of the fields that are told.
    told: Arc<[String]>,
    fail_attempts: u32,
}

impl Named {
    fn reply(&self, peer: Option<IpAddr>, received: u32, request: &HelloRequest) -> HelloReply {
        HelloReply {
            server: self.name.clone(),
            peer: peer.map(|address| address.to_string()).unwrap_or_default(),
            received,
            payload: pattern(request.reply_bytes),
        }
    }
}

impl Named {
    /// What each call meets first. It is told before anything becomes of it, so that it is known of a server that is killed, too.
    fn begin<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.tell_fields(request);
        let previous = request.metadata().get("grpc-previous-rpc-attempts");
        let previous = previous.and_then(|previous| previous.to_str().ok()?.parse::<u32>().ok());
        if previous.unwrap_or(0) < self.fail_attempts {
            return Err(Status::unavailable("not yet"));
        }
        Ok(())
    }

    fn tell_fields<T>(&self, request: &Request<T>) {
        if self.told.is_empty() {
            return;
        }
        let is_told = |name: &str| self.told.iter().any(|prefix| name.starts_with(prefix.as_str()));
        let fields: Vec<_> = request
            .metadata()
            .iter()
            .filter_map(|field| match field {
                KeyAndValueRef::Ascii(name, value) if is_told(name.as_str()) => {
                    Some((name.as_str(), value.to_str().unwrap_or_default()))
                }
                _ => None,
            })
            .collect();
        println!("fields {}", serde_json::json!(fields));
    }
}

/// Over a dual-stack listener an IPv4 client has a mapped address.
fn peer_of<T>(request: &Request<T>) -> Option<IpAddr> {
    request.remote_addr().map(|address| address.ip().to_canonical())
}

async fn hold(request: &HelloRequest) {
    if request.hold_milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(request.hold_milliseconds.into())).await;
    }
}

#[tonic::async_trait]
impl Greeter for Named {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let peer = peer_of(&request);
        self.begin(&request)?;
        let request = request.into_inner();
        hold(&request).await;
        if request.fail_with != 0 {
            return Err(Status::new(Code::from_i32(request.fail_with), "as asked for"));
        }
        Ok(Response::new(self.reply(peer, 1, &request)))
    }

    async fn upload(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        let peer = peer_of(&request);
        self.begin(&request)?;
        let mut stream = request.into_inner();
        let mut last = HelloRequest::default();
        let mut received = 0;
        while let Some(message) = stream.message().await? {
            received += 1;
            last = message;
        }
        hold(&last).await;
        Ok(Response::new(self.reply(peer, received, &last)))
    }

    type DownloadStream = ReceiverStream<Result<HelloReply, Status>>;

    async fn download(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let peer = peer_of(&request);
        self.begin(&request)?;
        let request = request.into_inner();
        let (replies, stream) = mpsc::channel(REPLIES_AHEAD);
        let reply = self.reply(peer, 1, &request);
        tokio::spawn(async move {
            for _ in 0..request.replies {
                hold(&request).await;
                if replies.send(Ok(reply.clone())).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type ChatStream = ReceiverStream<Result<HelloReply, Status>>;

    async fn chat(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        let peer = peer_of(&request);
        self.begin(&request)?;
        let mut stream = request.into_inner();
        let (replies, answers) = mpsc::channel(REPLIES_AHEAD);
        let server = self.clone();
        tokio::spawn(async move {
            let mut received = 0;
            while let Some(message) = stream.next().await {
                received += 1;
                let reply = match message {
                    Ok(message) => {
                        hold(&message).await;
                        Ok(server.reply(peer, received, &message))
                    }
                    Err(status) => Err(status),
                };
                if replies.send(reply).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}
