//! The metrics as text that Prometheus reads. A registry is made for each scrape and filled from the counts: nothing is kept twice,
//! and what is gone from the node is gone from the metrics.
//!
//! [`numbers`] is what the control loop tells, and [`registry`] names it; [`calls`] has what is counted of calls, [`process`] what the process
//! uses; [`format`](mod@format) is how it is written for whom.

mod calls;
mod format;
mod numbers;
mod process;
mod registry;

pub use format::ScrapeFormat;
pub use numbers::{
    EndpointCounts, KindCounts, LegacyAttachment, MemoryCounts, Numbers, OpenedBefore, PodCounts, PodObstacle,
};

use super::Telemetry;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use std::time::Instant;

/// The text of a scrape: what the control loop knows, what is counted of calls, and what the process uses.
pub fn scrape(numbers: &Numbers, telemetry: &Telemetry, format: ScrapeFormat) -> String {
    let mut text = String::new();
    encode_registry(&mut text, &registry::filled(numbers, telemetry)).expect(INFALLIBLE);
    text.push_str(&calls::calls_text(telemetry, telemetry.has_sizes(), Instant::now()));
    text.push_str(&process::process_text());
    match format {
        ScrapeFormat::OpenMetrics => {
            encode_eof(&mut text).expect(INFALLIBLE);
            text
        }
        ScrapeFormat::Classic => format::classic(&text),
    }
}

const INFALLIBLE: &str = "a String takes whatever is written to it";

/// A label's value as the format wants it; the encoder writes values as they are.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::PathCount;

    #[test]
    fn counts_come_out_under_their_names_and_labels_are_escaped() {
        let numbers = Numbers {
            ready: true,
            pods: vec![PodCounts {
                namespace: "a".into(),
                pod: "b\"c".into(),
                connections: vec![("taken", 3)],
                memory: MemoryCounts { held: 5, limit: 9, refused: 1 },
                opened_before: OpenedBefore { cause: "agent_absent", connections: 2 },
            }],
            pods_waiting: vec![PodObstacle { namespace: "a".into(), pod: "d".into(), reason: "no_process" }],
            legacy_attachments: vec![LegacyAttachment {
                cgroup: "/sys".into(),
                kind: "connect4",
                effect: "refuses",
            }],
            endpoints: vec![EndpointCounts {
                service: "a/s:1".into(),
                endpoint: "10.0.0.1:2".into(),
                calls: 7,
                failures: 1,
                active: 2,
                ejections: 3,
                ejected_by: 1,
            }],
            destinations: 4,
            kinds: vec![KindCounts {
                kind: "services",
                seconds_since_contact: 1.5,
                objects: 3,
                bytes: 9,
                lists: 1,
                failures: 0,
            }],
            path: vec![
                PathCount { name: "circuit_refusals", help: " Calls.", is_gauge: false, value: 8 },
                PathCount { name: "calls_open", help: " Calls.", is_gauge: true, value: 6 },
            ],
            ..Numbers::default()
        };
        let text = scrape(&numbers, &Telemetry::new(true), ScrapeFormat::OpenMetrics);
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "one end: {text}");
        for line in [
            "evenkeel_proxy_circuit_refusals_total 8",
            "evenkeel_proxy_calls_open 6",
            "evenkeel_access_log_lines_total 0",
            "evenkeel_access_log_dropped_total 0",
            r#"evenkeel_trace_spans_total{outcome="sent"} 0"#,
            "evenkeel_trace_export_failures_total 0",
            "# TYPE rpc_client_call_duration_seconds histogram",
            "# TYPE istio_requests counter",
            "# TYPE evenkeel_build info",
            concat!("evenkeel_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "evenkeel_ready 1",
            "# TYPE process_cpu_seconds counter",
            r#"evenkeel_connections_total{namespace="a",pod="b\"c",outcome="taken"} 3"#,
            r#"evenkeel_pod_memory_bytes{namespace="a",pod="b\"c"} 5"#,
            r#"evenkeel_pod_memory_refused_calls_total{namespace="a",pod="b\"c"} 1"#,
            r#"evenkeel_opened_before{namespace="a",pod="b\"c",cause="agent_absent"} 2"#,
            r#"evenkeel_pod_not_enrolled{namespace="a",pod="d",reason="no_process"} 1"#,
            r#"evenkeel_legacy_attachment{cgroup="/sys",kind="connect4",effect="refuses"} 1"#,
            r#"evenkeel_endpoint_calls_total{service="a/s:1",endpoint="10.0.0.1:2"} 7"#,
            r#"evenkeel_endpoint_active_calls{service="a/s:1",endpoint="10.0.0.1:2"} 2"#,
            r#"evenkeel_endpoint_ejections_total{service="a/s:1",endpoint="10.0.0.1:2"} 3"#,
            r#"evenkeel_endpoint_ejected{service="a/s:1",endpoint="10.0.0.1:2"} 1"#,
            r#"evenkeel_pods{state="enrolled"} 1"#,
            r#"evenkeel_destinations{state="live"} 4"#,
            r#"evenkeel_source_seconds_since_contact{kind="services"} 1.5"#,
            r#"evenkeel_source_bytes_total{kind="services"} 9"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
    }
}
