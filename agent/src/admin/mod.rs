//! The local HTTP endpoints: what is true now ([`routes()`]), for people and programs on the node, and the probes
//! ([`probes()`]) on a port of their own.
//!
//! A request meets [`guard`], which lets no web page ask; [`page`], the table of paths; [`filter`], its parameters; [`accept`], the
//! form of the answer; and [`routes`], which has it answered. [`refusal`] is the answer where that makes no sense; [`text`] makes
//! [`table`]s of an answer for people.

mod accept;
mod filter;
mod guard;
mod page;
mod probes;
mod refusal;
mod routes;
pub mod table;
mod text;

pub use accept::Form;
pub use filter::Filter;
pub use guard::Access;
pub use page::Page;
pub use probes::{Readiness, probes};
pub use routes::{Admin, Question, json, metrics, questions, routes};
pub use text::page_text;

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
