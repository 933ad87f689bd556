//! What is counted of calls.
//!
//! A call that is over is a [`CallEnd`], with [`CallStats`] for what of it is numbers, a [`Flag`] among them for what went wrong, and a number for
//! its method ([`Methods`]); [`Status`] says which ends are failures. The call path lends it to a [`Recorder`], which finds the call's series (`series`) and adds to them, in the buckets of
//! [`histogram`]; `admission` is how many may be told apart. `family` is where readers find them all, by way of [`Telemetry`], and `past` what
//! stays of those whose writer is gone.

mod admission;
mod call_end;
mod call_stats;
mod family;
mod flag;
mod grpc_code;
pub(super) mod histogram;
mod methods;
mod past;
mod recorder;
mod series;
mod status;
mod telemetry;

pub use admission::{MOST_METHODS, OTHER_METHOD};
pub use call_end::{CallEnd, path_alone};
pub use call_stats::CallStats;
pub use flag::Flag;
pub use grpc_code::{GRPC_CODES, grpc_code_name};
pub use methods::{MethodId, Methods};
pub use recorder::Recorder;
pub use series::{
    CallCounts, CallGroup, CallKey, Caller, DurationBuckets, EdgeCounts, EdgeGroup, EndpointName, Link,
    SizeBuckets,
};
pub use status::{RESOURCE_EXHAUSTED, Status, is_grpc_failure, is_http_failure};
pub use telemetry::{CallSums, TIDY_EVERY, Telemetry};
