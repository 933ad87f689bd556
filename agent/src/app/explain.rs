//! `/explain`: what [`control`](crate::control::explain) says of a call, with what only the node knows: how the pod stands, and what it has
//! under way.

use super::enrolments::EnrolmentFacts;
use super::node::Node;
use crate::admin::Filter;
use crate::clock::monotonic_ns;
use crate::control::explain::{Explanation, Live, Outcome, Question, Standing};
use crate::http2::{FieldList, Name};
use crate::mesh::PodKey;
use crate::proxy::{DEADLINE_GRACE_NS, parse_timeout};
use crate::sources::kubernetes::labels::{CIRCUIT_BREAKER, RETRY};

impl Node {
    /// What would become of the call that is asked about.
    ///
    /// # Errors
    /// What is wrong with the question.
    pub(super) fn explain(&mut self, filter: &Filter) -> Result<Explanation, String> {
        let question = filter.call()?;
        let uid = self.world.pod(&question.pod).map(|pod| pod.uid.clone());
        let facts = uid.and_then(|uid| self.with_tools(|pods, tools| pods.facts(&uid, tools)));
        let key = match &facts {
            Some(EnrolmentFacts::Enrolled(key, _)) => Some(key.clone()),
            _ => None,
        };
        let pod = match facts {
            None => Standing::Unknown,
            Some(EnrolmentFacts::Waiting(reason, seconds)) => Standing::Waiting { reason, seconds },
            Some(EnrolmentFacts::Enrolled(_, facts)) => Standing::Enrolled(facts),
        };
        let homes = key.as_ref().map(|key| self.workers.homes(key)).unwrap_or_default();
        let live = Live { serving: self.serving, mark: self.config.mark, pod, homes };
        let mut told = self.world.explain(&question, &live, monotonic_ns());
        if told.service_port.is_some() && !told.endpoints.is_empty() {
            self.explain_limits(&question, key.as_ref(), &mut told);
            explain_time(&question.request, &mut told);
        }
        Ok(told)
    }

    /// What the pod may have under way, and has.
    fn explain_limits(&self, question: &Question, key: Option<&PodKey>, told: &mut Explanation) {
        let breaker = told.balancing.circuit_breaker;
        let limits = breaker.over(self.config.protection.circuit);
        let by = |own: Option<u32>, flag: &'static str| if own.is_some() { CIRCUIT_BREAKER } else { flag };
        let used = key.zip(told.port.as_ref()).map(|(key, port)| self.workers.circuit(key, port));
        let [calls, pending, connections] = used.unwrap_or_default();
        let (held, _) = key.map_or((0, 0), |key| self.workers.pod_memory(key));
        let memory = self.config.protection.pod_memory;
        let open = [(calls, limits.calls), (pending, limits.pending), (connections, limits.connections)];
        let answer = match (open.iter().any(|(used, limit)| used >= limit), held >= memory) {
            (false, false) => "none now",
            (true, _) => "its circuit is open: further calls are answered UNAVAILABLE",
            (false, true) => "its memory is used up: further calls are answered RESOURCE_EXHAUSTED",
        };
        told.step(
            "Which limit would stop it?",
            answer,
            vec![
                format!(
                    "{} has {calls} calls under way to it, of {} at most ({})",
                    question.pod,
                    limits.calls,
                    by(breaker.requests, "--max-calls")
                ),
                format!(
                    "of these {pending} wait, of {} at most ({})",
                    limits.pending,
                    by(breaker.pending, "--max-pending-calls")
                ),
                format!(
                    "{connections} connections to its servers, of {} at most ({})",
                    limits.connections,
                    by(breaker.connections, "--max-server-connections")
                ),
                format!("{held} bytes held, of {memory} at most (--pod-memory)"),
            ],
        );
    }
}

/// Deadlines and what is sent again.
fn explain_time(request: &FieldList, told: &mut Explanation) {
    let given = request.find(Name::GrpcTimeout);
    let grace_ms = DEADLINE_GRACE_NS / 1_000_000;
    let (answer, detail) = match given.map(parse_timeout) {
        None => (
            "none, as the call has no grpc-timeout".to_owned(),
            "it may take as long as its client waits; a route has none of its own".to_owned(),
        ),
        Some(None) => (
            "none: its grpc-timeout is none".to_owned(),
            "expected 1 to 8 digits and a unit of H, M, S, m, u or n".to_owned(),
        ),
        Some(Some(timeout_ns)) => (
            format!("{} ms from its first byte here", timeout_ns / 1_000_000),
            format!(
                "what is left of it goes to the server; {grace_ms} ms after it the agent answers DEADLINE_EXCEEDED, so that the server's \
                 own word wins"
            ),
        ),
    };
    told.step("What is its deadline?", answer, vec![detail]);
    let unasked =
        "a connection that is refused: up to three endpoints; a stream that is refused (REFUSED_STREAM, GOAWAY): once".to_owned();
    let (answer, asked) = match told.balancing.retry {
        Some(policy) => (
            "another gets it, where no server can have processed it, and where the Service's policy says so",
            format!(
                "{RETRY}: {policy}; of gRPC calls alone, and of none that an answer's headers have come to"
            ),
        ),
        None => (
            "another gets it, where no server can have processed it",
            format!("nothing is sent again once a server may have begun it: the Service has no {RETRY}"),
        ),
    };
    told.step("What if that endpoint does not take it?", answer, vec![unasked, asked]);
    debug_assert!(told.outcome != Outcome::Unresolved, "what has endpoints has an address");
}
