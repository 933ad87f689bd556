//! Envoy: one worker, circuit breakers out of the way, and nothing added to a call that costs and is not asked for.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Above what any scenario has under way.
const NO_LIMIT: u32 = 1_000_000;

pub(super) fn arguments<'c>(
    command: &'c mut Command,
    listen: SocketAddr,
    backends: &[SocketAddr],
    folder: &Path,
) -> Result<&'c mut Command> {
    let path = folder.join("envoy.json");
    let text = serde_json::to_string_pretty(&config(listen, backends))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(command
        .args(["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "--config-path"])
        .arg(path))
}

fn config(listen: SocketAddr, backends: &[SocketAddr]) -> Value {
    let endpoints: Vec<_> =
        backends.iter().map(|it| json!({ "endpoint": { "address": address(*it) } })).collect();
    let connection_manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "codec_type": "HTTP2",
        "generate_request_id": false,
        "stream_idle_timeout": "0s",
        "route_config": {
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "servers", "timeout": "0s" } }],
            }],
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    let http2 = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    let threshold = json!({
        "max_connections": NO_LIMIT,
        "max_pending_requests": NO_LIMIT,
        "max_requests": NO_LIMIT,
    });
    json!({
        "static_resources": {
            "listeners": [{
                "address": address(listen),
                "filter_chains": [{
                    "filters": [{
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": connection_manager,
                    }],
                }],
            }],
            "clusters": [{
                "name": "servers",
                "type": "STATIC",
                "lb_policy": "ROUND_ROBIN",
                "connect_timeout": "5s",
                "circuit_breakers": { "thresholds": [threshold] },
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
                },
                "load_assignment": { "cluster_name": "servers", "endpoints": [{ "lb_endpoints": endpoints }] },
            }],
        },
    })
}

fn address(of: SocketAddr) -> Value {
    json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } })
}
