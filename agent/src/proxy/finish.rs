//! A call's end: the one place where its outcome is counted.

use super::call::{Outcome, Response, Stage};
use super::engine::Engine;
use super::error_reply::{self, About, Cause};
use super::measure::{self, GrpcStatus};
use crate::balance::Observation;
use crate::balance::latency::{self, Sample};
use crate::http2::{ErrorCode, FieldList, Name};
use crate::telemetry::{CallEnd, Flag, RESOURCE_EXHAUSTED, is_grpc_failure, is_http_failure};
use std::sync::atomic::Ordering::Relaxed;

/// What an attempt says about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing beyond what its latency said.
    None,
    /// It is well.
    Success,
    /// It would not do more for this caller: it gets less, and is not ejected for it.
    Exhausted,
    /// It failed the call.
    Failure,
    /// The call fell with its connection, or with the try to open one, and others with it.
    LostConnection,
}

impl Verdict {
    fn is_failure(self) -> bool {
        matches!(self, Self::Exhausted | Self::Failure | Self::LostConnection)
    }

    fn observation(self) -> Option<Observation> {
        match self {
            Self::None | Self::Exhausted => None,
            Self::Success => Some(Observation::Success),
            Self::Failure => Some(Observation::Failure),
            Self::LostConnection => Some(Observation::LostConnection),
        }
    }
}

impl Engine {
    /// The server's answer has come to its end; the last header list is in the engine's field list.
    pub(super) fn response_complete(&mut self, call: u32) {
        let slot = &mut self.calls[call];
        slot.response = Response::Complete;
        let is_grpc = slot.is_grpc;
        let verdict = if is_grpc {
            let status = grpc_status(&self.fields);
            let measured = &mut slot.measured;
            measured.grpc_status = status.unwrap_or_else(|| GrpcStatus::of_http(measured.http_status));
            grpc_verdict(status)
        } else if slot.server_failed {
            Verdict::Failure
        } else {
            Verdict::Success
        };
        self.finish(call, Outcome::Answered(verdict));
        if is_grpc {
            // The status ends the call, whatever the client still sends.
            self.detach(call);
        }
        self.check_done(call);
    }

    /// Ends the call with an answer of the agent's own, wherever it stands.
    pub(super) fn fail(&mut self, call: u32, cause: Cause) {
        if self.calls[call].response == Response::Complete {
            return;
        }
        self.leave_stage(call, ErrorCode::Cancel);
        self.answer(call, cause);
    }

    /// Ends a call of which nothing more is sent: where its answer stands, only the rest of the request, which nobody wants.
    pub(super) fn give_up(&mut self, call: u32, cause: Cause) {
        if self.calls[call].response == Response::Complete {
            self.detach(call);
            self.check_done(call);
        } else {
            self.fail(call, cause);
        }
    }

    /// Answers a call that is at no server.
    pub(super) fn answer(&mut self, call: u32, cause: Cause) {
        let slot = &self.calls[call];
        // Between the client's deadline and the agent's own, which leaves the server's status a moment to come: what a server does
        // then, it does because of the deadline.
        let is_late = slot.is_out_of_time(self.now_ns)
            && matches!(
                cause,
                Cause::Reset { .. } | Cause::Lost { .. } | Cause::Refused { .. } | Cause::NoEndpoint
            );
        let cause = if is_late { Cause::Deadline } else { cause };
        if self.retries_after(call, cause) {
            return;
        }
        let slot = &mut self.calls[call];
        let target = &self.targets.slots[slot.target as usize];
        let about = About {
            service: target.destination.as_ref().map(|destination| &destination.backend.service_port),
            source: &target.origin,
        };
        let client = &mut self.downstreams[slot.downstream as usize];
        match slot.response {
            Response::Nothing => {
                error_reply::trailers_only(&mut self.reply, slot, cause, about);
                slot.note_answer(cause);
                client.http2.send_headers(slot.stream, &self.reply, true);
            }
            // A client that does not read what is there will not read a status behind it.
            Response::Headers
                if matches!(cause, Cause::Deadline | Cause::Memory { .. })
                    && client.http2.queued(slot.stream) > 0 =>
            {
                client.http2.reset(slot.stream, cause.reset_code());
                slot.note_reset(cause.reset_code());
            }
            Response::Headers if slot.is_grpc && !slot.response_is_sized => {
                error_reply::trailers(&mut self.reply, cause, about);
                slot.measured.grpc_status = GrpcStatus::of(cause.grpc_status());
                client.http2.send_trailers(slot.stream, &self.reply);
            }
            Response::Headers => {
                client.http2.reset(slot.stream, cause.reset_code());
                slot.note_reset(cause.reset_code());
            }
            Response::Complete => {}
        }
        self.answered(call, cause);
    }

    /// An answer of the agent's own is on its way.
    pub(super) fn answered(&mut self, call: u32, cause: Cause) {
        let slot = &mut self.calls[call];
        slot.stage = Stage::Answered;
        slot.response = Response::Complete;
        slot.measured.flag = cause.flag();
        let client = &self.downstreams[slot.downstream as usize];
        self.conns.touch(client.conn);
        self.finish(call, Outcome::OwnError(cause));
        self.check_done(call);
    }

    /// The client does not want the call any more, or can't have it. Of an answer that is out already it has missed a part.
    pub(super) fn cancel(&mut self, call: u32, code: ErrorCode, why: Flag) {
        let slot = &mut self.calls[call];
        if !slot.has_been_answered() && slot.measured.flag == Flag::None {
            slot.measured.flag = why;
            // It has not got the one that there is.
            slot.measured.grpc_status = GrpcStatus::NONE;
        }
        self.leave_stage(call, code);
        self.finish(call, Outcome::Cancelled);
        self.end(call);
    }

    /// Takes the call out of whatever it waits for; a stream to a server is reset with `code`.
    pub(super) fn leave_stage(&mut self, call: u32, code: ErrorCode) {
        match self.calls[call].stage {
            Stage::AwaitingEndpoint => {
                let waiting = &mut self.target_of_call(call).waiting;
                waiting.retain(|other| *other != call);
            }
            Stage::AwaitingStream => self.leave_queue(call),
            Stage::Open { upstream, stream } => {
                self.upstreams[upstream as usize].http2.reset(stream, code);
                self.detach(call);
            }
            Stage::Received | Stage::BackingOff | Stage::Answered | Stage::Free => {}
        }
        self.calls[call].stage = Stage::Answered;
    }

    /// Counts the outcome, once.
    fn finish(&mut self, call: u32, outcome: Outcome) {
        let slot = &mut self.calls[call];
        if slot.outcome.is_some() {
            return;
        }
        slot.outcome = Some(outcome);
        self.leave_circuit(call);
        let slot = &self.calls[call];
        if slot.timeout_ns.is_some() || slot.stage == Stage::AwaitingEndpoint {
            self.call_timers.clear(call);
        }
        let counters = &mut self.counters;
        let verdict = match outcome {
            Outcome::Answered(verdict) => {
                counters.answered += 1;
                counters.server_failures += u64::from(verdict.is_failure());
                verdict
            }
            Outcome::OwnError(cause) => {
                counters.own_errors += 1;
                counters.deadlines += u64::from(cause == Cause::Deadline);
                counters.connect_requests += u64::from(cause == Cause::Connect);
                counters.headers_too_large += u64::from(matches!(cause, Cause::TooLarge(_)));
                verdict_of(cause)
            }
            Outcome::Cancelled => {
                counters.cancelled += 1;
                // Clients reset a call when its deadline passes, a moment before the agent would.
                let deadline_ns = self.now_ns.saturating_add(super::deadline::GRACE_NS);
                if slot.response == Response::Nothing && slot.is_out_of_time(deadline_ns) {
                    let is_grpc = slot.is_grpc;
                    let measured = &mut self.calls[call].measured;
                    // What the agent itself reset, its client understands by the reset's code.
                    if matches!(measured.flag, Flag::ClientCancelled | Flag::ClientGone) {
                        measured.flag = Flag::Deadline;
                        if is_grpc {
                            measured.grpc_status = GrpcStatus::of(Cause::Deadline.grpc_status());
                        }
                    }
                    Verdict::Failure
                } else {
                    Verdict::None
                }
            }
        };
        self.leave_endpoint(call, verdict);
    }

    /// The attempt at the call's endpoint is over.
    pub(super) fn leave_endpoint(&mut self, call: u32, verdict: Verdict) {
        let slot = &mut self.calls[call];
        if !std::mem::take(&mut slot.in_load) {
            return;
        }
        let Some(server) = &slot.server else { return };
        let load = &server.load;
        load.active.fetch_sub(1, Relaxed);
        let target = &mut self.targets.slots[slot.target as usize];
        target.candidates.subset.call_ends();
        if verdict.is_failure() {
            load.failures.fetch_add(1, Relaxed);
            latency::observe(load, self.now_ns, self.now_ns.saturating_sub(slot.sent_ns), Sample::Failure);
        }
        let Some(observation) = verdict.observation() else { return };
        let Some(destination) = &target.destination else { return };
        let (backend, source) = (&destination.backend, target.source);
        if target.candidates.observe(slot.endpoint, load, observation, backend, source, self.now_ns) {
            self.counters.ejections += 1;
            let address = self.pools[slot.pool as usize].address;
            tracing::info!(endpoint = %address, "ejected: it failed several calls in a row");
        }
    }

    /// Lets go of what the call needs no longer: the server's stream when both halves are over, the client's when the
    /// answer is out.
    pub(super) fn check_done(&mut self, call: u32) {
        let slot = &self.calls[call];
        if let Stage::Open { upstream, stream } = slot.stage
            && self.upstreams[upstream as usize].http2.is_closed(stream)
        {
            self.detach(call);
        }
        let slot = &self.calls[call];
        if slot.stage == Stage::Answered && slot.response == Response::Complete {
            // Trailers and the stream's end never wait without bytes before them.
            if self.downstreams[slot.downstream as usize].http2.queued(slot.stream) == 0 {
                self.end(call);
            }
        }
    }

    /// The call is over for everyone. Where the client still sends, this tells it to stop.
    fn end(&mut self, call: u32) {
        let slot = &self.calls[call];
        debug_assert!(slot.stage == Stage::Answered && slot.outcome.is_some() && !slot.in_load);
        self.downstreams[slot.downstream as usize].http2.release(slot.stream);
        self.report(call);
        self.leave_downstream(call);
        self.call_timers.clear(call);
        self.release_call_charge(call);
        self.calls.remove(call);
    }
}

impl Engine {
    /// Lends what is known of a call that is over to whoever counts and tells.
    fn report(&mut self, call: u32) {
        let slot = &mut self.calls[call];
        let trace = slot.trace.take();
        let is_counted = self.targets.slots[slot.target as usize].recorder.is_some();
        let is_told = self.audience.is_there();
        if !is_counted && !is_told && trace.is_none() {
            return;
        }
        let stats = slot.stats(self.now_ns);
        if let Some(trace) = trace {
            self.end_span(call, trace, stats);
        }
        let slot = &self.calls[call];
        let target = &mut self.targets.slots[slot.target as usize];
        let end = CallEnd {
            source: target.origin.as_pod().map(|pod| &**pod),
            service_port: &target.service_port,
            original: target.destination.as_ref().map(|destination| destination.original),
            endpoint: slot.server.as_deref(),
            method: target.methods.name(slot.measured.method),
            request: &slot.request,
            stats,
        };
        if let Some(recorder) = &mut target.recorder {
            recorder.record(&end, slot.measured.method);
        }
        if is_told {
            self.audience.tell(&end, || self.random.unit());
        }
    }
}

/// Whether a header list that ends an answer says that the server failed the call.
pub(super) fn is_failure(fields: &FieldList, is_grpc: bool) -> bool {
    if is_grpc {
        grpc_verdict(grpc_status(fields)) != Verdict::Success
    } else {
        is_http_failure(measure::http_status(fields.find(Name::Status)))
    }
}

pub(super) fn grpc_status(fields: &FieldList) -> Option<GrpcStatus> {
    fields.find(Name::GrpcStatus).map(GrpcStatus::parse)
}

/// What an answer of the agent's own says about the endpoint that the call was at.
pub(super) fn verdict_of(cause: Cause) -> Verdict {
    match cause {
        Cause::Reset { .. } | Cause::Malformed { .. } | Cause::Unread { .. } | Cause::Deadline => {
            Verdict::Failure
        }
        Cause::Lost { .. } => Verdict::LostConnection,
        Cause::Refused { .. }
        | Cause::NoEndpoint
        | Cause::NoRoute
        | Cause::Draining
        | Cause::TooLarge(_)
        | Cause::Memory { .. }
        | Cause::Circuit { .. }
        | Cause::Connect => Verdict::None,
    }
}

/// What a gRPC call's status says about its server; having none is a failure. RESOURCE_EXHAUSTED may be a caller's own quota.
pub(super) fn grpc_verdict(status: Option<GrpcStatus>) -> Verdict {
    match status.and_then(GrpcStatus::code) {
        Some(RESOURCE_EXHAUSTED) => Verdict::Exhausted,
        Some(code) if !is_grpc_failure(code) => Verdict::Success,
        Some(_) | None => Verdict::Failure,
    }
}
