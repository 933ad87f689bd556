//! The local HTTP endpoints: what is true now ([`routes()`]), for people and programs on the node, and the probes
//! ([`probes()`]) and the metrics ([`metrics()`]) on ports of their own.

mod metrics;
mod probes;
mod routes;

pub use metrics::{NumbersWanted, calls, metrics, scrapes};
pub use probes::{Readiness, probes};
pub use routes::{Page, Question, questions, routes};

use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tracing::warn;

/// Binds an endpoint; `name` is what it is called in the message where that fails.
pub async fn bind(name: &str, flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for {name}: choose another with {flag}"))
}

/// Serves until the runtime ends.
pub fn serve(name: &'static str, listener: TcpListener, router: axum::Router) {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            warn!(%error, "the {name} endpoint ended");
        }
    });
}
