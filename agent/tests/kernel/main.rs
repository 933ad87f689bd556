//! The kernel programs and the agent's side of them, on the real kernel. Needs root and a binary built with its kernel programs
//! (`cargo xtask test`); elsewhere the tests say so and pass, but where `CI` is set they fail.
//!
//! [`app`] is a process in a pod, [`node`] a node with one pod and one server; the other files are the tests.

mod app;
mod balancer;
mod check;
mod events;
mod identity;
mod lifetime;
mod log;
mod node;
mod reconnect;
mod redirect;
mod sandbox;
mod straight;
