//! What is counted of calls as OpenMetrics text: under [OTel's names](otel), and under [Istio's](istio).

mod histogram;
mod istio;
mod otel;
#[cfg(test)]
mod tests;

use super::escaped;
use crate::mesh::ServicePort;
use crate::telemetry::{CallSums, Telemetry};
use std::fmt::{self, Write as _};
use std::time::Instant;

/// The domain of a cluster's Services, as nearly all have it.
const CLUSTER_DOMAIN: &str = "svc.cluster.local";

/// The part of a scrape that is about calls. Without an end mark.
pub(super) fn calls_text(telemetry: &Telemetry, istio: bool, now: Instant) -> String {
    let mut text = String::new();
    write_calls(telemetry, istio, now, &mut text).expect("a String takes whatever is written to it");
    text
}

fn write_calls(telemetry: &Telemetry, istio: bool, now: Instant, text: &mut String) -> fmt::Result {
    let calls: CallSums = telemetry.call_sums(now);
    otel::write(&calls, text)?;
    if istio { istio::write(&calls.groups, &telemetry.sizes(now), text) } else { Ok(()) }
}

/// A Service's name in the cluster's DNS.
fn host(ServicePort { service, .. }: &ServicePort) -> String {
    format!("{}.{}.{CLUSTER_DOMAIN}", service.name, service.namespace)
}

/// Puts a label behind others.
fn push(labels: &mut String, prefix: &str, label: &str, value: &str) {
    labels.push(',');
    labels.push_str(prefix);
    labels.push_str(label);
    labels.push_str("=\"");
    labels.push_str(&escaped(value));
    labels.push('"');
}

/// What stands above a metric.
fn head(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}")
}
