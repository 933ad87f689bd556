//! `/metrics`: what is counted, as text for Prometheus. It is made here, on the endpoint's own side: calls' counts are read where the worker
//! threads write them, and the control loop is asked for no more than its numbers.

use super::refusal::Refusal;
use crate::telemetry::{Numbers, ScrapeFormat, Telemetry, scrape};
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long a scrape may wait for the control loop's numbers: it is busy for milliseconds, or stuck.
const NUMBERS_WITHIN: Duration = Duration::from_secs(5);
/// Scrapes that wait for them; more are told to come again.
const WAITING_SCRAPES: usize = 16;

/// Where the control loop's numbers are to go; whoever asked may have gone.
pub type NumbersWanted = oneshot::Sender<Numbers>;

/// How scrapes ask the control loop.
pub fn scrapes() -> (mpsc::Sender<NumbersWanted>, mpsc::Receiver<NumbersWanted>) {
    mpsc::channel(WAITING_SCRAPES)
}

/// The metrics' routes.
pub fn metrics(numbers: mpsc::Sender<NumbersWanted>, telemetry: Arc<Telemetry>) -> Router {
    Router::new().route("/metrics", get(show_metrics)).with_state((numbers, telemetry))
}

async fn show_metrics(
    State((numbers, telemetry)): State<(mpsc::Sender<NumbersWanted>, Arc<Telemetry>)>,
    headers: HeaderMap,
) -> Response {
    let format = ScrapeFormat::accepted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    let (answer, answered) = oneshot::channel();
    if numbers.try_send(answer).is_err() {
        return Refusal::busy().into_response();
    }
    let Ok(Ok(numbers)) = timeout(NUMBERS_WITHIN, answered).await else {
        return Refusal::busy().into_response();
    };
    match spawn_blocking(move || scrape(&numbers, &telemetry, format)).await {
        Ok(text) => ([(CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => Refusal::busy().into_response(),
    }
}
