//! Which endpoints are left out for a time because they fail calls: passive health, as one source pod's calls see it.
//!
//! The rules are those of Envoy's outlier detection and gRFC A50: an endpoint that fails [`CONSECUTIVE_FAILURES`] calls in a row,
//! or, where a Service asks for it, whose success rate is far below the others', gets no calls for [`BASE_NS`] times how often
//! that has happened lately. Other pods of the node follow when two or more have left an endpoint out
//! ([`LeftOut`]): one pod that provokes errors, or that a NetworkPolicy stops, takes it from nobody else.

use crate::mesh::{Ejection, EjectionReason, Endpoint, LeftOut};
use std::sync::Arc;

/// Failures in a row: Envoy's number.
pub const CONSECUTIVE_FAILURES: u32 = 5;
/// The first ejection lasts so long, the second of an endpoint that fails again twice as long (gRFC A50, as the two below).
pub const BASE_NS: u64 = 30_000_000_000;
/// And none longer.
pub const MOST_NS: u64 = 300_000_000_000;
/// Each such time in which an endpoint was not left out takes one off its count of ejections; success rates are of this time.
pub const INTERVAL_NS: u64 = 10_000_000_000;
/// One source leaves out at most this share of the endpoints that there are, in percent, though one of two: the others have to bear
/// their calls.
pub const MOST_EJECTED_PERCENT: usize = 50;
/// Where fewer than this share of the endpoints is left, in percent, all are used (Envoy's panic threshold): the fault lies
/// elsewhere, or the few that are left would fall next.
pub const PANIC_BELOW_PERCENT: usize = 50;
/// Success rates are compared among so many endpoints at least, of which each has answered so many calls in the interval, and one
/// that is so many standard deviations below the mean is an outlier (gRFC A50).
pub const SUCCESS_RATE_HOSTS: usize = 5;
/// See [`SUCCESS_RATE_HOSTS`].
pub const SUCCESS_RATE_CALLS: u32 = 100;
/// See [`SUCCESS_RATE_HOSTS`].
pub const SUCCESS_RATE_DEVIATIONS: f64 = 1.9;

/// What a call says about its endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It answered, with a status that is not a fault of its own.
    Success,
    /// It failed the call.
    Failure,
    /// The call fell with its connection, or with the try to open one: all that fall at one moment count once.
    LostConnection,
}

/// What is known of one endpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Health {
    failures_in_a_row: u32,
    lost_connection_ns: u64,
    /// 0: it is not left out by this source.
    ejected_until_ns: u64,
    /// Until when it is left out, by whomever that was decided.
    out_until_ns: u64,
    /// Ejections lately: what the length of the next one follows from.
    ejections: u32,
    /// In this interval.
    successes: u32,
    failures: u32,
}

/// The endpoints of a backend that one source pod's calls pass over.
#[derive(Debug, Default)]
pub struct Ejections {
    endpoints: Vec<Health>,
    /// How many endpoints the calls could go to: as a rule these, but these may be a part of a large Service, or those nearby.
    of: usize,
    /// Whether any endpoint is left out, and not so many that all are used.
    heeded: bool,
    /// Whether any endpoint was left out at the last look, by whomever.
    any_out: bool,
    /// Whether any endpoint was left out by this source lately.
    remembers: bool,
    interval_ends_ns: u64,
    #[cfg(test)]
    pub(super) passes: u32,
}

/// Whether ejections count, where so many `of` all endpoints are out: not where all are used because too few are left.
pub fn are_heeded(out: usize, of: usize) -> bool {
    out > 0 && (of - out) * 100 >= of * PANIC_BELOW_PERCENT
}

/// Until when an endpoint is left out of one source's calls, by whomever. Without a rule only the answers to health checks count.
pub fn out_until_ns(rule: Ejection, left_out: &LeftOut, source: u64, now_ns: u64) -> u64 {
    match rule {
        Ejection::Off => left_out.unhealthy_until_ns(),
        _ => left_out.until_for(source, now_ns),
    }
}

impl Ejections {
    /// Nothing is known of so many endpoints, a part `of` all that the calls could go to.
    pub fn new(endpoints: usize, of: usize) -> Self {
        Self { endpoints: vec![Health::default(); endpoints], of, ..Self::default() }
    }

    /// What is known where `moved` has pairs of an endpoint's index and the one that it had in `before`.
    #[must_use]
    pub fn carried_over(
        before: &Self,
        endpoints: usize,
        of: usize,
        moved: impl Iterator<Item = (usize, usize)>,
    ) -> Self {
        let Self { heeded, remembers, interval_ends_ns, .. } = *before;
        let mut next = Self { heeded, remembers, interval_ends_ns, ..Self::new(endpoints, of) };
        for (to, from) in moved {
            next.endpoints[to] = before.endpoints[from];
        }
        next
    }

    /// Whether any endpoint is to be passed over: if not, none has to be looked at.
    pub fn heeded(&self) -> bool {
        self.heeded
    }

    /// Whether so many are out that all are used.
    pub fn in_panic(&self, now_ns: u64) -> bool {
        !self.heeded && self.any_out(now_ns)
    }

    /// Whether any is out, be that heeded or not.
    pub fn any_out(&self, now_ns: u64) -> bool {
        self.any_out && self.endpoints.iter().any(|health| health.out_until_ns > now_ns)
    }

    /// How many of those for which `counts` holds are not out.
    pub fn left(&self, counts: impl Fn(usize) -> bool, now_ns: u64) -> usize {
        let is_left = |(index, health): &(usize, &Health)| counts(*index) && health.out_until_ns <= now_ns;
        self.endpoints.iter().enumerate().filter(is_left).count()
    }

    /// Whether this endpoint is to be passed over.
    pub fn is_out(&self, endpoint: usize, now_ns: u64) -> bool {
        self.heeded && self.endpoints[endpoint].out_until_ns > now_ns
    }

    /// A call has ended. True if the endpoint is left out from now on.
    pub fn observe(
        &mut self,
        endpoint: usize,
        observation: Observation,
        rule: Ejection,
        endpoints: &[Arc<Endpoint>],
        source: u64,
        now_ns: u64,
    ) -> bool {
        let health = &mut self.endpoints[endpoint];
        if observation == Observation::Success {
            // Nobody takes them back to zero where nobody asks for them.
            health.successes += u32::from(rule == Ejection::SuccessRate);
            health.failures_in_a_row = 0;
            return false;
        }
        if observation == Observation::LostConnection {
            if health.lost_connection_ns == now_ns {
                return false;
            }
            health.lost_connection_ns = now_ns;
        }
        health.failures += u32::from(rule == Ejection::SuccessRate);
        health.failures_in_a_row = health.failures_in_a_row.saturating_add(1);
        rule != Ejection::Off
            && health.failures_in_a_row >= CONSECUTIVE_FAILURES
            && self.eject(endpoint, rule, EjectionReason::ConsecutiveFailures, endpoints, source, now_ns)
    }

    /// Leaves an endpoint out, unless too many are; whether it does.
    fn eject(
        &mut self,
        endpoint: usize,
        rule: Ejection,
        reason: EjectionReason,
        endpoints: &[Arc<Endpoint>],
        source: u64,
        now_ns: u64,
    ) -> bool {
        if self.of < 2 || self.endpoints[endpoint].ejected_until_ns > now_ns {
            return false;
        }
        let out = self.endpoints.iter().filter(|health| health.ejected_until_ns > now_ns).count();
        if out >= (self.of * MOST_EJECTED_PERCENT / 100).max(1) {
            return false;
        }
        self.remembers = true;
        let health = &mut self.endpoints[endpoint];
        health.ejections += 1;
        health.failures_in_a_row = 0;
        let until_ns = now_ns + (BASE_NS * u64::from(health.ejections)).min(MOST_NS);
        health.ejected_until_ns = until_ns;
        endpoints[endpoint].load.left_out.add(source, until_ns, reason, now_ns);
        self.learn_who_is_out(rule, endpoints, source, now_ns);
        true
    }

    /// To be called about once a second: endpoints come back, other pods' ejections are learnt of, and at the end of an interval
    /// success rates are compared. The endpoints that are left out from now on because of these.
    pub fn review(
        &mut self,
        rule: Ejection,
        endpoints: &[Arc<Endpoint>],
        source: u64,
        now_ns: u64,
    ) -> Vec<usize> {
        if rule != Ejection::SuccessRate && !self.remembers {
            self.learn_who_is_out(rule, endpoints, source, now_ns);
            return Vec::new();
        }
        for health in &mut self.endpoints {
            if health.ejected_until_ns > 0 && (health.ejected_until_ns <= now_ns || rule == Ejection::Off) {
                health.ejected_until_ns = 0;
                // Calls that were there already have failed meanwhile.
                health.failures_in_a_row = 0;
            }
        }
        self.learn_who_is_out(rule, endpoints, source, now_ns);
        if now_ns < self.interval_ends_ns {
            return Vec::new();
        }
        self.interval_ends_ns = now_ns + INTERVAL_NS;
        let mut ejected = if rule == Ejection::SuccessRate { self.outliers() } else { Vec::new() };
        let reason = EjectionReason::SuccessRate;
        ejected.retain(|outlier| self.eject(*outlier, rule, reason, endpoints, source, now_ns));
        self.remembers = false;
        for health in &mut self.endpoints {
            (health.successes, health.failures) = (0, 0);
            if health.ejected_until_ns == 0 {
                health.ejections = health.ejections.saturating_sub(1);
            }
            self.remembers |= health.ejections > 0;
        }
        ejected
    }

    /// Who is out, by whomever that was decided.
    pub fn learn_who_is_out(
        &mut self,
        rule: Ejection,
        endpoints: &[Arc<Endpoint>],
        source: u64,
        now_ns: u64,
    ) {
        // Of a node's tens of thousands of endpoints most never fail.
        if !LeftOut::may_be_any(now_ns) {
            (self.heeded, self.any_out) = (false, false);
            return;
        }
        #[cfg(test)]
        (self.passes += 1);
        let mut out = 0;
        for (health, endpoint) in self.endpoints.iter_mut().zip(endpoints) {
            let until_ns = out_until_ns(rule, &endpoint.load.left_out, source, now_ns);
            let own_ns = if rule == Ejection::Off { 0 } else { health.ejected_until_ns };
            health.out_until_ns = until_ns.max(own_ns);
            out += usize::from(health.out_until_ns > now_ns);
        }
        self.any_out = out > 0;
        self.heeded = are_heeded(out, self.endpoints.len());
    }

    /// Endpoints whose success rate is far below the others' (gRFC A50, "success rate algorithm").
    fn outliers(&self) -> Vec<usize> {
        let rate = |health: &Health| {
            let calls = health.successes + health.failures;
            (calls >= SUCCESS_RATE_CALLS).then(|| f64::from(health.successes) / f64::from(calls))
        };
        let rates: Vec<(usize, f64)> = self
            .endpoints
            .iter()
            .enumerate()
            .filter_map(|(index, health)| Some((index, rate(health)?)))
            .collect();
        if rates.len() < SUCCESS_RATE_HOSTS {
            return Vec::new();
        }
        let mean_of = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / rates.len() as f64;
        let mean = mean_of(&mut rates.iter().map(|(_, rate)| *rate));
        let deviation = mean_of(&mut rates.iter().map(|(_, rate)| (rate - mean).powi(2))).sqrt();
        let least = mean - deviation * SUCCESS_RATE_DEVIATIONS;
        rates.into_iter().filter(|(_, rate)| *rate < least).map(|(index, _)| index).collect()
    }
}
