//! What is counted, and what is told of it.
//!
//! [`calls`] has what the worker threads count of calls; [`scrape()`] makes the text of it that Prometheus reads, together with what the
//! control loop knows ([`Numbers`]) and what the process uses, and [`calls_view()`] rows for programs. Other counts live where they are made: in the kernel's
//! maps, in [`mesh::Load`](crate::mesh::Load), in the workers. [`log`] is what the program itself says, [`profile`] what it costs.

mod calls;
mod calls_text;
mod calls_view;
mod exposition;
pub mod log;
mod process;
pub mod profile;

pub use calls::{
    CallCounts, CallEnd, CallGroup, CallKey, Caller, DurationBuckets, EdgeCounts, EdgeGroup, EndpointName,
    Flag, Link, MOST_METHODS, MethodId, Methods, Recorder, SizeBuckets, Status, TIDY_EVERY, Telemetry,
};
pub use calls_view::{CallsView, LatencyView, calls_view};
pub use exposition::{
    EndpointCounts, KindCounts, LegacyAttachment, MemoryCounts, Numbers, OpenedBefore, PathCount, PodCounts,
    PodObstacle, ScrapeFormat, scrape,
};
