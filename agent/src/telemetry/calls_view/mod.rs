//! What is counted of calls, for programs that compute rates of it: `/calls`. [`by`] is what was asked for, [`row_key`] what makes a row of it,
//! and [`rows`] what is told.

mod by;
mod row_key;
mod rows;
#[cfg(test)]
mod tests;

pub use by::{By, Dimension};
pub use rows::CallsView;

use self::row_key::RowKey;
use self::rows::{CallsRow, Sum};
use super::{CallCounts, CallGroup, CallKey, CallSums, Status, Telemetry};
use crate::mesh::{ObjectName, ServicePort};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::time::Instant;

/// The calls that are over, of those that are asked for (of a pod, to a Service port, of a method), summed up to what rows are told apart by;
/// of the rows, `most` with the most calls.
///
/// What ends with a pod or an endpoint is still in the sums that do not tell those apart.
pub fn calls_view(
    telemetry: &Telemetry,
    by: By,
    most: usize,
    pod: Option<&ObjectName>,
    takes: impl Fn(&ServicePort, &str) -> bool,
) -> CallsView {
    view_at(telemetry, by, most, pod, takes, Instant::now())
}

fn view_at(
    telemetry: &Telemetry,
    by: By,
    most: usize,
    pod: Option<&ObjectName>,
    takes: impl Fn(&ServicePort, &str) -> bool,
    now: Instant,
) -> CallsView {
    let is_of_workloads = pod.is_none() && !by.has(Dimension::Pod) && !by.has(Dimension::Endpoint);
    if !is_of_workloads {
        let calls = telemetry.calls_at(now);
        let of_pod = |key: &&(CallKey, CallCounts)| {
            let caller = key.0.link.caller.as_ref().map(|caller| &caller.name);
            pod.is_none() || caller == pod
        };
        let asked = calls.iter().filter(of_pod);
        let asked = asked.filter(|(key, _)| takes(&key.link.service_port, &key.method));
        return CallsView::new(
            asked.map(|(key, counts)| (RowKey::new(key, by), key.status, counts)),
            by,
            most,
        );
    }
    let CallSums { groups, rest } = telemetry.call_sums(now);
    let groups = groups.iter().map(|(CallGroup { edge, method }, counts)| {
        (edge.source.as_deref(), &edge.service_port, method, edge.status, counts)
    });
    // Which workloads these were between is not known any more.
    let rest = rest.iter().filter(|_| !by.has(Dimension::Workload));
    let rest =
        rest.map(|(service_port, method, status, counts)| (None, service_port, method, *status, counts));
    let asked = groups.chain(rest).filter(|(_, service_port, method, ..)| takes(service_port, method));
    let rows = asked.map(|(source, service_port, method, status, counts)| {
        (RowKey::of_workload(source, service_port, method, status, by), status, counts)
    });
    CallsView::new(rows, by, most)
}

impl CallsView {
    fn new<'a>(
        asked: impl Iterator<Item = (RowKey<'a>, Status, &'a CallCounts)>,
        by: By,
        most: usize,
    ) -> Self {
        let mut sums: FxHashMap<RowKey<'_>, Sum> = FxHashMap::default();
        for (key, status, counts) in asked {
            let failures = if status.is_failure() { counts.calls() } else { 0 };
            sums.entry(key).or_default().add(counts, failures);
        }
        let mut rows: Vec<_> = sums.into_iter().collect();
        rows.sort_by_cached_key(|(key, sum)| (Reverse(sum.counts.calls()), *key));
        let (shown, others) = rows.split_at(most.min(rows.len()));
        let mut rest = Sum::default();
        others.iter().for_each(|(_, sum)| rest.add(&sum.counts, sum.failures));
        Self {
            by: by.names(),
            calls: shown.iter().map(|(key, sum)| CallsRow::new(key, sum)).collect(),
            total: rows.len(),
            cut: !others.is_empty(),
            others: (!others.is_empty()).then(|| rest.view()),
        }
    }
}
