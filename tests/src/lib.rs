//! The harness: pods as network namespaces with cgroups on one node namespace, the agent, and gRPC peers to call.
//!
//! [`Cluster`] makes the node and its pods and holds the objects; [`Agent`] runs the real binary on them; [`peers`] runs servers and
//! clients inside pods. Everything lives in namespaces and cgroups with names of this process's own and goes when its value is
//! dropped, after a panic too; what a killed process left is swept at the next start.
//!
//! Read on in [`cluster`].

pub mod agent;
pub mod api_shop;
pub mod browser;
pub mod cgroup;
pub mod cluster;
pub mod collector;
pub mod consumers;
pub mod demo;
pub mod deploy;
pub mod evenkeel_cli;
pub mod host;
pub mod interop;
mod interrupt;
pub mod kernel_objects;
pub mod kube_proxy;
pub mod kubernetes;
pub mod latencies;
pub mod leftovers;
pub mod manifests;
pub mod memory_limit;
pub mod netns;
pub mod peer;
pub mod peers;
pub mod pod;
pub mod process;
pub mod shop;
pub mod stacks;
pub mod tally;
pub mod wait;

pub use agent::Agent;
pub use api_shop::ApiShop;
pub use browser::Browser;
pub use cluster::Cluster;
pub use collector::Collector;
pub use manifests::{Endpoint, Service, ServicePort};
pub use peers::{Load, Server};
pub use pod::Pod;
pub use process::Process;
pub use shop::Shop;
pub use stacks::Stack;
pub use tally::Tally;
pub use wait::eventually;

/// The greeter's messages, client and server.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from proto/greeter.proto")]
pub mod greeter {
    tonic::include_proto!("evenkeel.test");
}

/// What a test returns: an error fails it, with the whole chain of causes.
pub type Outcome = anyhow::Result<()>;
