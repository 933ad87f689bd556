//! The record of a call that is over: what metrics count, and what logs and traces tell. The call path makes one for each call, exactly
//! once, and lends it to whoever wants to know ([`super::Recorder`]).

use super::{Flag, Status};
use crate::http2::{FieldList, Name};
use crate::mesh::{Endpoint, Pod, ServicePort};
use std::net::SocketAddr;

/// A call that is over for everyone: answered and read, cancelled, or lost with its client. Times are nanoseconds of the monotonic
/// clock.
#[derive(Debug)]
pub struct CallEnd<'a> {
    /// The pod that called; `None`: a client of `evenkeel proxy`.
    pub source: Option<&'a Pod>,
    /// The Service port that it called.
    pub service_port: &'a ServicePort,
    /// The address that it dialled; `None` if the Service has gone meanwhile.
    pub original: Option<SocketAddr>,
    /// The endpoint that was chosen last; `None` if none ever was.
    pub endpoint: Option<&'a Endpoint>,
    /// Of a gRPC call, `package.Service/Method`; `_OTHER` beyond [`MOST_METHODS`](super::MOST_METHODS). Empty for other requests, whose paths
    /// have no bound.
    pub method: &'a str,
    /// The request's fields as they went to the server; an excerpt where large ones were let go when the answer began.
    pub request: &'a FieldList,
    /// It is a gRPC call.
    pub is_grpc: bool,
    /// Of the response, be it the agent's own; `None`: none has begun.
    pub http_status: Option<u16>,
    /// Of a gRPC call, the status as its client understands the end; `None`: the client did not wait for it.
    pub grpc_status: Option<u8>,
    /// What went wrong.
    pub flag: Flag,
    /// When its request came.
    pub began_ns: u64,
    /// When it was first sent to a server: what was before, it waited for an endpoint, a connection or a stream.
    pub first_sent_ns: Option<u64>,
    /// When a server's response headers came.
    pub headers_ns: Option<u64>,
    /// When it was over: its answer was written to the client's connection, or would never be.
    pub ended_ns: u64,
    /// Body bytes that came from the client.
    pub request_bytes: u64,
    /// Body bytes that came from a server.
    pub response_bytes: u64,
    /// Of a gRPC call: messages that the client began.
    pub request_messages: u32,
    /// And that a server began.
    pub response_messages: u32,
    /// Endpoints that were chosen for it, one after the other; 255 stands for more as well.
    pub attempts: u8,
    /// The client's connection had carried a call before.
    pub on_existing_connection: bool,
}

impl CallEnd<'_> {
    /// How it ended.
    pub fn status(&self) -> Status {
        Status {
            is_grpc: self.is_grpc,
            http: self.http_status.unwrap_or(0),
            grpc: self.grpc_status,
            flag: self.flag,
        }
    }

    /// Whether it counts as an error where those alone are told: something went wrong, or its status is not OK, or, without gRPC, from
    /// 400 on.
    pub fn is_error(&self) -> bool {
        self.flag != Flag::None
            || self.grpc_status.is_some_and(|status| status != 0)
            || self.http_status.is_some_and(|status| status >= 400)
    }

    /// What is asked for: of a gRPC call `package.Service/Method`, also beyond [`MOST_METHODS`](super::MOST_METHODS), of another request
    /// its path. Without the first slash, and without what [`path_alone`] leaves out. `None` where that has been let go.
    pub fn path(&self) -> Option<&[u8]> {
        match self.request.find(Name::Path) {
            Some(path) => {
                let path = path_alone(path);
                Some(path.strip_prefix(b"/").unwrap_or(path))
            }
            None => Some(self.method.as_bytes()).filter(|method| !method.is_empty()),
        }
    }
}

/// A path, or a URL, up to its query, its fragment, or the first parameter of a segment (`;jsessionid=…`): these may hold secrets.
pub fn path_alone(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#' | b';')).next().unwrap_or(path)
}
