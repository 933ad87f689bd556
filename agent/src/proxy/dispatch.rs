//! Which endpoint a call goes to: the pure decisions of [`crate::routing`] and [`crate::balance`], asked for each attempt.
//!
//! From here the call goes to the endpoint's [`super::pool`].

use super::call::{NOWHERE, Stage};
use super::engine::Engine;
use super::error_reply::Cause;
use crate::balance::order::{self, Reach};
use crate::http2::{ErrorCode, LastStream};
use crate::routing::NoRoute;
use crate::{balance, routing};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How long a call waits for a Service without endpoints to have one: a rolling restart leaves such gaps, and beyond it the
/// client shall see what it would see without us.
pub(super) const ENDPOINT_WAIT_NS: u64 = 1_000_000_000;

impl Engine {
    /// Finds the call an endpoint that it has not tried yet, and sends it there.
    pub(super) fn dispatch(&mut self, call: u32) {
        let target = self.calls[call].target;
        self.fit_candidates(target);
        let home = self.targets.slots[target as usize].home();
        let slot = &self.calls[call];
        let state = &self.targets.slots[target as usize];
        let backend = match routing::route(state.destination.as_ref(), &slot.request) {
            Ok(backend) => backend,
            Err(NoRoute::UnknownDestination) => return self.answer(call, Cause::NoRoute),
        };
        if backend.endpoints.is_empty() {
            return self.await_endpoint(call);
        }
        let candidates = &state.candidates;
        let has_all = candidates.has_all(backend);
        let (pools, now) = (&self.pools, self.now_ns);
        let picker = &mut self.downstreams[slot.downstream as usize].picker;
        let pool_of = |endpoint: usize| candidates.pools[endpoint];
        let address_of = |endpoint: usize| candidates.endpoints[endpoint].address;
        let tried = |endpoint: usize| slot.tried.contains(&address_of(endpoint));
        let backs_off = |endpoint: usize| {
            pool_of(endpoint) != NOWHERE && pools[pool_of(endpoint) as usize].back_off_until_ns > now
        };
        let is_out = |endpoint: usize| backs_off(endpoint) || candidates.ejections.is_out(endpoint, now);
        let stays_near = candidates.stays_near(&mut self.random);
        let mut pick = |excluded: &dyn Fn(usize) -> bool| {
            let endpoints = &candidates.endpoints;
            balance::pick(backend, endpoints, Some(&slot.request), picker, &mut self.random, now, excluded)
        };
        let refused = |endpoint: usize| {
            let address = address_of(endpoint);
            slot.refused_by == Some(address) || slot.failed_at.contains(&address)
        };
        let is_usable = |endpoint: usize| !(tried(endpoint) || refused(endpoint) || is_out(endpoint));
        // What it refused to one call, as a server does that sends its clients away, says nothing against its other calls, and a direct
        // client would come back to it with this one.
        let home = home.and_then(|address| candidates.position(address));
        let home = home.filter(|endpoint| !tried(*endpoint) && !is_out(*endpoint));
        let session = home.filter(|endpoint| !slot.failed_at.contains(&address_of(*endpoint)));
        let endpoint = order::first(session, stays_near, |reach| {
            pick(&|endpoint| !is_usable(endpoint) || reach == Reach::Near && candidates.is_far(endpoint))
        });
        if endpoint.is_none() && !has_all {
            self.enlarge_candidates(target);
            return self.dispatch(call);
        }
        let is_left = |endpoint: usize| !tried(endpoint) && !is_out(endpoint);
        let none_is_left = || !(0..candidates.endpoints.len()).any(is_left);
        if endpoint.is_none() && candidates.could_spill(backend) && none_is_left() {
            self.spill_candidates(target);
            return self.dispatch(call);
        }
        let endpoint = endpoint
            .or_else(|| pick(&|endpoint| tried(endpoint) || refused(endpoint)))
            // Where there is no other, a refused stream goes to the same endpoint once more.
            .or_else(|| pick(&tried));
        let Some(endpoint) = endpoint else {
            let cause = match slot.tried[..] {
                [.., last] => Cause::Refused { last, tried: slot.tried.len() as u32 },
                [] => Cause::NoEndpoint,
            };
            return self.answer(call, cause);
        };
        let server = Arc::clone(&candidates.endpoints[endpoint]);
        let moves_to = (home.is_none() && state.has_affinity()).then(|| address_of(endpoint));
        server.load.active.fetch_add(1, Relaxed);
        server.load.calls.fetch_add(1, Relaxed);
        let state = &mut self.targets.slots[target as usize];
        state.candidates.subset.call_begins();
        if let Some(address) = moves_to {
            state.home.set(address);
        }
        let slot = &mut self.calls[call];
        slot.server = Some(server);
        slot.in_load = true;
        slot.endpoint = endpoint as u32;
        slot.measured.attempts = slot.measured.attempts.saturating_add(1);
        if let Some(cause) = slot.again_for.take() {
            self.counters.count_again(cause);
        }
        let pool = self.pool_of(target, endpoint);
        self.place(call, pool);
    }

    fn await_endpoint(&mut self, call: u32) {
        if !self.enter_pending(call) {
            return self.refuse_pending(call);
        }
        self.calls[call].stage = Stage::AwaitingEndpoint;
        self.target_of_call(call).waiting.push(call);
        self.set_call_timer(call);
    }

    /// Sets the call's timer to its deadline, or to the end of its wait for an endpoint or for another attempt.
    pub(super) fn set_call_timer(&mut self, call: u32) {
        let slot = &self.calls[call];
        let deadline = slot.deadline_ns();
        let wait = match slot.stage {
            Stage::AwaitingEndpoint => Some(self.now_ns + ENDPOINT_WAIT_NS),
            Stage::BackingOff => Some(slot.again_at_ns),
            _ => None,
        };
        match deadline.into_iter().chain(wait).min() {
            Some(at) => self.call_timers.set(call, at),
            None => self.call_timers.clear(call),
        }
    }

    pub(super) fn call_timer_fired(&mut self, call: u32) {
        let slot = &self.calls[call];
        if slot.deadline_ns().is_some_and(|at| at <= self.now_ns) {
            self.fail(call, Cause::Deadline);
        } else if slot.stage == Stage::AwaitingEndpoint {
            self.refuse(call);
        } else if slot.stage == Stage::BackingOff && slot.again_at_ns <= self.now_ns {
            self.end_backoff(call);
        } else {
            self.set_call_timer(call);
        }
    }

    /// No endpoint has come. The client of a pod is sent back to its connect(), which the kernel leaves alone for such a
    /// Service: it sees what it would see without us. `evenkeel proxy` has nowhere to send it and answers.
    fn refuse(&mut self, call: u32) {
        self.leave_stage(call, ErrorCode::Cancel);
        let slot = &self.calls[call];
        let (downstream, stream) = (slot.downstream, slot.stream);
        if self.target_of_call(call).origin.pod().is_none() {
            return self.answer(call, Cause::NoEndpoint);
        }
        self.downstreams[downstream as usize].http2.reset(stream, ErrorCode::RefusedStream);
        self.calls[call].note_reset(ErrorCode::RefusedStream);
        self.send_client_away(downstream, LastStream::Seen);
        self.answered(call, Cause::NoEndpoint);
    }
}
