//! The gRPC client: calls at a steady rate, each on a channel that stays.

use super::socket::SocketOptions;
use super::{MAX_MESSAGE_BYTES, asked_to_stop, pattern};
use crate::Tally;
use crate::greeter::greeter_client::GreeterClient;
use crate::greeter::{HelloReply, HelloRequest};
use anyhow::Result;
use clap::{Args, ValueEnum};
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// How often the tally is printed when it has changed.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// A call without an answer for so long is an error of its own: nothing in a test holds a call so long.
const NO_ANSWER: Duration = Duration::from_secs(30);

/// How long the server holds a call that is cancelled, and the latest moment of its cancellation.
const HOLD_UNTIL_CANCELLED_MS: u32 = 60_000;
const LATEST_CANCEL_MS: u64 = 20;

/// Messages of a streaming call.
const STREAM_MESSAGES: u32 = 5;

/// What kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One request, one reply.
    #[default]
    Unary,
    /// A stream of requests, one reply.
    Upload,
    /// One request, a stream of replies.
    Download,
    /// A reply for each request.
    Chat,
    /// All four in turn.
    Mixed,
}

/// Arguments of `peer load`.
#[derive(Args)]
// Suites give a usual rate first and then their own.
#[command(args_override_self = true)]
pub(super) struct Load {
    #[command(flatten)]
    socket: SocketOptions,
    /// Calls a second.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Ends after so many calls; otherwise when asked to stop.
    #[arg(long)]
    calls: Option<u64>,
    /// Channels, used in turn.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// The server waits so long before each reply.
    #[arg(long, default_value_t = 0)]
    hold_milliseconds: u32,
    #[arg(long, default_value_t = 0)]
    payload_bytes: u32,
    #[arg(long, default_value_t = 0)]
    reply_bytes: u32,
    /// The gRPC status that unary calls are to end with (0: a reply).
    #[arg(long, default_value_t = 0)]
    fail_with: i32,
    /// Begins no further call while so many are in flight: a machine that is slow must not make a test overload it.
    #[arg(long, default_value_t = usize::MAX)]
    in_flight: usize,
    /// Cancels each so many-th call while the server holds it (0: none).
    #[arg(long, default_value_t = 0)]
    cancel_every: u64,
    /// A header of each call, as `NAME=VALUE`; may be there several times. `{call}` in a value is its channel's number of the call, from 0 on in
    /// 16 hexadecimal digits.
    #[arg(long, value_parser = header)]
    header: Vec<Header>,
}

type Header = (AsciiMetadataKey, AsciiMetadataValue);

/// What stands for a call's number in a header's value.
const CALL: &str = "{call}";

fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let wrong = |_| format!("{text}: no header");
    Ok((name.parse().map_err(|_| format!("{name}: no name"))?, value.parse().map_err(wrong)?))
}

/// What each call carries beside its request.
#[derive(Clone)]
struct Headers {
    headers: Arc<[Header]>,
    /// Calls so far, of all clones.
    calls: Arc<AtomicU64>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let call = self.calls.fetch_add(1, Relaxed);
        for (name, value) in &*self.headers {
            let value = match value.to_str() {
                Ok(text) if text.contains(CALL) => text.replace(CALL, &format!("{call:016x}")).parse(),
                _ => Ok(value.clone()),
            };
            let value = value.map_err(|_| wrong("a header that is none"))?;
            request.metadata_mut().append(name.clone(), value);
        }
        Ok(request)
    }
}

type Greeter = GreeterClient<InterceptedService<Channel, Headers>>;

type Shared = Arc<Mutex<Tally>>;

fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    pub(super) async fn run(self) -> Result<()> {
        let tally = Shared::default();
        let headers = Arc::from(self.header.clone());
        let channel = |_| {
            let headers = Headers { headers: Arc::clone(&headers), calls: Arc::default() };
            GreeterClient::with_interceptor(self.channel(&tally), headers)
        };
        let clients: Vec<Greeter> = (0..self.connections.max(1))
            .map(channel)
            .map(|client| client.max_decoding_message_size(MAX_MESSAGE_BYTES))
            .collect();
        let request = HelloRequest {
            name: "peer".to_owned(),
            hold_milliseconds: self.hold_milliseconds,
            replies: STREAM_MESSAGES,
            reply_bytes: self.reply_bytes,
            payload: pattern(self.payload_bytes),
            fail_with: self.fail_with,
        };
        let start = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_secs(1) / self.rate.clamp(1, 1000));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut tell = tokio::time::interval(TELL_EVERY);
        let mut told = String::new();
        let mut calls = JoinSet::new();
        let mut begun = 0u64;
        let limit = self.calls.unwrap_or(u64::MAX);
        let stop = asked_to_stop();
        tokio::pin!(stop);
        while begun < limit {
            tokio::select! {
                _ = &mut stop => break,
                _ = tell.tick() => print_changed(&tally, &mut told)?,
                _ = tick.tick() => {
                    // At rates above the timer's resolution several are due at once.
                    let due = (start.elapsed().as_secs_f64() * f64::from(self.rate)) as u64 + 1;
                    while calls.try_join_next().is_some() {}
                    while begun < due.min(limit) && calls.len() < self.in_flight {
                        let client = clients[begun as usize % clients.len()].clone();
                        let (kind, tally) = (self.kind.of(begun), Arc::clone(&tally));
                        if self.cancel_every > 0 && begun.is_multiple_of(self.cancel_every) {
                            calls.spawn(cancelled_call(client, kind, request.clone(), begun, tally));
                        } else {
                            calls.spawn(call(client, kind, request.clone(), tally));
                        }
                        begun += 1;
                    }
                }
            }
        }
        println!("begun {begun}");
        loop {
            tokio::select! {
                ended = calls.join_next() => if ended.is_none() { break },
                _ = tell.tick() => print_changed(&tally, &mut told)?,
            }
        }
        print_changed(&tally, &mut told)?;
        println!("done {}", serde_json::to_string(&*lock(&tally))?);
        Ok(())
    }

    fn channel(&self, tally: &Shared) -> Channel {
        let socket = self.socket.clone();
        let tally = Arc::clone(tally);
        // The connector dials by itself: the name only fills `:authority`.
        Endpoint::from_static("http://greeter.shop:50051").connect_with_connector_lazy(tower::service_fn(
            move |_| {
                let socket = socket.clone();
                let tally = Arc::clone(&tally);
                async move {
                    let stream = tokio::task::spawn_blocking(move || socket.connect())
                        .await
                        .map_err(std::io::Error::other)?
                        .map_err(std::io::Error::other)?;
                    stream.set_nonblocking(true)?;
                    let stream = TcpStream::from_std(stream)?;
                    println!("connected {} from {}", stream.peer_addr()?, stream.local_addr()?);
                    lock(&tally).connections += 1;
                    Ok::<_, std::io::Error>(TokioIo::new(stream))
                }
            },
        ))
    }
}

impl Kind {
    fn of(self, number: u64) -> Self {
        match self {
            Self::Mixed => [Self::Unary, Self::Upload, Self::Download, Self::Chat][number as usize % 4],
            one => one,
        }
    }
}

fn print_changed(tally: &Shared, told: &mut String) -> Result<()> {
    let now = serde_json::to_string(&*lock(tally))?;
    if now != *told {
        println!("tally {now}");
        *told = now;
    }
    Ok(())
}

/// A call that the server would hold longer than the client waits: up to [`LATEST_CANCEL_MS`], so that some are cancelled before
/// they have left, and others with the server.
async fn cancelled_call(
    mut client: Greeter,
    kind: Kind,
    mut request: HelloRequest,
    number: u64,
    tally: Shared,
) {
    request.hold_milliseconds = HOLD_UNTIL_CANCELLED_MS;
    let patience = Duration::from_millis(number * 7 % LATEST_CANCEL_MS);
    match tokio::time::timeout(patience, speak(&mut client, kind, request)).await {
        Err(_) => lock(&tally).cancelled += 1,
        Ok(Ok(_)) => *lock(&tally).errors.entry("answered, and not held".to_owned()).or_default() += 1,
        Ok(Err(status)) => *lock(&tally).errors.entry(format!("{status}")).or_default() += 1,
    }
}

async fn call(mut client: Greeter, kind: Kind, request: HelloRequest, tally: Shared) {
    let answers = async {
        loop {
            match speak(&mut client, kind, request.clone()).await {
                Err(status) if never_left(&status) => {}
                answer => return answer,
            }
        }
    };
    let begun = Instant::now();
    let answer = tokio::time::timeout(NO_ANSWER, answers).await;
    let mut tally = lock(&tally);
    match answer {
        Ok(Ok(reply)) => {
            *tally.calls.entry(reply.server).or_default() += 1;
            *tally.seen_as.entry(reply.peer).or_default() += 1;
            tally.latencies.record(begun.elapsed());
        }
        Ok(Err(status)) => {
            let error = format!("{:?}: {}", status.code(), status.message());
            *tally.errors.entry(error).or_default() += 1;
        }
        Err(_) => *tally.errors.entry(format!("no answer in {NO_ANSWER:?}")).or_default() += 1,
    }
}

/// Whether hyper gave the request back unsent, as its connection closed before the request's turn came. hyper's own client sends it
/// on another connection; tonic makes an error of it, whoever the server is.
fn never_left(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn speak(client: &mut Greeter, kind: Kind, request: HelloRequest) -> Result<HelloReply, Status> {
    let reply_bytes = request.reply_bytes;
    match kind {
        Kind::Unary | Kind::Mixed => {
            let reply = client.say_hello(request).await?.into_inner();
            checked(reply, 1, reply_bytes)
        }
        Kind::Upload => {
            let messages = vec![request; STREAM_MESSAGES as usize];
            let reply = client.upload(tokio_stream::iter(messages)).await?.into_inner();
            checked(reply, STREAM_MESSAGES, reply_bytes)
        }
        Kind::Download => {
            let mut replies = client.download(request).await?.into_inner();
            let mut last = None;
            for _ in 0..STREAM_MESSAGES {
                let reply = replies.message().await?.ok_or_else(|| wrong("too few replies"))?;
                last = Some(checked(reply, 1, reply_bytes)?);
            }
            ended(replies.message().await?.as_ref())?;
            last.ok_or_else(|| wrong("no reply"))
        }
        Kind::Chat => {
            // A request leaves only when the reply to the one before has come.
            let (requests, outgoing) = tokio::sync::mpsc::channel(1);
            let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
            requests.send(request.clone()).await.map_err(|_| wrong("closed"))?;
            let mut replies = client.chat(outgoing).await?.into_inner();
            let mut last = None;
            for number in 1..=STREAM_MESSAGES {
                let reply = replies.message().await?.ok_or_else(|| wrong("too few replies"))?;
                last = Some(checked(reply, number, reply_bytes)?);
                if number < STREAM_MESSAGES && requests.send(request.clone()).await.is_err() {
                    // The call is over, and the status says why.
                    return Err(replies.message().await.err().unwrap_or_else(|| wrong("closed")));
                }
            }
            drop(requests);
            ended(replies.message().await?.as_ref())?;
            last.ok_or_else(|| wrong("no reply"))
        }
    }
}

fn checked(reply: HelloReply, received: u32, reply_bytes: u32) -> Result<HelloReply, Status> {
    if reply.received != received {
        return Err(wrong(&format!("the server received {} messages of {received}", reply.received)));
    }
    if reply.payload != pattern(reply_bytes) {
        return Err(wrong("the payload is not what was sent"));
    }
    Ok(reply)
}

fn ended(reply: Option<&HelloReply>) -> Result<(), Status> {
    match reply {
        None => Ok(()),
        Some(_) => Err(wrong("too many replies")),
    }
}

/// An error of the harness's own making: the answer is not the right one.
fn wrong(what: &str) -> Status {
    Status::data_loss(format!("wrong answer: {what}"))
}
