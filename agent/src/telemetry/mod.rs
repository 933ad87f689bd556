//! What is counted, in the form that Prometheus reads ([`exposition()`]). The counts themselves live where they are made:
//! in the kernel's maps, in [`mesh::Load`](crate::mesh::Load), in the workers. [`log`] is what the program itself says,
//! [`profile`] what it costs.

mod exposition;
mod flag;
pub mod log;
pub mod profile;

pub use exposition::{
    EndpointCounts, KindCounts, LegacyAttachment, MemoryCounts, Numbers, OpenedBefore, PodCounts,
    PodObstacle, exposition,
};
pub use flag::Flag;
