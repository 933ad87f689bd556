//! What is counted of calls.
//!
//! A call that is over is a [`CallEnd`], with a [`Flag`] for what went wrong. The call path lends it to a [`Recorder`], which finds the call's
//! series (`series`) and adds to them, in the buckets of [`histogram`]; `family` is where readers find them all.

mod call_end;
mod family;
mod flag;
mod grpc_code;
pub(super) mod histogram;
mod recorder;
mod series;

pub use call_end::CallEnd;
pub use flag::Flag;
pub use grpc_code::{GRPC_CODES, grpc_code_name};
pub use recorder::{MOST_METHODS, MethodId, Methods, Recorder, TIDY_EVERY, Telemetry};
pub use series::{
    CallCounts, CallGroup, CallKey, Caller, DurationBuckets, EdgeCounts, EdgeGroup, EndpointName, Link,
    SizeBuckets, Status,
};
