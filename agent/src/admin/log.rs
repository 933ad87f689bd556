//! `/log`: what is logged, seen and changed.

use super::refusal::Refusal;
use crate::telemetry::log;
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;
use tokio::time::timeout;

/// A filter is some words long.
const MOST_FILTER_BYTES: usize = 4 << 10;

/// How long it may take to come: what sends it has it whole.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What is logged.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LogView {
    /// What is logged now.
    filter: String,
    /// What was logged at the start (`--log`), and will be again after a restart of the worker process.
    start_filter: String,
    /// What a change does not reach.
    not_reached: [&'static str; 2],
}

/// What is no part of this process, or settled when it started.
const NOT_REACHED: [&str; 2] = [
    "the keeper process, which goes by --log",
    "the kernel programs' line for each connection that is taken: they are loaded with it only where --log has evenkeel_ebpf=debug",
];

/// What is logged now.
pub(super) fn show() -> Result<LogView, Refusal> {
    let (filter, start_filter) = log::filter()
        .ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "this program has begun no log"))?;
    Ok(LogView { filter, start_filter, not_reached: NOT_REACHED })
}

/// Changes what is logged to what the request's body says.
pub(super) async fn change(body: Body) -> Result<LogView, Refusal> {
    let too_large = |_| {
        let message =
            format!("a filter has at most {MOST_FILTER_BYTES} bytes, as info,evenkeel::proxy=debug");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let body = timeout(BODY_WITHIN, to_bytes(body, MOST_FILTER_BYTES)).await;
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the filter does not come");
    let body = body.map_err(late)?.map_err(too_large)?;
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no filter: {why}"));
    let filter = std::str::from_utf8(&body).map_err(|error| bad(error.to_string()))?.trim();
    let before = log::filter().map(|(filter, _)| filter);
    log::set_filter(filter).map_err(|error| bad(error.to_string()))?;
    tracing::warn!(before, now = filter, "what is logged was changed at the admin endpoint");
    show()
}
