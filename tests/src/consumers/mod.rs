//! Programs of others that read what the agent tells: Prometheus with its `promtool`, and Jaeger. They run on the cluster's node, on
//! loopback alone.
//!
//! [`promql`] says what a query asks for, so that a name that nobody counts is found before a person misses it.

mod jaeger;
mod prometheus;
pub mod promql;
mod promtool;

pub use jaeger::{Jaeger, Span};
pub use prometheus::{Instant, Prometheus, Sample, Series};
pub use promtool::promtool;

use crate::agent::{connect, exchange};
use crate::host::{binaries, existing};
use crate::netns::Netns;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A program of one of them: in the folder that the variable names, or where `cargo xtask test` links it below the target folder.
fn program(variable: &str, link: &str, name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os(variable) {
        Some(folder) => PathBuf::from(folder),
        None => binaries()?.parent().context("binaries stand below target/")?.join(link),
    };
    existing(&folder.join(name), "`cargo xtask test --test consumers` brings it")
}

/// The JSON that a server in that namespace has at a path.
fn json(netns: &Netns, address: SocketAddr, path: &str) -> Result<Value> {
    // Of HTTP/1.0, whose answers come in one piece.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let answer = netns.enter(|| exchange(connect(address)?, &request))??;
    let body = answer.body;
    ensure!(answer.status == 200, "{path}: {} {body}", answer.status);
    serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))
}

/// A value as a part of a URL's query.
fn encoded(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
