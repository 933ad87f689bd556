//! What Evenkeel itself answers, when no server did: never silence.
//!
//! A gRPC call gets HTTP 200 with `grpc-status` and a `grpc-message` that names the cause and the Service, any other
//! request an HTTP status. After this, [`super::finish`] counts the call.

use super::call::Call;
use super::circuit::Breaker;
use super::target::Origin;
use crate::http2::{ErrorCode, FieldList};
use crate::mesh::ServicePort;
use crate::telemetry::Flag;
use std::fmt;
use std::net::SocketAddr;

/// Why a call got no answer from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The destination has no route for the request.
    NoRoute,
    /// The Service has no endpoint that could serve.
    NoEndpoint,
    /// Every endpoint tried refused the connection, or did not answer in time.
    Refused { last: SocketAddr, tried: u32 },
    /// The server reset the stream.
    Reset { by: SocketAddr, code: ErrorCode },
    /// The server broke HTTP/2's rules.
    Malformed { by: SocketAddr },
    /// The connection to the server was lost.
    Lost { to: SocketAddr },
    /// The call's own deadline passed.
    Deadline,
    /// The agent goes away and cannot wait any longer.
    Draining,
    /// A header list is larger than somebody takes.
    TooLarge(Oversized),
    /// A CONNECT request: there is nobody to connect to.
    Connect,
    /// The server does not read the request.
    Unread { by: SocketAddr },
    /// What the source may hold in memory is used up.
    Memory { limit: u64 },
    /// The source has as much under way to the Service as it may.
    Circuit { breaker: Breaker, limit: u32 },
}

/// Which header list is too large, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oversized {
    /// The request's, for the agent.
    Request { limit: u32 },
    /// The request's, for the server (its SETTINGS_MAX_HEADER_LIST_SIZE).
    RequestForServer { by: SocketAddr, limit: u32 },
    /// The response's or its trailers', for the agent.
    Response { by: SocketAddr },
    /// The response's or its trailers', for the client (its SETTINGS_MAX_HEADER_LIST_SIZE).
    ResponseForClient { by: SocketAddr, limit: u32 },
}

/// gRPC status codes that the agent gives.
mod grpc {
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const UNKNOWN: u8 = 2;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
}

impl Cause {
    /// The `grpc-status` of the answer.
    pub(super) fn grpc_status(self) -> u8 {
        match self {
            Self::NoRoute => grpc::UNIMPLEMENTED,
            Self::NoEndpoint
            | Self::Refused { .. }
            | Self::Lost { .. }
            | Self::Unread { .. }
            | Self::Circuit { .. }
            | Self::Draining => grpc::UNAVAILABLE,
            Self::Reset { code, .. } => status_of_reset(code),
            Self::Malformed { .. } => grpc::INTERNAL,
            Self::Deadline => grpc::DEADLINE_EXCEEDED,
            Self::TooLarge(_) | Self::Memory { .. } => grpc::RESOURCE_EXHAUSTED,
            Self::Connect => grpc::UNIMPLEMENTED,
        }
    }

    /// The HTTP status of an answer to a request that is not gRPC.
    pub(super) fn http_status(self) -> u16 {
        match self {
            Self::NoRoute => 404,
            Self::NoEndpoint
            | Self::Refused { .. }
            | Self::Memory { .. }
            | Self::Circuit { .. }
            | Self::Draining => 503,
            Self::Reset { .. } | Self::Malformed { .. } | Self::Lost { .. } | Self::Unread { .. } => 502,
            Self::Deadline => 504,
            Self::TooLarge(Oversized::Request { .. } | Oversized::RequestForServer { .. }) => 431,
            Self::TooLarge(Oversized::Response { .. } | Oversized::ResponseForClient { .. }) => 502,
            Self::Connect => 501,
        }
    }

    /// Its name among all that may go wrong.
    pub(super) fn flag(self) -> Flag {
        match self {
            Self::NoRoute => Flag::NoRoute,
            Self::NoEndpoint => Flag::NoEndpoint,
            Self::Refused { .. } => Flag::Refused,
            Self::Reset { .. } => Flag::ServerReset,
            Self::Malformed { .. } => Flag::ServerFault,
            Self::Lost { .. } => Flag::ServerLost,
            Self::Deadline => Flag::Deadline,
            Self::Draining => Flag::Draining,
            Self::TooLarge(Oversized::Request { .. } | Oversized::RequestForServer { .. }) => {
                Flag::RequestTooLarge
            }
            Self::TooLarge(Oversized::Response { .. } | Oversized::ResponseForClient { .. }) => {
                Flag::ResponseTooLarge
            }
            Self::Connect => Flag::Connect,
            Self::Unread { .. } => Flag::ServerStalled,
            Self::Memory { .. } => Flag::Memory,
            Self::Circuit { .. } => Flag::Circuit,
        }
    }

    /// The code that a client gets where the response had begun, and no trailers can say more.
    pub(super) fn reset_code(self) -> ErrorCode {
        match self {
            Self::Reset { code: ErrorCode::NoError, .. } => ErrorCode::InternalError,
            Self::Reset { code, .. } => code,
            Self::Deadline => ErrorCode::Cancel,
            // Which gRPC reads as RESOURCE_EXHAUSTED.
            Self::Memory { .. } => ErrorCode::EnhanceYourCalm,
            _ => ErrorCode::InternalError,
        }
    }
}

/// gRPC over HTTP/2, "Errors". One difference: NO_ERROR before the trailers says that the server went away in good order,
/// and the trailers are lost with it: UNAVAILABLE.
pub(super) fn status_of_reset(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::NoError | ErrorCode::RefusedStream => grpc::UNAVAILABLE,
        ErrorCode::Cancel => grpc::CANCELLED,
        ErrorCode::EnhanceYourCalm => grpc::RESOURCE_EXHAUSTED,
        ErrorCode::InadequateSecurity => grpc::PERMISSION_DENIED,
        ErrorCode::ProtocolError
        | ErrorCode::InternalError
        | ErrorCode::FlowControlError
        | ErrorCode::SettingsTimeout
        | ErrorCode::FrameSizeError
        | ErrorCode::CompressionError
        | ErrorCode::ConnectError => grpc::INTERNAL,
        ErrorCode::StreamClosed | ErrorCode::Http11Required | ErrorCode::Unknown(_) => grpc::UNKNOWN,
    }
}

/// Whose call it was, and to what.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    /// `None` where the destination is gone.
    pub(super) service: Option<&'a ServicePort>,
    pub(super) source: &'a Origin,
}

/// A cause, told to the person at the other end.
struct Told<'a>(Cause, About<'a>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evenkeel: ")?;
        match self.0 {
            Cause::NoRoute => write!(f, "no route matches the request")?,
            Cause::NoEndpoint => write!(f, "no endpoint is ready")?,
            Cause::Refused { last, tried: 1 } => write!(f, "cannot connect to {last}")?,
            Cause::Refused { last, tried } => {
                write!(f, "cannot connect to any of {tried} endpoints, {last} the last")?;
            }
            Cause::Reset { by, code } => write!(f, "{by} reset the call with {code:?}")?,
            Cause::Malformed { by } => write!(f, "{by} answered with malformed HTTP/2")?,
            Cause::Lost { to } => {
                write!(f, "the connection to {to} was lost before the answer was complete")?;
            }
            Cause::Deadline => write!(f, "the call's deadline passed")?,
            Cause::Draining => write!(f, "the node's agent is shutting down")?,
            Cause::TooLarge(oversized) => match oversized {
                Oversized::Request { limit } => {
                    write!(
                        f,
                        "the request's header list is larger than {limit} bytes or has too many fields"
                    )?;
                }
                Oversized::RequestForServer { by, limit } => {
                    write!(f, "the request's header list is larger than the {limit} bytes that {by} takes")?;
                }
                Oversized::Response { by } => {
                    write!(f, "{by} answered with a header list that is too large")?;
                }
                Oversized::ResponseForClient { by, limit } => write!(
                    f,
                    "{by} answered with a header list larger than the {limit} bytes that the client takes"
                )?,
            },
            Cause::Connect => write!(f, "CONNECT is not supported")?,
            Cause::Unread { by } => write!(f, "{by} does not read the request")?,
            Cause::Memory { limit } => match self.1.source {
                Origin::Pod(pod) => write!(f, "the {limit} bytes of memory of pod {} are used up", pod.name)?,
                Origin::Agent => write!(f, "the proxy's {limit} bytes of memory are used up")?,
            },
            Cause::Circuit { breaker, limit } => match self.1.source {
                Origin::Pod(pod) => write!(f, "pod {} has {limit} {breaker} already", pod.name)?,
                Origin::Agent => write!(f, "there are {limit} {breaker} already")?,
            },
        }
        match self.1.service {
            Some(service_port) => write!(f, " (Service {service_port})"),
            None => Ok(()),
        }
    }
}

/// Fills in the header list of a whole answer without a body.
pub(super) fn trailers_only(fields: &mut FieldList, call: &Call, cause: Cause, about: About<'_>) {
    fields.clear();
    // A 2xx to CONNECT would mean a tunnel (RFC 9113 §8.5), whatever the content type says.
    if call.is_grpc && cause != Cause::Connect {
        fields.push(b":status", b"200");
        fields.push(b"content-type", b"application/grpc");
        push_status(fields, cause, about);
    } else {
        fields.push(b":status", cause.http_status().to_string().as_bytes());
        fields.push(b"content-length", b"0");
    }
}

/// Fills in the trailers of a gRPC answer that a server began and nobody can finish.
pub(super) fn trailers(fields: &mut FieldList, cause: Cause, about: About<'_>) {
    fields.clear();
    push_status(fields, cause, about);
}

fn push_status(fields: &mut FieldList, cause: Cause, about: About<'_>) {
    fields.push(b"grpc-status", cause.grpc_status().to_string().as_bytes());
    // Every character of these messages may stand in a field as it is: no percent sign and nothing beyond ASCII.
    fields.push(b"grpc-message", Told(cause, about).to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::Name;
    use crate::mesh::ObjectName;

    #[test]
    fn each_cause_has_its_grpc_status_and_its_http_status() {
        let by: SocketAddr = "10.0.0.3:50051".parse().unwrap();
        for (cause, grpc, http) in [
            (Cause::NoRoute, 12, 404),
            (Cause::NoEndpoint, 14, 503),
            (Cause::Refused { last: by, tried: 3 }, 14, 503),
            (Cause::Reset { by, code: ErrorCode::NoError }, 14, 502),
            (Cause::Reset { by, code: ErrorCode::Cancel }, 1, 502),
            (Cause::Reset { by, code: ErrorCode::EnhanceYourCalm }, 8, 502),
            (Cause::Reset { by, code: ErrorCode::InternalError }, 13, 502),
            (Cause::Malformed { by }, 13, 502),
            (Cause::Lost { to: by }, 14, 502),
            (Cause::Deadline, 4, 504),
            (Cause::Draining, 14, 503),
            (Cause::TooLarge(Oversized::Request { limit: 9 }), 8, 431),
            (Cause::TooLarge(Oversized::RequestForServer { by, limit: 9 }), 8, 431),
            (Cause::TooLarge(Oversized::Response { by }), 8, 502),
            (Cause::TooLarge(Oversized::ResponseForClient { by, limit: 9 }), 8, 502),
            (Cause::Connect, 12, 501),
            (Cause::Unread { by }, 14, 502),
            (Cause::Memory { limit: 9 }, 8, 503),
            (Cause::Circuit { breaker: Breaker::Pending, limit: 9 }, 14, 503),
        ] {
            assert_eq!((cause.grpc_status(), cause.http_status()), (grpc, http), "{cause:?}");
        }
    }

    #[test]
    fn the_message_names_the_cause_and_the_service() {
        let service = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
        let mut fields = FieldList::new();
        let cause = Cause::Refused { last: "10.0.0.3:50051".parse().unwrap(), tried: 3 };
        let mut message = |cause| {
            let about = About { service: Some(&service), source: &Origin::Agent };
            trailers(&mut fields, cause, about);
            String::from_utf8(fields.find(Name::GrpcMessage).unwrap().to_vec()).unwrap()
        };
        assert_eq!(
            message(cause),
            "evenkeel: cannot connect to any of 3 endpoints, 10.0.0.3:50051 the last (Service shop/cart:50051)"
        );
        assert_eq!(
            message(Cause::Circuit { breaker: Breaker::Pending, limit: 9 }),
            "evenkeel: there are 9 waiting calls already (Service shop/cart:50051)"
        );
    }
}
