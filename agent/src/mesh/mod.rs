//! The words that the control path and the data path share. Immutable, no I/O.
//!
//! [`names`] says what things are called, [`backend`] what a call can go to, [`balancing`] how its owner wants calls spread, [`pod`]
//! who sends it, [`workload`] what pods belong to, and [`snapshot`] holds one consistent state of all of them. [`protection`] is what
//! one source of calls may cost, [`circuit_breaker`] what a Service says of that, [`retry`] when a call is sent again; [`key_values`] is
//! the form of both. [`filter`] is what somebody who looks wants to see. [`load`] is the one mutable word, with [`left_out`] in it: what every worker
//! thread of the node adds to, and what outlives the snapshot that it was first seen in.

mod backend;
mod balancing;
mod circuit_breaker;
mod filter;
mod key_values;
mod left_out;
mod load;
mod names;
mod pod;
pub mod protection;
mod retry;
mod snapshot;
mod workload;

pub use backend::{Backend, Endpoint, HashTable};
pub use balancing::{Balancing, Ejection, HashOn, HealthCheck, NoHashOn, Picker, SlowStart};
pub use circuit_breaker::CircuitBreaker;
pub use filter::{MethodFilter, ServiceFilter};
pub use left_out::{CheckAnswer, EjectionReason, LeftOut, LeftOutBy};
pub use load::Load;
pub use names::{DestinationId, ObjectName, PodKey, ServicePort};
pub use pod::Pod;
pub use protection::{CircuitLimits, Protection};
pub use retry::{RetryPolicy, StatusSet};
pub use snapshot::{Destination, Snapshot};
pub use workload::Workload;
