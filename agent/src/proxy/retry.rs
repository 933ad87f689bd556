//! Calls that are sent again because the Service asks for it (gRFC A6), though a server may have processed them.
//!
//! What decides is the status that the client would get, from a server or from the agent itself, before anything of the answer
//! has gone to it. What is sent again waits for its time and goes on to [`super::dispatch`]; what is not, is answered as ever.
//! What a server never processed is sent again without being asked: [`super::upstream`].

use super::budget::Level;
use super::call::Stage;
use super::circuit;
use super::engine::Engine;
use super::error_reply::Cause;
use super::finish::{self, Verdict};
use crate::http2::Name;
use crate::mesh::RetryPolicy;
use crate::telemetry::RetryCause;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

/// So many calls of a source to a Service port may be on a further attempt at a time, however few there are (Envoy's number).
const LEAST_BUDGET: u32 = 3;

/// A waiting time is spread by so much to each side (gRFC A6), so that calls that failed together do not come back together.
const JITTER: f64 = 0.2;

const MS_IN_NS: u64 = 1_000_000;

impl Engine {
    /// A server has answered with nothing but the status in the engine's field list. True if the call is sent again instead.
    pub(super) fn retries_after_status(&mut self, call: u32) -> bool {
        if self.calls.find(call).is_none() {
            return false;
        }
        let Some(policy) = self.retry_policy(call) else { return false };
        let status = self.fields.find(Name::GrpcStatus).and_then(|text| number(text, u8::MAX.into()));
        let Some(status) = status.map(|status| status as u8).filter(|status| policy.on.contains(*status))
        else {
            return false;
        };
        let pushback_ms = match self.fields.find(Name::GrpcRetryPushbackMs) {
            None => None,
            Some(text) => match number(text, i32::MAX as u32) {
                // It says that it does not want it again, or what nobody can read.
                None => return false,
                pushback_ms => pushback_ms,
            },
        };
        let verdict = finish::grpc_verdict(finish::grpc_status(&self.fields));
        let at = self.server_address(call);
        self.send_again(call, policy, at, status, pushback_ms, verdict)
    }

    /// The agent is to answer a call that is at no server, as its server failed. True if the call is sent again instead.
    pub(super) fn retries_after(&mut self, call: u32, cause: Cause) -> bool {
        let at = match cause {
            Cause::Reset { by, .. } => by,
            Cause::Lost { to } => to,
            Cause::Refused { last, .. } => last,
            _ => return false,
        };
        let Some(policy) = self.retry_policy(call) else { return false };
        let status = cause.grpc_status();
        policy.on.contains(status)
            && self.send_again(call, policy, at, status, None, finish::verdict_of(cause))
    }

    fn retry_policy(&self, call: u32) -> Option<RetryPolicy> {
        let slot = &self.calls[call];
        let destination = self.targets.slots[slot.target as usize].destination.as_ref()?;
        destination.backend.balancing.retry.filter(|_| slot.is_grpc)
    }

    /// Sends the call again after a while, if policy, deadline and budget let it, and it is still held.
    fn send_again(
        &mut self,
        call: u32,
        policy: RetryPolicy,
        at: SocketAddr,
        status: u8,
        pushback_ms: Option<u32>,
        verdict: Verdict,
    ) -> bool {
        let slot = &self.calls[call];
        if slot.failed_at.len() + 1 >= usize::from(policy.attempts) || !self.can_retry(call) {
            return false;
        }
        // What waits to be sent again holds memory that nothing frees.
        if self.level_of_call(call) == Level::UsedUp {
            return false;
        }
        let wait_ns = match pushback_ms {
            Some(ms) => u64::from(ms) * MS_IN_NS,
            None => {
                let doubled = u64::from(policy.first_backoff_ms) << slot.backoffs;
                let ms = doubled.min(policy.most_backoff_ms.into()) as f64;
                let jitter = 1.0 - JITTER + 2.0 * JITTER * self.random.unit();
                (ms * jitter * MS_IN_NS as f64) as u64
            }
        };
        let again_at_ns = self.now_ns + wait_ns;
        let slot = &self.calls[call];
        if slot.is_out_of_time(again_at_ns) {
            return false;
        }
        if !self.enter_retries(call, policy) {
            self.counters.retries_over_budget += 1;
            return false;
        }
        self.detach(call);
        self.leave_endpoint(call, verdict);
        self.leave_pending(call);
        let slot = &mut self.calls[call];
        slot.stage = Stage::BackingOff;
        slot.again_at_ns = again_at_ns;
        // After a time that the server has set, one's own begin anew.
        slot.backoffs = if pushback_ms.is_some() { 0 } else { slot.backoffs + 1 };
        slot.failed_at.push(at);
        // What takes no connection now may in a while.
        slot.tried.clear();
        // A client that itself sends a call again has told its own attempts.
        let told = slot.request.find(Name::GrpcPreviousRpcAttempts);
        let previous = told.and_then(|text| number(text, u32::MAX - 1)).unwrap_or(0) + 1;
        slot.request.set(Name::GrpcPreviousRpcAttempts, previous.to_string().as_bytes());
        self.note_retry(call, at, RetryCause::Status(status));
        self.charge_call(call);
        self.set_call_timer(call);
        true
    }

    /// Counts the call among those on a further attempt, unless there are too many.
    fn enter_retries(&mut self, call: u32, policy: RetryPolicy) -> bool {
        let slot = &mut self.calls[call];
        if slot.in_retries {
            return true;
        }
        let circuit = &self.targets.slots[slot.target as usize].circuit;
        let share = u64::from(circuit.calls.load(Relaxed)) * u64::from(policy.budget_percent) / 100;
        slot.in_retries = circuit::enter(&circuit.retries, (share as u32).max(LEAST_BUDGET));
        slot.in_retries
    }

    /// The call's time to wait is over.
    pub(super) fn end_backoff(&mut self, call: u32) {
        self.calls[call].stage = Stage::Answered;
        self.set_call_timer(call);
        self.dispatch(call);
    }
}

/// Digits alone.
fn number(text: &[u8], most: u32) -> Option<u32> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()?;
    Some(number).filter(|number| *number <= most)
}
