//! A real Kubernetes on this machine: no container engine, no registry of others, nothing that is not built from source.
//!
//! [`ControlPlane`] is etcd and the API server alone, ready in about three seconds, for whatever needs the API and no pods; nodes and the
//! states of pods are then written by hand ([`fakes`]).
//!
//! [`Cluster`] has nodes: kubelet, containerd, kube-proxy and pods, as on machines of their own. Its images come from a registry that
//! stands for all registries.
//!
//! Everything bears the name of its process and goes with its value; what a killed process left, the next one sweeps
//! ([`crate::leftovers`]). The programs come from `cargo xtask cluster build`.
//!
//! Read on in [`control_plane`].

pub mod agents;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod daemon;
pub mod fakes;
mod footprint;
mod hierarchies;
pub mod images;
pub mod install;
pub mod kubectl;
pub mod nested;
pub mod node;
mod node_files;
pub mod node_init;
pub mod pki;
pub mod programs;
pub mod registry;
pub mod running_pod;
pub mod runtime;
pub mod shared;
pub mod shop;
pub mod starts;
pub mod workloads;

pub use cluster::{Cluster, PEER_IMAGE};
pub use control_plane::{ControlPlane, Options};
pub use daemon::Daemon;
pub(crate) use footprint::clusters_folder;
pub(crate) use hierarchies::{mounts as cgroup_mounts, remove as remove_cgroups};
pub use images::{Image, ImageStore};
pub use kubectl::Kubectl;
pub use nested::NestedContainer;
pub use node::Node;
pub use running_pod::RunningPod;
pub use shared::SharedCluster;
pub use shop::Shop;
pub use starts::Starts;
