//! OTel's metric: <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/>.

use super::histogram::durations;
use super::{head, host, push};
use crate::mesh::ServicePort;
use crate::telemetry::calls::histogram::add;
use crate::telemetry::{CallGroup, CallSums, DurationBuckets};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// OTel's bounds for the durations of calls, in nanoseconds.
pub(super) const OTEL_BOUNDS_NS: [u64; 14] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];
/// Below the first of them most calls of a cluster lie: these tell them apart.
pub(super) const FINER_BOUNDS_NS: [u64; 5] = [100_000, 250_000, 500_000, 1_000_000, 2_500_000];

/// What OTel's metric tells gRPC calls apart by.
type OtelKey<'a> = (&'a ServicePort, &'a str, &'static str, Option<Cow<'static, str>>);

pub(super) fn write(calls: &CallSums, text: &mut String) -> fmt::Result {
    let mut sums: BTreeMap<OtelKey<'_>, (DurationBuckets, u64)> = BTreeMap::new();
    let groups = calls
        .groups
        .iter()
        .map(|(CallGroup { edge, method }, counts)| (&edge.service_port, method, edge.status, counts));
    let rest = calls.rest.iter().map(|(at, method, status, counts)| (at, method, *status, counts));
    for (service_port, method, status, counts) in
        groups.chain(rest).filter(|(_, _, status, _)| status.is_grpc)
    {
        let (buckets, sum) =
            sums.entry((service_port, method, status.code_name(), status.error_type())).or_default();
        add(buckets, &counts.durations);
        *sum += counts.duration_sum_ns;
    }
    const NAME: &str = "rpc_client_call_duration_seconds";
    head(text, NAME, "histogram", "Time from a gRPC call's request to its end, as its client sees it")?;
    let bounds: Vec<u64> = FINER_BOUNDS_NS.into_iter().chain(OTEL_BOUNDS_NS).collect();
    for ((service_port, method, code, error), (buckets, sum_ns)) in sums {
        let mut labels = String::from("rpc_system_name=\"grpc\"");
        for (label, value) in [
            ("service", &*service_port.to_string()),
            ("server_address", &host(service_port)),
            ("server_port", &service_port.port.to_string()),
            ("rpc_method", method),
            ("rpc_response_status_code", code),
        ] {
            push(&mut labels, "", label, value);
        }
        if let Some(error) = error {
            push(&mut labels, "", "error_type", &error);
        }
        durations(text, NAME, &labels, &buckets, &bounds, sum_ns, 1e9)?;
    }
    Ok(())
}
