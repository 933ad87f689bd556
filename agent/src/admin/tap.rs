//! `/tap`: calls as they end. Nothing is kept for it, and nobody is told of any call, but for as long as somebody reads.
//!
//! Where no call comes, an empty line does from time to time: it says that the agent lives, keeps forwarders from taking the connection for
//! an idle one, and finds out who has gone without a word, whose filter each call would be held against for ever.

use super::accept::{Form, NDJSON};
use super::filter::Filter;
use super::refusal::Refusal;
use crate::telemetry::access_log::text_line;
use crate::telemetry::{Audience, CallRecord, OpenTap, PAUSE, json_line};
use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Frame;
use schemars::JsonSchema;
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Records that are sent in one go.
const BATCH: usize = 256;

/// An answer says something as often as this: half of what the most impatient of usual forwarders allow an idle connection (60 s).
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(30);

/// What is said to people where there is no call; programs get an empty line, which readers of JSON lines pass over.
const NO_CALL: &str = "… no such call meanwhile";

/// A line of the answer.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum TapLine {
    /// A call that is over.
    Call(Box<CallRecord>),
    /// What is not told.
    Dropped(Dropped),
}

/// Calls that are not told: they ended faster than this answer is read.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Dropped {
    /// How many, since the last such line.
    dropped: u64,
}

/// An answer that goes on until who asked goes away, or has what it asked for.
pub(super) fn answer(audience: &Arc<Audience>, filter: Filter, form: Form) -> Result<Response, Refusal> {
    let (left, with_headers) = (filter.records, filter.with_headers);
    let tap = audience.tap(filter.of_tap(), with_headers);
    let tap = tap.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let media_type = match form {
        Form::Json => NDJSON,
        Form::Text => "text/plain; charset=utf-8",
    };
    let lines = TapBody::new(tap, form, left, SIGN_OF_LIFE_EVERY);
    Ok(([(CONTENT_TYPE, media_type)], Body::new(lines)).into_response())
}

/// The lines. When the connection ends, this is dropped, and the tap with it.
struct TapBody {
    tap: OpenTap,
    form: Form,
    /// Calls until its end, if it has one.
    left: Option<usize>,
    batch: Vec<CallRecord>,
    told_drops: u64,
    /// Since the last lines went out.
    pause: Option<Pin<Box<Sleep>>>,
    /// As long as nothing else is said.
    sign_of_life: Pin<Box<Sleep>>,
    sign_of_life_every: Duration,
}

impl TapBody {
    fn new(tap: OpenTap, form: Form, left: Option<usize>, sign_of_life_every: Duration) -> Self {
        let sign_of_life = Box::pin(sleep(sign_of_life_every));
        Self {
            tap,
            form,
            left,
            batch: Vec::new(),
            told_drops: 0,
            pause: None,
            sign_of_life,
            sign_of_life_every,
        }
    }

    fn lines(&mut self) -> String {
        let mut text = String::new();
        for record in self.batch.drain(..) {
            text.push_str(&match self.form {
                Form::Json => json_line(&TapLine::Call(Box::new(record))),
                Form::Text => text_line(&record),
            });
            text.push('\n');
        }
        let all_dropped = self.tap.dropped();
        let dropped = all_dropped - std::mem::replace(&mut self.told_drops, all_dropped);
        if dropped > 0 {
            text.push_str(&match self.form {
                Form::Json => json_line(&TapLine::Dropped(Dropped { dropped })),
                Form::Text => format!("… {dropped} calls are not told: they ended faster than this is read"),
            });
            text.push('\n');
        }
        text
    }
}

impl HttpBody for TapBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.left == Some(0) {
            return Poll::Ready(None);
        }
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        let most = this.left.map_or(BATCH, |left| left.min(BATCH));
        let taken = match this.tap.poll_next(context, &mut this.batch, most) {
            Poll::Ready(taken) => taken,
            Poll::Pending => {
                ready!(this.sign_of_life.as_mut().poll(context));
                this.sign_of_life.as_mut().reset(Instant::now() + this.sign_of_life_every);
                let line = match this.form {
                    Form::Json => "\n".to_owned(),
                    Form::Text => format!("{NO_CALL}\n"),
                };
                return Poll::Ready(Some(Ok(Frame::data(line.into()))));
            }
        };
        this.sign_of_life.as_mut().reset(Instant::now() + this.sign_of_life_every);
        let lines = this.lines();
        this.left = match (taken, this.left) {
            // The agent ends.
            (0, _) => Some(0),
            (_, left) => left.map(|left| left - taken),
        };
        if lines.is_empty() {
            return Poll::Ready(None);
        }
        this.pause = Some(Box::pin(sleep(PAUSE)));
        Poll::Ready(Some(Ok(Frame::data(lines.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic_ns;
    use crate::http2::FieldList;
    use crate::mesh::{ObjectName, ServicePort};
    use crate::telemetry::{CallEnd, CallStats, Flag, MOST_TAPS, Status};
    use axum::body::to_bytes;
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    fn tell(audience: &Audience, calls: usize, grpc_status: u8) {
        tell_at(audience, calls, grpc_status, monotonic_ns());
    }

    fn tell_at(audience: &Audience, calls: usize, grpc_status: u8, now_ns: u64) {
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50_051 };
        let mut request = FieldList::new();
        request.push(b":path", b"/shop.Cart/Add");
        request.push(b"authorization", b"Bearer hunter2");
        let end = CallEnd {
            source: None,
            service_port: &service_port,
            original: None,
            endpoint: None,
            method: "shop.Cart/Add",
            request: &request,
            stats: CallStats {
                status: Status { is_grpc: true, http: 200, grpc: Some(grpc_status), flag: Flag::None },
                began_ns: now_ns - 1_000_000,
                ended_ns: now_ns,
                ..CallStats::default()
            },
        };
        (0..calls).for_each(|_| audience.tell(&end, || 0.0));
    }

    async fn lines(response: Response) -> Vec<Value> {
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8_lossy(&bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn filter(status: Option<&str>, records: Option<usize>) -> Filter {
        let mut filter = Filter::default();
        (filter.records, filter.with_headers) = (records, true);
        filter.tap.status = status.map(|status| status.parse().unwrap());
        filter
    }

    #[tokio::test]
    async fn a_tap_shows_what_it_was_asked_for_and_ends_after_as_many_calls() {
        let audience = Arc::new(Audience::default());
        assert!(!audience.is_there());
        let response = answer(&audience, filter(Some("not-found"), Some(3)), Form::Json).unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], NDJSON);
        assert!(audience.is_there());
        tell(&audience, 4, 0);
        tell(&audience, 4, 5);
        let lines = lines(response).await;
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line["grpc_status_name"] == "NOT_FOUND"), "{lines:?}");
        assert_eq!(lines[0]["headers"][1], json!(["authorization", "***"]));
        assert!(!audience.is_there(), "nobody looks any more");
    }

    #[tokio::test]
    async fn who_reads_slowly_is_told_how_much_was_dropped_and_who_goes_frees_the_tap() {
        let audience = Arc::new(Audience::default());
        let mut response = answer(&audience, filter(None, None), Form::Json).unwrap();
        tell(&audience, 5_000, 0);
        let (mut told, mut dropped) = (0, 0);
        while told + dropped < 5_000 {
            let frame = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            for line in String::from_utf8_lossy(&frame).lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                match line["dropped"].as_u64() {
                    Some(more) => dropped += more,
                    None => told += 1,
                }
            }
        }
        assert!(told > 100 && dropped > 100 && told + dropped == 5_000, "{told} {dropped}");
        drop(response);
        assert!(!audience.is_there());
    }

    #[tokio::test]
    async fn there_are_so_many_taps_and_no_more_and_all_end_with_the_agent() {
        let audience = Arc::new(Audience::default());
        let open: Vec<_> =
            (0..MOST_TAPS).map(|_| answer(&audience, filter(None, None), Form::Text).unwrap()).collect();
        let refusal = answer(&audience, filter(None, None), Form::Text).unwrap_err();
        assert!(refusal.status == 503 && refusal.message.contains("8 taps"), "{refusal:?}");
        tell(&audience, 1, 0);
        audience.end_taps();
        for response in open {
            let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.lines().count() == 1 && text.contains(" OK - -> shop/cart:50051"), "{text}");
        }
        assert_eq!(audience.taps(), 0);
    }

    #[tokio::test]
    async fn where_no_call_comes_there_are_signs_of_life_which_are_no_calls() {
        for (form, sign) in [(Form::Json, "\n".to_owned()), (Form::Text, format!("{NO_CALL}\n"))] {
            let audience = Arc::new(Audience::default());
            let tap = audience.tap(filter(Some("not-found"), None).of_tap(), false).unwrap();
            let mut body = TapBody::new(tap, form, Some(1), Duration::from_millis(1));
            // Those that are not wanted end no silence.
            tell(&audience, 3, 0);
            for _ in 0..3 {
                let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!(frame, sign);
            }
            tell(&audience, 1, 5);
            let mut said = String::new();
            while let Some(frame) = body.frame().await {
                said.push_str(&String::from_utf8_lossy(&frame.unwrap().into_data().unwrap()));
            }
            assert!(said.contains("NOT_FOUND"), "the one call that was wanted: {said}");
        }
    }

    const MINUTE_NS: u64 = 60_000_000_000;

    #[tokio::test]
    async fn taps_that_nobody_reads_any_more_make_room_and_those_that_are_read_stay() {
        let audience = Arc::new(Audience::default());
        let open = || answer(&audience, filter(None, None), Form::Json);
        let (mut read, unread) = (open().unwrap(), open().unwrap());
        let asleep: Vec<_> = (2..MOST_TAPS).map(|_| open().unwrap()).collect();
        let began_ns = monotonic_ns();
        tell_at(&audience, 1, 0, began_ns);
        assert!(read.body_mut().frame().await.is_some());
        tell_at(&audience, 1, 0, began_ns + MINUTE_NS);
        assert_eq!(audience.taps(), MOST_TAPS, "nobody is away for longer than a minute");
        tell_at(&audience, 1, 0, began_ns + MINUTE_NS + 1);
        assert_eq!(audience.taps(), 1);
        let _ninth = open().unwrap();
        // Who comes back is told what was not kept, and that it is over.
        drop(asleep);
        assert_eq!(lines(unread).await, [json!({ "dropped": 3 })]);
        // What had come meanwhile is there.
        let frame = read.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(String::from_utf8_lossy(&frame).lines().count(), 2);
    }

    #[tokio::test]
    async fn taps_whose_calls_have_ceased_make_room_as_well() {
        let audience = Arc::new(Audience::default());
        let open = || answer(&audience, filter(None, None), Form::Json);
        let asleep: Vec<_> = (0..MOST_TAPS).map(|_| open().unwrap()).collect();
        // As if that had been more than a minute ago.
        tell_at(&audience, 1, 0, monotonic_ns() - MINUTE_NS - MINUTE_NS);
        assert!(open().is_ok());
        drop(asleep);
    }
}
