//! What the admin endpoint shows, put together from what control and the pods' enrolments know.

use crate::control::view::{EndpointView, PodView};
use crate::proxy::Counters;
use crate::sources::kubernetes::KindView;
use crate::telemetry::{EndpointCounts, KindCounts, PathCount};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// A page's JSON.
pub(super) fn json(page: impl Serialize) -> Value {
    serde_json::to_value(page).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

/// Each pod, with what became of the wish to enrol it.
pub(super) fn pods(pods: Vec<PodView>, mut live: HashMap<Arc<str>, Value>) -> Value {
    let rows = pods.into_iter().map(|pod| {
        let live = live.remove(pod.uid.as_str());
        let mut row = json(pod);
        if let (Value::Object(row), Some(Value::Object(live))) = (&mut row, live) {
            row.extend(live);
        }
        row
    });
    rows.collect()
}

/// An endpoint's part of the metrics.
pub(super) fn endpoint_counts(endpoint: EndpointView) -> EndpointCounts {
    EndpointCounts {
        service: endpoint.service_port,
        endpoint: endpoint.address.to_string(),
        calls: endpoint.calls,
        failures: endpoint.failures,
        active: endpoint.active,
        ejections: endpoint.ejections,
        ejected_by: endpoint.ejected_by,
    }
}

/// The worker threads' part of the metrics.
pub(super) fn path_counts(counters: &Counters) -> Vec<PathCount> {
    let count = |(name, help, value): (&'static str, _, _)| {
        let is_gauge = name.ends_with("_open");
        PathCount { name, help, is_gauge, value }
    };
    counters.each().map(count).collect()
}

/// A kind's part of the metrics.
pub(super) fn kind_counts(kind: &KindView) -> KindCounts {
    KindCounts {
        kind: kind.kind,
        seconds_since_contact: kind.seconds_since_contact,
        objects: kind.objects,
        bytes: kind.bytes,
        lists: kind.lists,
        failures: kind.failures,
    }
}
