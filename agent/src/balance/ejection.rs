//! Which endpoints are left out for a time because they fail calls: passive health, as one source pod's calls see it.
//!
//! The rules are those of Envoy's outlier detection and gRFC A50: an endpoint that fails [`CONSECUTIVE_FAILURES`] calls in a row,
//! or, where a Service asks for it, whose success rate is far below the others', gets no calls for [`BASE_NS`] times how often
//! that has happened lately. Other pods of the node follow when two or more have left an endpoint out
//! ([`LeftOut`](crate::mesh::LeftOut)): one pod that provokes errors, or that a NetworkPolicy stops, takes it from nobody else.

use crate::mesh::{Ejection, EjectionReason, Endpoint};
use std::sync::Arc;

/// Failures in a row: Envoy's number.
pub const CONSECUTIVE_FAILURES: u32 = 5;
/// The first ejection lasts so long, the second of an endpoint that fails again twice as long (gRFC A50, as the two below).
pub const BASE_NS: u64 = 30_000_000_000;
/// And none longer.
pub const MOST_NS: u64 = 300_000_000_000;
/// Each such time in which an endpoint was not left out takes one off its count of ejections; success rates are of this time.
pub const INTERVAL_NS: u64 = 10_000_000_000;
/// One source leaves out at most this share of the endpoints, in percent, though one of two: the others have to bear their calls.
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
    /// Whether any endpoint is left out, and not so many that all are used.
    heeded: bool,
    interval_ends_ns: u64,
}

/// Whether ejections count, where so many `of` all endpoints are out: not where all are used because too few are left.
pub fn are_heeded(out: usize, of: usize) -> bool {
    out > 0 && (of - out) * 100 >= of * PANIC_BELOW_PERCENT
}

impl Ejections {
    /// Nothing is known of so many endpoints.
    pub fn new(endpoints: usize) -> Self {
        Self { endpoints: vec![Health::default(); endpoints], ..Self::default() }
    }

    /// What is known where `moved` has pairs of an endpoint's index and the one that it had in `before`.
    #[must_use]
    pub fn carried_over(
        before: &Self,
        endpoints: usize,
        moved: impl Iterator<Item = (usize, usize)>,
    ) -> Self {
        let mut next =
            Self { heeded: before.heeded, interval_ends_ns: before.interval_ends_ns, ..Self::new(endpoints) };
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
        !self.heeded && self.endpoints.iter().any(|health| health.out_until_ns > now_ns)
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
            health.successes += 1;
            health.failures_in_a_row = 0;
            return false;
        }
        if observation == Observation::LostConnection {
            if health.lost_connection_ns == now_ns {
                return false;
            }
            health.lost_connection_ns = now_ns;
        }
        health.failures += 1;
        health.failures_in_a_row += 1;
        rule != Ejection::Off
            && health.failures_in_a_row >= CONSECUTIVE_FAILURES
            && self.eject(endpoint, EjectionReason::ConsecutiveFailures, endpoints, source, now_ns)
    }

    /// Leaves an endpoint out, unless too many are; whether it does.
    fn eject(
        &mut self,
        endpoint: usize,
        reason: EjectionReason,
        endpoints: &[Arc<Endpoint>],
        source: u64,
        now_ns: u64,
    ) -> bool {
        let count = self.endpoints.len();
        let out = self.endpoints.iter().filter(|health| health.ejected_until_ns > now_ns).count();
        let most = (count * MOST_EJECTED_PERCENT / 100).max(1);
        let health = &mut self.endpoints[endpoint];
        if count < 2 || out >= most || health.ejected_until_ns > now_ns {
            return false;
        }
        health.ejections += 1;
        health.failures_in_a_row = 0;
        let until_ns = now_ns + (BASE_NS * u64::from(health.ejections)).min(MOST_NS);
        health.ejected_until_ns = until_ns;
        endpoints[endpoint].load.left_out.add(source, until_ns, reason, now_ns);
        self.review_who_is_out(endpoints, source, now_ns);
        true
    }

    /// To be called about once a second: endpoints come back, other pods' ejections are learnt of, and at the end of an interval
    /// success rates are compared. The number of endpoints that are left out from now on.
    pub fn review(&mut self, rule: Ejection, endpoints: &[Arc<Endpoint>], source: u64, now_ns: u64) -> usize {
        for health in &mut self.endpoints {
            if health.ejected_until_ns <= now_ns {
                health.ejected_until_ns = 0;
            }
        }
        self.review_who_is_out(endpoints, source, now_ns);
        if now_ns < self.interval_ends_ns {
            return 0;
        }
        self.interval_ends_ns = now_ns + INTERVAL_NS;
        let mut ejected = 0;
        if rule == Ejection::SuccessRate {
            for outlier in self.outliers() {
                ejected +=
                    usize::from(self.eject(outlier, EjectionReason::SuccessRate, endpoints, source, now_ns));
            }
        }
        for health in &mut self.endpoints {
            (health.successes, health.failures) = (0, 0);
            if health.ejected_until_ns == 0 {
                health.ejections = health.ejections.saturating_sub(1);
            }
        }
        ejected
    }

    fn review_who_is_out(&mut self, endpoints: &[Arc<Endpoint>], source: u64, now_ns: u64) {
        let mut out = 0;
        for (health, endpoint) in self.endpoints.iter_mut().zip(endpoints) {
            let left_out = &endpoint.load.left_out;
            health.out_until_ns = health.ejected_until_ns.max(left_out.until_for(source, now_ns));
            out += usize::from(health.out_until_ns > now_ns);
        }
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
