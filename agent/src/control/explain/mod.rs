//! What would become of a connection of a pod's, and of a call on it: every decision from `connect()` to the endpoint, in words. Pure:
//! nothing is sent, nothing is changed.
//!
//! The decisions are asked of those who make them: [`enrolment`](super::enrolment), `claims` and `capture`,
//! [`routing`](crate::routing), [`balance`](crate::balance). [`name`] says what a host name stands for, the `walk` goes from the pod to
//! the backend, [`endpoints`] from there to the endpoint. What no row says ([`Live`]) is handed in.

mod endpoints;
mod kernel;
mod name;
mod question;
mod walk;

pub use endpoints::EndpointOdds;
pub use question::{Question, Target};

use crate::mesh::{Balancing, ServicePort};
use schemars::JsonSchema;
use serde::Serialize;
use std::net::SocketAddr;

/// What is known of the pod's enrolment and of the agent beyond the world's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Whether connections are taken.
    pub heart: Heart,
    /// The agent's own `SO_MARK`.
    pub mark: u32,
    /// How the pod stands.
    pub pod: Standing,
    /// Where its calls stay, of each Service port under session affinity that it has called.
    pub homes: Vec<(ServicePort, SocketAddr)>,
}

impl Live {
    /// Where the pod's calls to the Service port stay.
    fn home(&self, port: &ServicePort) -> Option<SocketAddr> {
        self.homes.iter().find(|(of, _)| of == port).map(|(_, address)| *address)
    }
}

/// Whether the agent takes connections: what the programs go by is the tick of the worker thread that has been silent for longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heart {
    /// It does.
    Beats,
    /// It has not begun, or lets go.
    Stopped,
    /// A worker thread has not come round for so many milliseconds.
    Silent(u64),
}

/// How a pod stands that is to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has looked for it yet.
    Unknown,
    /// It cannot be enrolled yet.
    Waiting {
        /// Why.
        reason: String,
        /// For so long.
        seconds: u64,
    },
    /// It is.
    Enrolled(Facts),
}

/// What the kernel is told of an enrolled pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// How long it has been enrolled.
    pub seconds: u64,
    /// Its `lo` is down.
    pub loopback_down: bool,
    /// It has as many connections as it may.
    pub at_connection_limit: bool,
    /// IPv6 connections can reach the agent's listener.
    pub ipv6_route: bool,
    /// Connections that it has through the agent.
    pub open_connections: u64,
    /// How many it may have.
    pub connection_limit: u32,
}

/// What would become of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is taken, and its calls are balanced.
    Balanced,
    /// It is taken, and a further call on it is answered with an error at once.
    Refused,
    /// It goes where it would go without the agent.
    Straight,
    /// There is no such name: the app finds nothing to connect to.
    Unresolved,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Step {
    /// What is decided.
    pub question: String,
    /// How.
    pub answer: String,
    /// Because of what, line by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
    /// An earlier decision keeps it from being asked: this is what would be decided if that were another.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hypothetical: bool,
}

/// Every decision, in the order in which they are taken.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Explanation {
    /// The pod that calls: `namespace/name`.
    pub pod: String,
    /// What it dials, as asked.
    pub to: String,
    /// What would become of it.
    pub outcome: Outcome,
    /// The same in a sentence.
    pub summary: String,
    /// Why it would go straight: the kernel's reason, as in `/pods` and the metrics, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The address that is dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The Service port that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_port: Option<String>,
    /// The same, for who looks further.
    #[serde(skip)]
    pub port: Option<ServicePort>,
    /// How its owner wants its calls to be treated.
    #[serde(skip)]
    pub balancing: Balancing,
    /// The endpoint that the call goes to, where that is certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The decisions.
    pub steps: Vec<Step>,
    /// The endpoints that the call might go to, and those that it does not, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointOdds>,
}

impl Explanation {
    pub(super) fn new(question: &Question) -> Self {
        Self {
            pod: question.pod.to_string(),
            to: question.to.to_string(),
            outcome: Outcome::Balanced,
            summary: String::new(),
            reason: None,
            address: None,
            service_port: None,
            port: None,
            balancing: Balancing::default(),
            endpoint: None,
            steps: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// Adds a decision.
    pub fn step(&mut self, question: impl Into<String>, answer: impl Into<String>, detail: Vec<String>) {
        let hypothetical = self.outcome != Outcome::Balanced;
        self.steps.push(Step { question: question.into(), answer: answer.into(), detail, hypothetical });
    }

    /// A further call would be answered with an error by a limit, if the connection is taken.
    pub fn refused(&mut self, why: &str) {
        if self.outcome == Outcome::Balanced {
            self.outcome = Outcome::Refused;
            self.endpoint = None;
            self.summary = format!("The connection is taken; this call is answered {why}.");
        }
    }

    /// It goes straight from here; the first reason counts.
    fn straight(&mut self, reason: Option<&'static str>, why: impl Into<String>) {
        if self.outcome == Outcome::Balanced {
            self.outcome = Outcome::Straight;
            self.reason = reason;
            self.summary = format!("The connection goes straight: {}.", why.into());
        }
    }
}

#[cfg(test)]
mod tests;
