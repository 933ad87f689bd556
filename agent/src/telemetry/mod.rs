//! What is counted, and what is told of it.
//!
//! [`calls`] has what the worker threads count of calls; [`scrape()`] makes the text of it that Prometheus reads, together with what the
//! control loop knows ([`Numbers`]) and what the process uses, and [`calls_view()`] rows for programs. Other counts live where they are made:
//! in the kernel's maps, in [`mesh::Load`](crate::mesh::Load), in the workers. What is told of single calls is in [`records`]: it leaves the
//! worker threads by an [`mod@outlet`], and is written down by the [`access_log`], or shown to who taps, with nothing in it that a terminal
//! would obey ([`mod@printable`]). Calls of sampled traces have spans ([`traces`]), which go to a collector by [`otlp`]. [`log`] is what the
//! program itself says, [`profile`] what it costs, [`mod@terminal`] who may see colours.

pub mod access_log;
mod calls;
mod calls_view;
mod exposition;
pub mod log;
pub mod otlp;
mod outlet;
mod path_count;
mod printable;
pub mod profile;
mod records;
mod terminal;
mod traces;

pub use calls::{
    CallCounts, CallEnd, CallGroup, CallKey, CallStats, CallSums, Caller, DurationBuckets, EdgeCounts,
    EdgeGroup, EndpointName, Flag, GRPC_CODES, Link, MOST_METHODS, MethodId, Methods, OTHER_METHOD,
    RESOURCE_EXHAUSTED, Recorder, SizeBuckets, Status, TIDY_EVERY, Telemetry, grpc_code_name,
    is_grpc_failure, is_http_failure, path_alone,
};
pub use calls_view::{By, CallsView, Dimension, calls_view};
pub use exposition::{
    EndpointCounts, KindCounts, LegacyAttachment, MemoryCounts, Numbers, OpenedBefore, PodCounts,
    PodObstacle, ScrapeFormat, scrape,
};
pub use outlet::{DropCount, Inlet, Outlet, PAUSE, outlet};
pub use path_count::PathCount;
pub use printable::{is_obeyed, json_line, printable_word};
pub use records::{
    Audience, CallRecord, LoggedCalls, MOST_TAPS, OpenTap, RecordDestination, RecordEndpoint, RecordSource,
    SECRET_NAMES, StatusFilter, TapFilter, TooManyTaps,
};
pub use terminal::{bears_colours, can_be_steered};
pub use traces::{CallTrace, Ratio, Retry, RetryCause, Span, Tracer, heeds_trace_state, trace_id};
