//! All that the agent does with the kernel. Nothing outside of this module knows of eBPF, namespaces or cgroups.
//!
//! In order of use: [`check`] says whether the node can do it. [`object`] carries the kernel programs, [`load`] brings them
//! into the kernel and attaches them (by [`bpf`], the few system calls that aya keeps to itself; [`legacy`] finds what is in the way), [`maps`] is how the agent
//! talks to them, [`log`] what they say, [`show`] how they stand. [`cgroups`], [`pods`] and [`sandbox`] find a pod, [`events`] says
//! when to look, [`netns`] goes into its network namespace, [`listener`] opens what its connections are sent to (with [`route`] for IPv6), and
//! [`reconnect`] ends the connections that it had before.

pub mod address;
pub mod balancers;
pub mod bpf;
pub mod cgroups;
pub mod check;
pub mod events;
pub mod legacy;
pub mod listener;
pub mod load;
pub mod log;
pub mod maps;
mod netlink;
pub mod netns;
pub mod object;
pub mod pods;
pub mod reconnect;
mod route;
pub mod sandbox;
pub mod show;

mod error;

pub use error::KernelError;
pub use events::{PodEvent, PodEventKind, PodEvents};
pub use listener::PodListener;
pub use load::{Held, Kernel, LoadOptions};
pub use log::KernelLog;
pub use maps::{Enrolment, KnownDestination};
pub use netns::{Netns, socket_in};
pub use sandbox::{NotFound, Sandbox};
