//! Evenkeel: balances every gRPC call of a Kubernetes node's pods over the Service's endpoints, without sidecars.
//!
//! The modules, in the order in which a call meets them: [`kernel`] takes a pod's connection at `connect()`,
//! [`proxy`] accepts it and relays its calls over [`http2`], [`routing`] and [`balance`] decide where each goes.
//! And in the order of a change: [`sources`] → [`control`] → [`mesh::Snapshot`] → workers and kernel.

pub mod admin;
pub mod allocator;
pub mod app;
mod backoff;
pub mod balance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod health;
pub mod http2;
pub mod kernel;
pub mod lifecycle;
pub mod mesh;
pub mod proxy;
pub mod routing;
pub mod sources;
pub mod telemetry;
