//! Rows → [`Snapshot`](crate::mesh::Snapshot), and what has to be done in the kernel for it. No I/O, no clock: who calls
//! hands in the rows and the time, and does what comes out.
//!
//! The decisions, each pure: [`protocol`] says which Service ports are gRPC, [`endpoints`] what may serve a call,
//! [`destinations`] which addresses are captured, [`enrolment`] which pods. [`ids`] gives each captured address
//! its id and never the same one twice while anything may carry it. [`world`] holds it all together (`services`,
//! `claims`, `capture`, `pods`) and changes no more than what a change of rows touches; [`delta`] is what it asks for,
//! [`view`] what it shows. [`explain`] says of one connection how all of them decide.

mod capture;
mod claims;
pub mod delta;
pub mod destinations;
pub mod endpoints;
pub mod enrolment;
pub mod explain;
pub mod ids;
mod pods;
pub mod protocol;
mod services;
mod show;
pub mod view;
pub mod world;

pub use delta::{Delta, Enrolment, Refused};
pub use world::{Live, Settings, World};
