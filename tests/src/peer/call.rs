//! One call of the gRPC client, and how it ends.

use super::load::{Greeter, Kind};
use super::pattern;
use crate::Tally;
use crate::greeter::{HelloReply, HelloRequest};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// A call without an answer for so long is an error of its own: nothing in a test holds a call so long.
const NO_ANSWER: Duration = Duration::from_secs(100);

/// How long the server holds a call that is cancelled, and the latest moment of its cancellation.
const HOLD_UNTIL_CANCELLED_MS: u32 = 60_000;
const LATEST_CANCEL_MS: u64 = 20;

/// Messages of a streaming call.
pub(super) const STREAM_MESSAGES: u32 = 5;

/// A call, as its client saw it end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCall {
    /// Its number, as `{call}` has it.
    pub call: String,
    /// How it ended.
    pub end: SeenEnd,
}

/// How a call ended for its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeenEnd {
    /// With the right reply, of the server of that name.
    Answered(String),
    /// With this gRPC status and message.
    Failed(i32, String),
    /// The client cancelled it.
    Cancelled,
    /// The client has waited in vain.
    Unanswered,
}

/// A call's end, with all that its client knows of it.
pub(super) enum End {
    Answered(HelloReply),
    Failed(Status),
    Cancelled,
    /// A call that was to be cancelled.
    NotHeld,
    Unanswered,
}

impl End {
    pub(super) fn seen(&self) -> SeenEnd {
        match self {
            Self::Answered(reply) => SeenEnd::Answered(reply.server.clone()),
            Self::Failed(status) => SeenEnd::Failed(status.code().into(), status.message().to_owned()),
            Self::NotHeld => SeenEnd::Failed(Code::DataLoss.into(), NOT_HELD.to_owned()),
            Self::Cancelled => SeenEnd::Cancelled,
            Self::Unanswered => SeenEnd::Unanswered,
        }
    }

    pub(super) fn count(self, took: Duration, tally: &mut Tally) {
        let error = match self {
            Self::Answered(reply) => {
                *tally.calls.entry(reply.server).or_default() += 1;
                *tally.seen_as.entry(reply.peer).or_default() += 1;
                return tally.latencies.record(took);
            }
            Self::Cancelled => {
                tally.cancelled += 1;
                return;
            }
            Self::Failed(status) => format!("{:?}: {}", status.code(), status.message()),
            Self::NotHeld => NOT_HELD.to_owned(),
            Self::Unanswered => format!("no answer in {NO_ANSWER:?}"),
        };
        *tally.errors.entry(error).or_default() += 1;
    }
}

const NOT_HELD: &str = "answered, and not held";

/// Makes a call; how it ended, and how long it took. One that is to be cancelled, of which its number is given, the server would hold longer than the
/// client waits: up to [`LATEST_CANCEL_MS`], so that some are cancelled before they have left, and others with the server.
pub(super) async fn call(
    mut client: Greeter,
    kind: Kind,
    mut request: HelloRequest,
    cancelled: Option<u64>,
) -> (End, Duration) {
    let begun = Instant::now();
    if let Some(number) = cancelled {
        request.hold_milliseconds = HOLD_UNTIL_CANCELLED_MS;
        let patience = Duration::from_millis(number * 7 % LATEST_CANCEL_MS);
        let end = match tokio::time::timeout(patience, speak(&mut client, kind, request)).await {
            Err(_) => End::Cancelled,
            Ok(Ok(_)) => End::NotHeld,
            Ok(Err(status)) => End::Failed(status),
        };
        return (end, begun.elapsed());
    }
    let answers = async {
        loop {
            match speak(&mut client, kind, request.clone()).await {
                Err(status) if never_left(&status) => {}
                answer => return answer,
            }
        }
    };
    let end = match tokio::time::timeout(NO_ANSWER, answers).await {
        Ok(Ok(reply)) => End::Answered(reply),
        Ok(Err(status)) => End::Failed(status),
        Err(_) => End::Unanswered,
    };
    (end, begun.elapsed())
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
