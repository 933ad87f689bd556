//! `/readyz` and `/livez`, for the kubelet.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether this agent serves: all pods of the node that should be are enrolled by it, and it is not about to stop.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says whether it is so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Relaxed);
    }

    /// Whether it is so.
    pub fn is_ready(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The probes' routes.
pub fn probes(readiness: Readiness) -> Router {
    Router::new()
        .route(
            "/readyz",
            get(move || async move {
                match readiness.is_ready() {
                    true => (StatusCode::OK, "ready\n"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n"),
                }
            }),
        )
        .route("/livez", get(|| async { "alive\n" }))
}
