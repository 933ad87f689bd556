//! The gRPC client: calls at a steady rate, each on a channel that stays.

use super::call::{STREAM_MESSAGES, SeenCall, call};
use super::socket::SocketOptions;
use super::{MAX_MESSAGE_BYTES, asked_to_stop, pattern};
use crate::Tally;
use crate::greeter::HelloRequest;
use crate::greeter::greeter_client::GreeterClient;
use anyhow::Result;
use clap::{Args, ValueEnum};
use hyper_util::rt::TokioIo;
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
    /// A header of each call, as `NAME=VALUE`; may be there several times. `{call}` in a value is the call's number, from 0 on in 16
    /// hexadecimal digits.
    #[arg(long, value_parser = header)]
    header: Vec<Header>,
    /// Says how each call ended, as a line of JSON: a [`SeenCall`].
    #[arg(long)]
    tell_calls: bool,
}

type Header = (AsciiMetadataKey, AsciiMetadataValue);

/// What stands for a call's number in a header's value.
const CALL: &str = "{call}";

fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let wrong = |_| format!("{text}: no header");
    Ok((name.parse().map_err(|_| format!("{name}: no name"))?, value.parse().map_err(wrong)?))
}

/// What a call carries beside its request.
#[derive(Clone)]
pub(super) struct Headers {
    headers: Arc<[Header]>,
    call: u64,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &*self.headers {
            let value = match value.to_str() {
                Ok(text) if text.contains(CALL) => text.replace(CALL, &number(self.call)).parse(),
                _ => Ok(value.clone()),
            };
            let value = value.map_err(|_| Status::data_loss("a header that is none"))?;
            request.metadata_mut().append(name.clone(), value);
        }
        Ok(request)
    }
}

fn number(call: u64) -> String {
    format!("{call:016x}")
}

pub(super) type Greeter = GreeterClient<InterceptedService<Channel, Headers>>;

type Shared = Arc<Mutex<Tally>>;

fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    pub(super) async fn run(self) -> Result<()> {
        let tally = Shared::default();
        let headers: Arc<[Header]> = Arc::from(self.header.clone());
        let channels: Vec<Channel> = (0..self.connections.max(1)).map(|_| self.channel(&tally)).collect();
        let client = |call: u64| -> Greeter {
            let channel = channels[call as usize % channels.len()].clone();
            GreeterClient::with_interceptor(channel, Headers { headers: Arc::clone(&headers), call })
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
        };
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
                        let is_cancelled =
                            self.cancel_every > 0 && begun.is_multiple_of(self.cancel_every);
                        let (kind, cancels) = (self.kind.of(begun), is_cancelled.then_some(begun));
                        let call = call(client(begun), kind, request.clone(), cancels);
                        let (tally, told) = (Arc::clone(&tally), self.tell_calls.then(|| number(begun)));
                        calls.spawn(async move {
                            let (end, took) = call.await;
                            if let Some(call) = told {
                                println!("call {}", serde_json::json!(SeenCall { call, end: end.seen() }));
                            }
                            end.count(took, &mut lock(&tally));
                        });
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
