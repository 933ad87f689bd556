//! Spans on their way to a collector, by OpenTelemetry's protocol over gRPC. Nothing of it is on the call path.
//!
//! The [`Exporter`] takes spans out of their queue in batches; [`encode`] makes [`messages`] of them, with the node's [`resource`]; a
//! [`collector`]'s connection to an [`endpoint`] takes them there, with further [`headers`], through [`tls`] if that is wanted; [`stats`] counts
//! what became of them.

mod collector;
mod encode;
mod endpoint;
mod exporter;
mod headers;
mod messages;
mod resource;
mod stats;
mod tls;

pub use collector::Compression;
pub use endpoint::Endpoint;
pub use exporter::{Export, Exporter};
pub use headers::Headers;
pub use resource::Resource;
pub use stats::TraceCounts;
