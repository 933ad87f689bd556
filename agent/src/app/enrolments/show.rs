//! What is shown of the pods: at the admin endpoint, in metrics, and as Events.

use super::enrolled::Enrolled;
use super::{Enrolments, State, Tools, Wanted};
use crate::control::explain;
use crate::mesh::PodKey;
use crate::sources::kubernetes::write_back::{Obstacle as PodNoteObstacle, PodNote};
use crate::sources::rows::PodRow;
use crate::sources::{Problem, Severity};
use crate::telemetry::{MemoryCounts, OpenedBefore, PodCounts, PodObstacle};
use evenkeel_common::Reason;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

/// A pod that is to be enrolled and is not, for a reason that its owner should hear of.
#[derive(Clone, Debug)]
pub(in crate::app) struct LastingObstacle {
    /// The pod.
    pub(in crate::app) pod: Arc<PodRow>,
    /// The reason's name: one word of `snake_case`, the same in metrics and at the admin endpoint.
    pub(in crate::app) reason: &'static str,
    /// The reason.
    pub(in crate::app) text: String,
}

impl LastingObstacle {
    /// As the admin endpoint shows it among what is wrong.
    pub(in crate::app) fn into_problem(self) -> Problem {
        Problem {
            severity: Severity::Warning,
            file: None,
            line: None,
            column: None,
            object: Some(format!("Pod {}", self.pod.name)),
            cause: format!("{}: {}", self.reason, self.text),
        }
    }
}

/// What became of the wish to enrol a pod.
#[derive(Debug)]
pub(in crate::app) enum Live {
    /// Nothing yet.
    Waiting {
        /// Why.
        reason: String,
        /// In one word of `snake_case`.
        reason_name: &'static str,
        /// Since when.
        seconds: u64,
    },
    /// It is enrolled.
    Enrolled(Box<EnrolledView>),
}

/// How a pod stands that is to be enrolled, for an explanation.
#[derive(Debug)]
pub(in crate::app) enum EnrolmentFacts {
    /// Why it is not enrolled yet, and for how many seconds.
    Waiting(String, u64),
    /// Which incarnation is, and what the kernel is told of it.
    Enrolled(PodKey, explain::Facts),
}

/// An enrolled pod.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::app) struct EnrolledView {
    /// Since when it is enrolled, in seconds since 1970.
    since_unix_seconds: u64,
    /// For how long, in seconds.
    enrolled_for_seconds: u64,
    /// How long that took from the first word of its sandbox, in milliseconds; null where it was there before the agent.
    enrolled_after_ms: Option<f64>,
    /// The cookie of its network namespace.
    netns_cookie: u64,
    /// The port of the agent's listener in the pod.
    listener_port: u16,
    /// Whether IPv6 connections are taken.
    ipv6: bool,
    /// What became of its TCP connections since: `taken`, or straight because of what.
    connections: BTreeMap<&'static str, u64>,
    /// Connections that are with the agent now.
    open_connections: u64,
    /// How many they may be.
    connection_limit: u32,
    /// They are that many: further ones go straight.
    at_connection_limit: bool,
    /// What its connections and calls hold in memory.
    memory_bytes: u64,
    /// What they may hold.
    memory_limit_bytes: u64,
    /// Calls that were refused or ended as that was used up.
    calls_refused_for_memory: u64,
    /// Connections from before it was enrolled, which went straight, as they were found when it was.
    opened_before: usize,
    /// Why they had not been taken.
    opened_before_cause: &'static str,
}

impl Enrolments {
    /// The pods that cannot be enrolled, each with the reason: those that only wait for their start are not among them.
    pub(in crate::app) fn lasting_obstacles(&self) -> Vec<LastingObstacle> {
        let lasting = self.wanted.values().filter_map(|wanted| {
            let (obstacle, _) = wanted.obstacle().filter(|(_, lasts)| *lasts)?;
            let (pod, text) = (wanted.enrolment.pod.clone(), obstacle.text.clone());
            Some(LastingObstacle { pod, reason: obstacle.reason, text })
        });
        lasting.collect()
    }

    /// What a cluster is told of the wanted pods.
    pub(in crate::app) fn notes(&self) -> Vec<PodNote> {
        let note = |wanted: &Wanted| PodNote {
            uid: wanted.enrolment.pod.uid.clone(),
            name: wanted.enrolment.pod.name.clone(),
            label: wanted.enrolment.pod.status_label.clone(),
            outcome: Some(match wanted.obstacle() {
                None => Ok(()),
                Some((obstacle, lasts)) => Err(PodNoteObstacle {
                    reason: obstacle.reason.into(),
                    text: obstacle.text.clone(),
                    lasts,
                }),
            }),
        };
        self.wanted.values().map(note).collect()
    }

    /// How many wanted pods have an address, which their sandbox gave them, and are not enrolled yet.
    pub(in crate::app) fn outstanding(&self) -> usize {
        let outstanding = |wanted: &&Wanted| {
            matches!(wanted.state, State::Waiting { .. }) && !wanted.enrolment.pod.addresses.is_empty()
        };
        self.wanted.values().filter(outstanding).count()
    }

    /// What is known of each wanted pod, by UID.
    pub(in crate::app) fn view(&self, tools: &Tools<'_>) -> HashMap<Arc<str>, Live> {
        let show = |state: &State| match state {
            State::Waiting { obstacle, since, .. } => Live::Waiting {
                reason: obstacle.text.clone(),
                reason_name: obstacle.reason,
                seconds: since.elapsed().as_secs(),
            },
            State::Enrolled(enrolled) => Live::Enrolled(Box::new(view_of(enrolled, tools))),
        };
        self.wanted.iter().map(|(uid, wanted)| (uid.clone(), show(&wanted.state))).collect()
    }

    /// How a wanted pod stands.
    pub(in crate::app) fn facts(&self, uid: &str, tools: &Tools<'_>) -> Option<EnrolmentFacts> {
        Some(match &self.wanted.get(uid)?.state {
            State::Waiting { obstacle, since, .. } => {
                EnrolmentFacts::Waiting(obstacle.text.clone(), since.elapsed().as_secs())
            }
            State::Enrolled(enrolled) => {
                let facts = explain::Facts {
                    seconds: enrolled.since.elapsed().map_or(0, |since| since.as_secs()),
                    loopback_down: enrolled.facts.loopback_down,
                    at_connection_limit: enrolled.facts.at_connection_limit,
                    ipv6_route: enrolled.facts.ipv6_route,
                    open_connections: tools.workers.pod_connections(&enrolled.pod.key),
                    connection_limit: tools.config.max_pod_connections,
                };
                EnrolmentFacts::Enrolled(enrolled.pod.key.clone(), facts)
            }
        })
    }

    /// What the enrolled pods' connections met.
    pub(in crate::app) fn counts(&self, tools: &Tools<'_>) -> Vec<PodCounts> {
        let counts = self.enrolled().map(|enrolled| PodCounts {
            namespace: enrolled.row.name.namespace.to_string(),
            pod: enrolled.row.name.name.to_string(),
            connections: connections_by_outcome(enrolled, tools),
            memory: memory_of(enrolled, tools),
            opened_before: OpenedBefore {
                cause: enrolled.missed.cause.name(),
                connections: enrolled.missed.count,
            },
        });
        counts.collect()
    }

    /// The wanted pods that are not enrolled.
    pub(in crate::app) fn obstacles(&self) -> Vec<PodObstacle> {
        let waiting = self.wanted.values().filter_map(|wanted| {
            let (obstacle, _) = wanted.obstacle()?;
            let name = &wanted.enrolment.pod.name;
            let (namespace, pod) = (name.namespace.to_string(), name.name.to_string());
            Some(PodObstacle { namespace, pod, reason: obstacle.reason })
        });
        waiting.collect()
    }
}

fn view_of(enrolled: &Enrolled, tools: &Tools<'_>) -> EnrolledView {
    let MemoryCounts { held, limit, refused } = memory_of(enrolled, tools);
    let since = enrolled.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    EnrolledView {
        since_unix_seconds: since.as_secs(),
        // A clock that was set back meanwhile makes it none.
        enrolled_for_seconds: enrolled.since.elapsed().unwrap_or_default().as_secs(),
        enrolled_after_ms: enrolled.after.map(|after| after.as_secs_f64() * 1_000.0),
        netns_cookie: enrolled.cookie(),
        listener_port: enrolled.port,
        ipv6: enrolled.facts.ipv6_route,
        connections: connections_by_outcome(enrolled, tools).into_iter().collect(),
        open_connections: tools.workers.pod_connections(&enrolled.pod.key),
        connection_limit: tools.config.max_pod_connections,
        at_connection_limit: enrolled.facts.at_connection_limit,
        memory_bytes: held,
        memory_limit_bytes: limit,
        calls_refused_for_memory: refused,
        opened_before: enrolled.missed.count,
        opened_before_cause: enrolled.missed.cause.name(),
    }
}

fn memory_of(enrolled: &Enrolled, tools: &Tools<'_>) -> MemoryCounts {
    let (held, refused) = tools.workers.pod_memory(&enrolled.pod.key);
    MemoryCounts { held, limit: tools.config.protection.pod_memory, refused }
}

fn connections_by_outcome(enrolled: &Enrolled, tools: &Tools<'_>) -> Vec<(&'static str, u64)> {
    let counters = tools.kernel.counters(enrolled.cookie()).ok().flatten().unwrap_or_default();
    Reason::ALL.into_iter().map(|reason| (reason.name(), counters.of(reason))).collect()
}
