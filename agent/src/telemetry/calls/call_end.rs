//! The record of a call that is over: what metrics count, and what logs and traces tell. The call path makes one for each call, exactly
//! once, and lends it to whoever wants to know ([`super::Recorder`]).

use super::CallStats;
use crate::http2::{FieldList, Name};
use crate::mesh::{Endpoint, Pod, ServicePort};
use std::net::SocketAddr;

/// A call that is over for everyone: answered and read, cancelled, or lost with its client.
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
    /// What is known of it in numbers.
    pub stats: CallStats,
}

impl CallEnd<'_> {
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
