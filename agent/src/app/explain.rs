//! `/explain`: what [`control`](crate::control::explain) says of a call, with what only the node knows: how the pod stands, and what it has
//! under way.

use super::enrolments::EnrolmentFacts;
use super::node::Node;
use crate::admin::Filter;
use crate::clock::monotonic_ns;
use crate::control::explain::{Explanation, Heart, Live, Outcome, Question, Standing};
use crate::http2::{FieldList, Name};
use crate::mesh::PodKey;
use crate::proxy::{DEADLINE_GRACE_NS, parse_timeout};
use crate::sources::kubernetes::labels::{CIRCUIT_BREAKER, RETRY};
use evenkeel_common::HEARTBEAT_LIMIT_NS;
use std::time::Duration;

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
        let silent_ms = self.workers.view().iter().map(|worker| worker.silent_ms).max();
        let heart = heart(self.serving, silent_ms.unwrap_or(0));
        let live = Live { heart, mark: self.config.mark, pod, homes };
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
        let reached = Reached {
            calls: calls >= limits.calls,
            memory: held >= memory,
            pending: pending >= limits.pending,
            connections: connections >= limits.connections,
        };
        told.step(
            "Which limit would stop it?",
            reached.answer(),
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
        if let Some(why) = reached.refusal() {
            told.refused(why);
        }
    }
}

/// What the programs at `connect()` see of the heartbeat: it is the oldest of the worker threads' ticks.
fn heart(serves: bool, silent_ms: u64) -> Heart {
    match serves {
        false => Heart::Stopped,
        true if silent_ms * 1_000_000 > HEARTBEAT_LIMIT_NS => Heart::Silent(silent_ms),
        true => Heart::Beats,
    }
}

/// Which limits are reached.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    calls: bool,
    memory: bool,
    pending: bool,
    connections: bool,
}

impl Reached {
    /// How every further call is answered, if it is.
    fn refusal(self) -> Option<&'static str> {
        match self {
            Self { calls: true, .. } => Some("UNAVAILABLE: its circuit is open"),
            Self { memory: true, .. } => Some("RESOURCE_EXHAUSTED: the pod's memory is used up"),
            _ => None,
        }
    }

    fn answer(self) -> String {
        if let Some(why) = self.refusal() {
            return format!("a further call is answered {why}");
        }
        let mut some = Vec::new();
        if self.pending {
            some.push("none that can go out at once; one that has to wait is answered UNAVAILABLE");
        }
        if self.connections {
            // The pool's rule: calls of an endpoint that has connections wait for these.
            some.push("none whose endpoint has a connection; no other is opened, and without one a call is answered UNAVAILABLE");
        }
        if some.is_empty() { "none now".to_owned() } else { some.join("; ") }
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
            format!("{:?} from its first byte here", Duration::from_nanos(timeout_ns)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_which_calls_it_stops() {
        let none = Reached::default();
        for (reached, refusal, said) in [
            (none, None, "none now"),
            (Reached { connections: true, ..none }, None, "none whose endpoint has a connection"),
            (Reached { pending: true, ..none }, None, "one that has to wait is answered UNAVAILABLE"),
            (Reached { pending: true, connections: true, ..none }, None, "UNAVAILABLE; none whose endpoint"),
            (Reached { calls: true, connections: true, ..none }, Some("UNAVAILABLE"), "a further call is"),
            (
                Reached { memory: true, pending: true, ..none },
                Some("RESOURCE_EXHAUSTED"),
                "RESOURCE_EXHAUSTED",
            ),
            (Reached { memory: true, calls: true, ..none }, Some("UNAVAILABLE"), "a further call is"),
        ] {
            let answer = reached.answer();
            assert!(answer.contains(said), "{reached:?}: {answer}");
            let code = reached.refusal().and_then(|why| why.split(':').next());
            assert_eq!(code, refusal, "{reached:?}");
        }
    }

    #[test]
    fn the_heart_beats_as_long_as_no_thread_is_silent_for_longer_than_the_programs_bear() {
        let limit_ms = HEARTBEAT_LIMIT_NS / 1_000_000;
        for (serves, silent_ms, expected) in [
            (true, 0, Heart::Beats),
            (true, limit_ms, Heart::Beats),
            (true, limit_ms + 1, Heart::Silent(limit_ms + 1)),
            (false, 0, Heart::Stopped),
            (false, limit_ms + 1, Heart::Stopped),
        ] {
            assert_eq!(heart(serves, silent_ms), expected, "{serves} {silent_ms}");
        }
    }
}
