//! From the backend to the endpoint: who may serve, who is left out, and what the picker would do with the call.

use super::super::destinations;
use super::super::endpoints::{Candidate, TrafficPolicy, Unused};
use super::super::services::{Port, Service};
use super::super::world::World;
use super::question::Question;
use super::{Explanation, Live, Outcome};
use crate::balance::odds::{self, Prospect};
use crate::balance::order::{self, Reach};
use crate::balance::{self, ejection, latency, spill, subset};
use crate::mesh::{Backend, Endpoint, HashOn, Picker};
use crate::sources::rows::{PodRow, ServiceRow};
use schemars::JsonSchema;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The most endpoints that are shown one by one.
const MOST_SHOWN: usize = 500;

/// An endpoint, and what of it the choice goes by.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EndpointOdds {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its topology zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether the call may go to it, or why not: `candidate`, `farther` (when those nearby fail), `ejected`, `unhealthy`, `unused`.
    pub state: &'static str,
    /// The same in words, where it is not a candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How likely the call is to go to it, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub odds_percent: Option<f64>,
    /// Its weight.
    pub weight: u32,
    /// Its share, as a part of the largest: by its weight, and while it is new, by slow start.
    pub share: f64,
    /// Calls under way to it, from this node.
    pub active: u32,
    /// The latency that is expected of it, in microseconds; absent if never measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Latency × (active calls + 1), in microseconds: what the default picker goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_us: Option<u64>,
}

const CANDIDATE: &str = "candidate";
const FARTHER: &str = "farther";

/// Who of some endpoints is left out, of one source's calls.
struct Out {
    until_ns: Vec<u64>,
    /// Whether that counts.
    heeded: bool,
}

impl Out {
    fn of(backend: &Backend, endpoints: &[Arc<Endpoint>], source: u64, now_ns: u64) -> Self {
        let rule = backend.balancing.ejection;
        let until =
            |endpoint: &Arc<Endpoint>| ejection::out_until_ns(rule, &endpoint.load.left_out, source, now_ns);
        let until_ns: Vec<u64> = endpoints.iter().map(until).collect();
        let out = until_ns.iter().filter(|until| **until > now_ns).count();
        Self { heeded: ejection::are_heeded(out, endpoints.len()), until_ns }
    }

    fn count(&self, now_ns: u64) -> usize {
        self.until_ns.iter().filter(|until| **until > now_ns).count()
    }

    fn is_out(&self, endpoint: usize, now_ns: u64) -> bool {
        self.heeded && self.until_ns[endpoint] > now_ns
    }
}

impl World {
    /// Returns how many endpoints the call may go to.
    #[allow(clippy::too_many_arguments, reason = "what the walk has found by now, each another thing")]
    pub(super) fn explain_endpoints(
        &self,
        question: &Question,
        pod: Option<&PodRow>,
        (service, row): (&Service, &ServiceRow),
        (port, address): (&Port, SocketAddr),
        backend: &Arc<Backend>,
        live: &Live,
        now_ns: u64,
        told: &mut Explanation,
    ) -> usize {
        let source = balance::source_of(pod.map_or("", |pod| &pod.uid));
        let near = &backend.endpoints;
        let policy =
            port.frontend(address).map_or(destinations::internal_policy(row), |frontend| frontend.policy);
        let port_row = port_row(row, port);
        let unused = port_row
            .map(|port_row| service.unused_at(row, port_row, (address, policy), self.place()))
            .unwrap_or_default();
        explain_use(&unused, policy, backend, told);
        let by_hash = backend.balancing.picker.is_by_hash();
        let left = near.len() - Out::of(backend, near, source, now_ns).count(now_ns);
        let spilled = match backend.wider.is_empty() || by_hash {
            true => 0.0,
            false => spill::share(left, near.len()),
        };
        let all: Vec<Arc<Endpoint>> = match spilled > 0.0 {
            true => both(near, &backend.wider),
            false => near.to_vec(),
        };
        let out = Out::of(backend, &all, source, now_ns);
        explain_out(&all, &out, source, now_ns, told);
        let is_near: Vec<bool> = all.iter().map(|endpoint| find(near, endpoint.address).is_some()).collect();
        let among = |reach: Reach| {
            let prospect = odds::prospect(backend, &all, &question.request, source, now_ns, |index| {
                out.is_out(index, now_ns) || reach == Reach::Near && !is_near[index]
            });
            (prospect != Prospect::Nobody).then_some(prospect)
        };
        let depends_on_pod = match backend.balancing.hash_on {
            HashOn::Source => by_hash,
            HashOn::Header(_) => backend.balancing.picker == Picker::SourceHash,
        };
        // Under session affinity the pod stays where it was, as long as that serves.
        let home = live.home(&port.key).filter(|_| backend.balancing.picker == Picker::SourceHash);
        let home = home.and_then(|home| find(&all, home));
        let home = home.filter(|home| !out.is_out(*home, now_ns));
        let of_call = |stays_near| order::first(home.map(Prospect::One), stays_near, among);
        let odds = match (of_call(true), of_call(false)) {
            _ if home.is_none() && depends_on_pod && pod.is_none() => Prospect::TooMany,
            (Some(Prospect::Odds(near)), Some(Prospect::Odds(all))) if spilled > 0.0 => {
                let blend = |(near, all): (&f64, &f64)| near * (1.0 - spilled) + all * spilled;
                Prospect::Odds(near.iter().zip(&all).map(blend).collect())
            }
            (prospect, _) => prospect.unwrap_or(Prospect::Nobody),
        };
        explain_picker(question, backend, &all, &odds, spilled, told);
        if let (Prospect::One(index), Outcome::Balanced) = (&odds, told.outcome) {
            told.endpoint = Some(all[*index].address);
        }
        let odds_of = |index: usize| match &odds {
            Prospect::One(one) => Some(if *one == index { 1.0 } else { 0.0 }),
            Prospect::Odds(odds) => Some(odds[index]),
            Prospect::TooMany | Prospect::Nobody => None,
        };
        let is_candidate = |index: &usize| {
            !out.is_out(*index, now_ns) && (is_near[*index] || odds_of(*index).is_some_and(|odds| odds > 0.0))
        };
        let shown = all.iter().enumerate().take(MOST_SHOWN).map(|(index, endpoint)| {
            let unhealthy = endpoint.load.left_out.is_unhealthy(now_ns);
            let (state, why) = match (out.is_out(index, now_ns), is_near[index]) {
                (true, _) if unhealthy => ("unhealthy", Some("its health check says so".to_owned())),
                (true, _) => ("ejected", Some(left_out_for(out.until_ns[index], now_ns))),
                (false, true) => (CANDIDATE, None),
                (false, false) => (FARTHER, Some("hinted for others; those nearby fail".to_owned())),
            };
            EndpointOdds {
                odds_percent: odds_of(index).map(|odds| (odds * 1_000.0).round() / 10.0),
                share: odds::share(backend, &all, now_ns, index),
                cost_us: odds::cost(backend, &all, now_ns, index).map(|cost| (cost / 1_000.0) as u64),
                ..row_of(endpoint, now_ns, state, why)
            }
        });
        told.endpoints = shown.collect();
        let unused = unused.iter().filter(|(candidate, _)| find(&all, candidate.address).is_none());
        let room = MOST_SHOWN - told.endpoints.len();
        told.endpoints.extend(unused.take(room).map(|(candidate, reason)| EndpointOdds {
            address: candidate.address,
            pod: candidate.row.pod.as_deref().map(str::to_owned),
            zone: candidate.row.zone.as_deref().map(str::to_owned),
            state: "unused",
            why: Some(reason.to_string()),
            odds_percent: None,
            weight: candidate.weight,
            share: 0.0,
            active: 0,
            latency_us: None,
            cost_us: None,
        }));
        (0..all.len()).filter(is_candidate).count()
    }
}

/// Which endpoints may serve.
fn explain_use(
    unused: &[(Candidate<'_>, Unused)],
    policy: TrafficPolicy,
    backend: &Backend,
    told: &mut Explanation,
) {
    let mut reasons: Vec<(Unused, usize)> = Vec::new();
    // An address that the Service had once leads to those that there are.
    for (_, reason) in unused.iter().filter(|(one, _)| find(&backend.endpoints, one.address).is_none()) {
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((*reason, 1)),
        }
    }
    let mut detail: Vec<String> =
        reasons.into_iter().map(|(reason, count)| format!("{count} not: {reason}")).collect();
    if policy == TrafficPolicy::Local {
        detail.push("internalTrafficPolicy is Local: those on this node, and no other".to_owned());
    }
    if !backend.wider.is_empty() {
        detail.push(format!(
            "hints keep calls near; {} farther and near serve when too many of these are left out",
            backend.wider.len()
        ));
    }
    told.step("Which endpoints may serve it?", format!("{}", backend.endpoints.len()), detail);
}

/// Who is left out, and whether that counts.
fn explain_out(endpoints: &[Arc<Endpoint>], out: &Out, source: u64, now_ns: u64, told: &mut Explanation) {
    const ASKED: &str = "Which of them are left out for a time?";
    let count = out.count(now_ns);
    let mut detail = Vec::new();
    for (endpoint, until_ns) in endpoints.iter().zip(&out.until_ns) {
        if *until_ns <= now_ns || detail.len() >= MOST_SHOWN {
            continue;
        }
        let left_out = &endpoint.load.left_out;
        let (by, _) = left_out.sources(now_ns);
        let why = match (left_out.is_unhealthy(now_ns), by) {
            (true, _) => "its health check says that it does not serve".to_owned(),
            (false, 0 | 1) => "it failed this pod's calls".to_owned(),
            (false, by) => format!("it failed the calls of {by} pods of this node"),
        };
        detail.push(format!("{}: {why}; {}", endpoint.address, left_out_for(*until_ns, now_ns)));
    }
    let others = endpoints.iter().filter(|endpoint| {
        let left_out = &endpoint.load.left_out;
        left_out.until_for(source, now_ns) <= now_ns && left_out.sources(now_ns).0 > 0
    });
    for endpoint in others.take(MOST_SHOWN) {
        detail.push(format!(
            "{}: by another pod alone, which is no word on this one's calls",
            endpoint.address
        ));
    }
    let answer = match (count, out.heeded) {
        (0, _) => "none".to_owned(),
        (_, true) => format!("{count} of {}", endpoints.len()),
        (_, false) => {
            detail.push(format!(
                "fewer than {}% are left, so all are used (panic threshold)",
                ejection::PANIC_BELOW_PERCENT
            ));
            format!("{count} of {} would be, so none is", endpoints.len())
        }
    };
    told.step(ASKED, answer, detail);
}

/// What the picker does.
fn explain_picker(
    question: &Question,
    backend: &Backend,
    all: &[Arc<Endpoint>],
    prospect: &Prospect,
    spilled: f64,
    told: &mut Explanation,
) {
    let picker = backend.balancing.picker;
    let mut detail = vec![rule(picker, &backend.balancing.hash_on)];
    if let (true, HashOn::Header(name)) = (picker.has_table(), &backend.balancing.hash_on) {
        let given = question.request.iter().any(|field| field.name == name.as_bytes());
        if !given {
            detail.push(format!(
                "the call has no header {name}, so it goes anywhere (give one with --header {name}=VALUE)"
            ));
        }
    }
    if picker == Picker::SourceHash {
        detail
            .push("a pod stays with the endpoint that it has had, for as long as that may serve".to_owned());
    }
    if spilled > 0.0 {
        detail.push(format!(
            "so many of those nearby are left out that {:.0}% of the calls may go to farther ones",
            spilled * 100.0
        ));
    }
    if all.len() > subset::LEAST && !picker.is_by_hash() {
        detail.push(format!(
            "of {} endpoints each of the agent's threads uses a part for this pod, {} of them at least and more with many calls in \
             flight; which part, each draws for itself, so the odds are over all of them",
            all.len(),
            subset::LEAST
        ));
    }
    if all.len() > 1 {
        let farther = if backend.wider.is_empty() { "" } else { "; where all nearby do, calls go farther" };
        detail.push(format!(
            "one that refuses connections is passed over for some seconds by the thread that met it, which is not known here{farther}"
        ));
    }
    let answer = match prospect {
        Prospect::One(index) => format!("{}: {}", picker.name(), all[*index].address),
        Prospect::Odds(_) | Prospect::TooMany => format!("{}: by chance, with the odds below", picker.name()),
        Prospect::Nobody => format!("{}: there is none to choose", picker.name()),
    };
    told.step("How is one chosen?", answer, detail);
}

/// A picker's rule in words.
fn rule(picker: Picker, hash_on: &HashOn) -> String {
    match picker {
        Picker::Ewma => {
            "the better of two random ones by expected latency × (calls under way + 1)".to_owned()
        }
        Picker::LeastRequest => "the one of two random ones that has fewer calls under way".to_owned(),
        Picker::RoundRobin => {
            "each in its turn, from a random one on, for each connection of the client's".to_owned()
        }
        Picker::Random => "any".to_owned(),
        Picker::RingHash => format!("the next on a ring of hashes, by {hash_on}"),
        Picker::Maglev => format!("by a look-up table of hashes, by {hash_on}"),
        Picker::SourceHash => "one for all calls of a pod (sessionAffinity: ClientIP)".to_owned(),
    }
}

fn row_of(endpoint: &Endpoint, now_ns: u64, state: &'static str, why: Option<String>) -> EndpointOdds {
    EndpointOdds {
        address: endpoint.address,
        pod: endpoint.pod.as_deref().map(str::to_owned),
        zone: endpoint.zone.as_deref().map(str::to_owned),
        state,
        why,
        odds_percent: None,
        weight: endpoint.weight,
        share: 1.0,
        active: endpoint.load.active.load(Relaxed),
        latency_us: latency::estimate(&endpoint.load, now_ns).map(|latency| (latency / 1_000.0) as u64),
        cost_us: None,
    }
}

fn port_row<'a>(row: &'a ServiceRow, port: &Port) -> Option<&'a crate::sources::rows::ServicePortRow> {
    row.ports
        .iter()
        .find(|row| row.port == port.key.port && row.transport == crate::sources::rows::Transport::Tcp)
}

/// Where an address is in a sorted list.
fn find(endpoints: &[Arc<Endpoint>], address: SocketAddr) -> Option<usize> {
    endpoints.binary_search_by_key(&address, |endpoint| endpoint.address).ok()
}

/// Two sorted lists as one, each endpoint once.
fn both(near: &[Arc<Endpoint>], wider: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
    let mut both = [near, wider].concat();
    both.sort_by_key(|endpoint| endpoint.address);
    both.dedup_by_key(|endpoint| endpoint.address);
    both
}

fn left_out_for(until_ns: u64, now_ns: u64) -> String {
    format!("for {} s more", until_ns.saturating_sub(now_ns).div_ceil(1_000_000_000))
}
