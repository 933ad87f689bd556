//! How the agent starts, goes on after a crash, and stops.
//!
//! The **keeper** ([`keeper`]) is the process that a person or the kubelet started. It holds what must outlive a crash
//! (links, maps, the pods' listeners) as labelled file descriptors and parses nothing. It starts the **worker
//! process**, which does everything else, and starts it again when it dies. The two talk over one socket
//! ([`handover`]) and share one page of memory ([`ticks`]), in which each worker thread says that it lives.

pub mod handover;
pub mod keeper;
pub mod ticks;
