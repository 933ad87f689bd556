//! HAProxy: HTTP/2 on both sides, and upstream connections shared by all clients.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

pub(super) fn arguments<'c>(
    command: &'c mut Command,
    listen: SocketAddr,
    backends: &[SocketAddr],
    folder: &Path,
) -> Result<&'c mut Command> {
    let mut text = format!(
        "global
  nbthread 1
  maxconn 4096

defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always

frontend calls
  bind {listen} proto h2
  default_backend servers

backend servers
  balance roundrobin
"
    );
    for (number, backend) in backends.iter().enumerate() {
        writeln!(text, "  server s{number} {backend} proto h2")?;
    }
    let path = folder.join("haproxy.cfg");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(command.arg("-db").arg("-f").arg(path))
}
