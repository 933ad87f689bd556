//! How calls end, and which ends are failures: one definition for all that counts and shows them.

use super::{Flag, grpc_code_name};
use std::borrow::Cow;

/// How calls ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Status {
    /// They are gRPC calls.
    pub is_grpc: bool,
    /// `:status`, be it of the agent's own answer; 0 where none had begun.
    pub http: u16,
    /// Of gRPC calls, the `grpc-status` as their clients understand the end; `None`: they did not wait for it.
    pub grpc: Option<u8>,
    /// What went wrong.
    pub flag: Flag,
}

impl Status {
    /// `:status`, where an answer had begun.
    pub fn http_code(self) -> Option<u16> {
        (self.http > 0).then_some(self.http)
    }

    /// Whether such calls count as errors where those alone are told: something went wrong, or the status is not OK, or, without gRPC, from
    /// 400 on.
    pub fn is_error(self) -> bool {
        self.flag != Flag::None || self.grpc.is_some_and(|code| code != 0) || self.http >= 400
    }

    /// Whether such calls failed: a server failed them, or they got no server's answer. A call that its client gave up, or ended by a
    /// fault of its own, did not fail; nor did one that was answered with what the server thinks of the request (NOT_FOUND, …).
    pub fn is_failure(self) -> bool {
        match (self.flag, self.grpc) {
            (Flag::None, Some(code)) => is_grpc_failure(code),
            (Flag::None, None) => is_http_failure(self.http),
            (flag, _) => !flag.is_of_client(),
        }
    }

    /// The name of a gRPC call's status. A client that did not wait for one has cancelled.
    pub fn code_name(self) -> &'static str {
        self.grpc.map_or("CANCELLED", grpc_code_name)
    }

    /// OpenTelemetry's `error.type`, in metrics and in spans: a server's status, where it came with one that is an error, else what the agent
    /// knows of the cause (<https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/>,
    /// <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).
    pub fn error_type(self) -> Option<Cow<'static, str>> {
        match (self.flag, self.is_grpc) {
            (_, true) if self.grpc == Some(0) => None,
            (Flag::None, true) => Some(self.code_name().into()),
            (Flag::None, false) => (self.http >= 400).then(|| self.http.to_string().into()),
            (flag, _) => Some(flag.name().into()),
        }
    }
}

/// The status of an endpoint, or a caller's quota, that is used up: a failed call, for which nobody is ejected.
pub const RESOURCE_EXHAUSTED: u8 = 8;

/// Whether a `grpc-status` says that the server, and not the request, was at fault: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
/// INTERNAL, UNAVAILABLE, DATA_LOSS.
pub fn is_grpc_failure(code: u8) -> bool {
    matches!(code, 2 | 4 | RESOURCE_EXHAUSTED | 13 | 14 | 15)
}

/// Whether a `:status` says so.
pub fn is_http_failure(status: u16) -> bool {
    (500..600).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errors_type_is_the_servers_status_or_the_agents_word() {
        for (is_grpc, http, grpc, flag, expected) in [
            (true, 200, Some(0), Flag::None, None),
            (true, 200, Some(5), Flag::None, Some("NOT_FOUND")),
            (true, 200, Some(14), Flag::NoEndpoint, Some("no_endpoint")),
            (true, 0, None, Flag::ClientCancelled, Some("client_cancelled")),
            (true, 200, Some(99), Flag::None, Some("UNKNOWN")),
            (false, 204, None, Flag::None, None),
            (false, 404, None, Flag::None, Some("404")),
            (false, 502, None, Flag::ServerReset, Some("server_reset")),
            (false, 200, None, Flag::ServerLost, Some("server_lost")),
        ] {
            let status = Status { is_grpc, http, grpc, flag };
            assert_eq!(status.error_type().as_deref(), expected, "{status:?}");
        }
    }

    #[test]
    fn a_call_failed_if_its_server_did_or_if_it_had_none() {
        for (is_grpc, http, grpc, flag, expected) in [
            (true, 200, Some(0), Flag::None, false),
            // What a server thinks of the request.
            (true, 200, Some(5), Flag::None, false),
            (true, 200, Some(16), Flag::None, false),
            (true, 200, Some(1), Flag::None, false),
            (true, 200, Some(14), Flag::None, true),
            (true, 200, Some(8), Flag::None, true),
            (true, 200, Some(14), Flag::NoEndpoint, true),
            (true, 200, Some(12), Flag::NoRoute, true),
            (true, 200, Some(4), Flag::Deadline, true),
            (true, 0, None, Flag::Deadline, true),
            (true, 0, None, Flag::ClientCancelled, false),
            (true, 200, None, Flag::ClientGone, false),
            (true, 200, Some(13), Flag::ClientFault, false),
            (false, 404, None, Flag::None, false),
            (false, 503, None, Flag::None, true),
            (false, 200, None, Flag::ServerLost, true),
        ] {
            let status = Status { is_grpc, http, grpc, flag };
            assert_eq!(status.is_failure(), expected, "{status:?}");
        }
    }

    #[test]
    fn whatever_is_not_ok_is_an_error_though_no_server_failed() {
        for (is_grpc, http, grpc, flag, expected) in [
            (true, 200, Some(0), Flag::None, false),
            (true, 200, Some(5), Flag::None, true),
            (true, 200, Some(0), Flag::ClientGone, true),
            (true, 0, None, Flag::ClientCancelled, true),
            (false, 200, None, Flag::None, false),
            (false, 404, None, Flag::None, true),
            (false, 0, None, Flag::ServerLost, true),
        ] {
            let status = Status { is_grpc, http, grpc, flag };
            assert_eq!(status.is_error(), expected, "{status:?}");
        }
    }
}
