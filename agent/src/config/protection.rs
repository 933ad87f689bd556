//! The flags for what one source of calls may cost the node.

use crate::mesh::CircuitLimits;
use crate::mesh::protection::{MAX_CALLS, MAX_PENDING_CALLS, MAX_SERVER_CONNECTIONS};
use clap::Args;

/// The circuit breakers' flags, of both `agent` and `proxy`.
#[derive(Args, Clone, Debug)]
pub struct CircuitArgs {
    /// The most calls of a pod to a Service port that may be under way; beyond it they are answered UNAVAILABLE
    #[arg(long, env = "EVENKEEL_MAX_CALLS", value_name = "N", default_value_t = MAX_CALLS, value_parser = clap::value_parser!(u32).range(1..))]
    max_calls: u32,
    /// Of these, the most that may wait for an endpoint or for a stream to one
    #[arg(long, env = "EVENKEEL_MAX_PENDING_CALLS", value_name = "N", default_value_t = MAX_PENDING_CALLS, value_parser = clap::value_parser!(u32).range(1..))]
    max_pending_calls: u32,
    /// The most connections of a pod to the servers of a Service port
    #[arg(long, env = "EVENKEEL_MAX_SERVER_CONNECTIONS", value_name = "N", default_value_t = MAX_SERVER_CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    max_server_connections: u32,
}

impl CircuitArgs {
    /// As they are.
    pub(super) fn limits(&self) -> CircuitLimits {
        CircuitLimits {
            calls: self.max_calls,
            pending: self.max_pending_calls,
            connections: self.max_server_connections,
        }
    }
}

/// The least memory that a pod can be given: a connection each way, and a call or two.
const LEAST_MEMORY_BYTES: u64 = 1 << 20;

/// Bytes as Kubernetes writes them: a number alone, or with Ki, Mi or Gi.
pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.get(text.len().saturating_sub(2)..) {
        Some("Ki") => (&text[..text.len() - 2], 10),
        Some("Mi") => (&text[..text.len() - 2], 20),
        Some("Gi") => (&text[..text.len() - 2], 30),
        _ => (text, 0),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = digits.parse().ok().filter(|_| is_number).and_then(|n: u64| n.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= LEAST_MEMORY_BYTES => Ok(bytes),
        Some(_) => Err("expected 1Mi at least".into()),
        None => Err("expected bytes, as 134217728 or 128Mi".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::protection::{POD_MEMORY_BYTES, PROXY_MEMORY_BYTES};

    #[test]
    fn memory_is_written_as_kubernetes_writes_it() {
        for (text, expected) in [
            ("1048576", Some(1 << 20)),
            ("2048Ki", Some(2 << 20)),
            ("128Mi", Some(POD_MEMORY_BYTES)),
            ("1Gi", Some(PROXY_MEMORY_BYTES)),
            ("1023Ki", None),
            ("0", None),
            ("", None),
            ("Mi", None),
            ("-1Gi", None),
            ("+128Mi", None),
            ("1.5Gi", None),
            ("128MB", None),
            ("99999999999999Gi", None),
            ("1é", None),
        ] {
            assert_eq!(parse_memory(text).ok(), expected, "{text}");
        }
    }
}
