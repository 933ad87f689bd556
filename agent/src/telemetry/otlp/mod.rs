//! Spans on their way to a collector, by OpenTelemetry's protocol over gRPC. Nothing of it is on the call path.
//!
//! The [`Exporter`] takes spans out of their queue in batches; [`encode`] makes [`messages`] of them, with the node's [`resource`]; a
//! [`collector`]'s connection to an [`endpoint`] takes them there, through [`tls`] if that is wanted; [`stats`] counts what became of them.

mod collector;
mod encode;
mod endpoint;
mod exporter;
mod messages;
mod resource;
mod stats;
mod tls;

pub use endpoint::Endpoint;
pub use exporter::{Export, Exporter};
pub use resource::Resource;
pub use stats::TraceCounts;
