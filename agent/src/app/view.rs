//! What the admin endpoint shows, put together from what control and the pods' enrolments know.

use crate::admin::{self, Filter};
use crate::control::view::{EndpointView, PodView};
use crate::sources::kubernetes::KindView;
use crate::telemetry::{EndpointCounts, KindCounts};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Each pod, with what became of the wish to enrol it.
pub(super) fn pods(pods: Vec<PodView>, mut live: HashMap<Arc<str>, Value>, filter: &Filter) -> Value {
    let rows = pods.into_iter().map(|pod| {
        let live = live.remove(pod.uid.as_str());
        let mut row = admin::json(pod);
        if let (Value::Object(row), Some(Value::Object(live))) = (&mut row, live) {
            row.extend(live);
        }
        row
    });
    let takes = |row: &Value| filter.enrolled.is_none_or(|enrolled| enrolled == (row["enrolled"] == true));
    rows.filter(takes).collect()
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
