//! What is counted: `/metrics` as text for Prometheus, and `/calls` as rows for programs. Both are made here, on the endpoint's own side:
//! calls' counts are read where the worker threads write them, and the control loop is asked for no more than its numbers.

use crate::telemetry::{Numbers, Telemetry, calls_view, scrape};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
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
) -> Response {
    let (answer, answered) = oneshot::channel();
    if numbers.try_send(answer).is_err() {
        return busy();
    }
    let Ok(Ok(numbers)) = timeout(NUMBERS_WITHIN, answered).await else { return busy() };
    match spawn_blocking(move || scrape(&numbers, &telemetry)).await {
        Ok(text) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(_) => busy(),
    }
}

/// The route of `/calls`.
pub fn calls(telemetry: Arc<Telemetry>) -> Router {
    let show = |State(telemetry): State<Arc<Telemetry>>| async move {
        match spawn_blocking(move || calls_view(&telemetry)).await {
            Ok(rows) => Json(rows).into_response(),
            Err(_) => busy(),
        }
    };
    Router::new().route("/calls", get(show)).with_state(telemetry)
}

fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the agent is starting, stopping or busy: ask again\n").into_response()
}
