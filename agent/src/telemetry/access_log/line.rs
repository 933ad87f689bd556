//! How a call looks in a line.

use crate::telemetry::{CallRecord, json_line, printable_word};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write as _;

/// How the access log's lines look.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogFormat {
    /// An object a line
    Json,
    /// For people
    Text,
}

impl AccessLogFormat {
    /// Puts the record's line behind the text.
    pub(super) fn write(self, record: &CallRecord, text: &mut String) {
        text.push_str(&match self {
            Self::Json => json_line(record),
            Self::Text => text_line(record),
        });
        text.push('\n');
    }
}

/// The record for people: when, how it ended, who called what, where and for how long; then the rest as `name=value`. Without the line's end.
pub fn text_line(record: &CallRecord) -> String {
    let mut line = record.time_text();
    // A String takes whatever is written to it.
    let _ = parts(record, &mut line);
    line
}

fn parts(record: &CallRecord, line: &mut String) -> std::fmt::Result {
    match (record.grpc_status_name, record.http_status) {
        (Some(name), _) => write!(line, " {name}")?,
        (None, Some(status)) if record.method.is_none() => write!(line, " {status}")?,
        _ => line.push_str(" -"),
    }
    match &record.source {
        Some(source) => {
            write!(line, " {}/{}", printable_word(&source.namespace), printable_word(&source.pod))?;
        }
        None => line.push_str(" -"),
    }
    let to = &record.destination;
    write!(line, " -> {}/{}:{}", printable_word(&to.namespace), printable_word(&to.service), to.port)?;
    match &record.endpoint {
        Some(endpoint) => write!(line, " at {}", endpoint.address)?,
        None => line.push_str(" at -"),
    }
    match (&record.method, &record.http_method, &record.path) {
        (Some(method), ..) => write!(line, " {}", printable_word(method))?,
        (None, Some(method), Some(path)) => {
            write!(line, " {} {}", printable_word(method), printable_word(path))?;
        }
        _ => line.push_str(" -"),
    }
    write!(line, " {:.3}ms", record.duration_ms)?;
    for (name, ms) in [("queue", record.queue_ms), ("first_byte", record.first_byte_ms)] {
        if let Some(ms) = ms {
            write!(line, " {name}={ms:.3}ms")?;
        }
    }
    if let Some(flag) = record.flag {
        write!(line, " flag={flag}")?;
    }
    write!(line, " sent={}B/{}", record.request_bytes, record.request_messages)?;
    write!(line, " received={}B/{}", record.response_bytes, record.response_messages)?;
    let connection = if record.new_connection { "new" } else { "existing" };
    write!(line, " attempts={} connection={connection}", record.attempts)?;
    if let Some(source) = &record.source {
        write!(line, " workload={}", printable_word(&source.workload))?;
    }
    if let Some(address) = to.address {
        write!(line, " dialled={address}")?;
    }
    if let Some(endpoint) = &record.endpoint {
        for (name, value) in [("pod", &endpoint.pod), ("node", &endpoint.node), ("zone", &endpoint.zone)] {
            if let Some(value) = value {
                write!(line, " {name}={}", printable_word(value))?;
            }
        }
    }
    if let Some(id) = &record.trace_id {
        write!(line, " trace={}", printable_word(id))?;
    }
    for (name, value) in record.headers.iter().flatten() {
        // A client may call its headers as our fields are called.
        write!(line, " header.{}={}", printable_word(name), printable_word(value))?;
    }
    if record.headers_cut {
        line.push_str(" …");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{RecordDestination, RecordEndpoint, RecordSource};
    use std::time::{Duration, UNIX_EPOCH};

    fn record() -> CallRecord {
        CallRecord {
            time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001),
            source: Some(RecordSource {
                namespace: "shop".into(),
                pod: "web-0".into(),
                workload: "web".into(),
                app: None,
            }),
            destination: RecordDestination {
                namespace: "shop".into(),
                service: "cart".into(),
                port: 50_051,
                address: "10.96.0.5:50051".parse().ok(),
            },
            endpoint: Some(RecordEndpoint {
                address: "10.0.0.1:50051".parse().unwrap(),
                pod: Some("shop/cart-a".into()),
                node: None,
                zone: Some("a".into()),
            }),
            method: Some("shop.Cart/Add".into()),
            http_method: None,
            path: None,
            http_status: Some(200),
            grpc_status: Some(5),
            grpc_status_name: Some("NOT_FOUND"),
            flag: None,
            failed: false,
            duration_ms: 3.0,
            queue_ms: Some(0.25),
            first_byte_ms: None,
            request_bytes: 10,
            response_bytes: 2_000,
            request_messages: 1,
            response_messages: 2,
            attempts: 1,
            new_connection: false,
            trace_id: None,
            headers: None,
            headers_cut: false,
        }
    }

    #[test]
    fn a_line_says_what_happened_to_one_call() {
        let expected = "2023-11-14T22:13:20.000001Z NOT_FOUND shop/web-0 -> shop/cart:50051 at 10.0.0.1:50051 shop.Cart/Add 3.000ms \
                        queue=0.250ms sent=10B/1 received=2000B/2 attempts=1 connection=existing workload=web \
                        dialled=10.96.0.5:50051 pod=shop/cart-a zone=a";
        assert_eq!(text_line(&record()), expected);
        let cancelled = CallRecord {
            source: None,
            endpoint: None,
            grpc_status: None,
            grpc_status_name: None,
            flag: Some("client_cancelled"),
            ..record()
        };
        let expected =
            " - - -> shop/cart:50051 at - shop.Cart/Add 3.000ms queue=0.250ms flag=client_cancelled ";
        assert!(text_line(&cancelled).contains(expected), "{}", text_line(&cancelled));
        let of_http = CallRecord {
            method: None,
            http_method: Some("GET".into()),
            path: Some("/a".into()),
            http_status: Some(503),
            grpc_status: None,
            grpc_status_name: None,
            ..record()
        };
        assert!(
            text_line(&of_http).contains("Z 503 shop/web-0 ")
                && text_line(&of_http).contains(" GET /a 3.000ms")
        );
    }

    #[test]
    fn what_a_client_sends_neither_ends_a_line_nor_adds_a_field() {
        let nasty = CallRecord {
            method: Some("a\n2023 OK\u{1b}[2J flag=none".into()),
            headers: Some(vec![("x-a".into(), "b c\r\nd\u{9b}".into()), ("flag".into(), "none".into())]),
            ..record()
        };
        for format in [AccessLogFormat::Json, AccessLogFormat::Text] {
            let mut text = String::new();
            format.write(&nasty, &mut text);
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(char::is_control), "{line}");
        }
        let line = text_line(&nasty);
        assert!(!line.contains(" flag=") && line.contains(" header.x-a=b\\u{20}c"), "{line}");
    }
}
