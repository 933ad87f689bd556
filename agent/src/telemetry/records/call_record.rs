//! What is told of one call.

use super::secrets::{MASK, text, without_secrets};
use crate::http2::Name;
use crate::telemetry::{CallEnd, CallStats, Flag, grpc_code_name, trace_id};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// One call that is over. What is absent is not known, or does not apply.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallRecord {
    /// When it was over (RFC 3339).
    #[serde(serialize_with = "rfc_3339")]
    #[schemars(with = "String")]
    pub time: SystemTime,
    /// The pod that called; absent for clients of `evenkeel proxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RecordSource>,
    /// What it called.
    pub destination: RecordDestination,
    /// The endpoint that was chosen last; absent where none ever was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<RecordEndpoint>,
    /// Of a gRPC call, `package.Service/Method`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of another request, its method, as `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_method: Option<String>,
    /// Of another request, its path, without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `:status`; absent where no answer had begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// `grpc-status`, as the client understands the call's end; absent where it did not wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    /// Its name, as `NOT_FOUND`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status_name: Option<&'static str>,
    /// What went wrong; absent where nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<&'static str>,
    /// A server failed it, or it got no server's answer; absent where it did not fail.
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub failed: bool,
    /// From the request to the end, in milliseconds.
    pub duration_ms: f64,
    /// Of that, the wait for an endpoint, a connection or a stream, until it was first sent to a server; absent where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// From the request to the first of a server's answer; absent where none came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<f64>,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// And from the server.
    pub response_bytes: u64,
    /// gRPC messages from the client.
    pub request_messages: u32,
    /// And from the server.
    pub response_messages: u32,
    /// Endpoints that were chosen for it, one after the other; 255 stands for more as well.
    pub attempts: u8,
    /// It is the first call on its client's connection.
    pub new_connection: bool,
    /// The trace that the request belongs to, by `traceparent` or B3: 32 hexadecimal digits, as its spans have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The request's headers, as name and value, where they were asked for; secrets are masked. A few of them where large ones were let go when
    /// the answer began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<(String, String)>>,
    /// There were more headers than are told.
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub headers_cut: bool,
}

/// Who called.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RecordSource {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod.
    pub pod: Arc<str>,
    /// What it belongs to: a Deployment's name, or the like.
    pub workload: Arc<str>,
    /// Its label `app` or `app.kubernetes.io/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<Arc<str>>,
}

/// What was called.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RecordDestination {
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// The Service.
    pub service: Arc<str>,
    /// Its port.
    pub port: u16,
    /// The address that the client dialled; absent if the Service has gone meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}

/// Who served it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RecordEndpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Its pod, `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Arc<str>>,
    /// The node that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
}

impl CallRecord {
    /// Of a call that was over at that time.
    pub fn new(end: &CallEnd<'_>, time: SystemTime, with_headers: bool) -> Self {
        let CallStats { status, .. } = end.stats;
        let since_began_ms = |at_ns: u64| end.stats.since_began_ms(at_ns);
        let told = |name: Name, value: &[u8]| {
            let field = end.request.iter().find(|field| field.known == name);
            if field.is_some_and(|field| field.never_indexed) { MASK.to_owned() } else { text(value) }
        };
        let path = || end.path().map(|path| told(Name::Path, path));
        let headers = with_headers.then(|| without_secrets(end.request));
        Self {
            time,
            source: end.source.map(|pod| RecordSource {
                namespace: Arc::clone(&pod.name.namespace),
                pod: Arc::clone(&pod.name.name),
                workload: Arc::clone(&pod.workload.name),
                app: pod.workload.app.clone(),
            }),
            destination: RecordDestination {
                namespace: Arc::clone(&end.service_port.service.namespace),
                service: Arc::clone(&end.service_port.service.name),
                port: end.service_port.port,
                address: end.original,
            },
            endpoint: end.endpoint.map(|endpoint| RecordEndpoint {
                address: endpoint.address,
                pod: endpoint.pod.clone(),
                node: endpoint.node.clone(),
                zone: endpoint.zone.clone(),
            }),
            method: if status.is_grpc { path() } else { None },
            http_method: if status.is_grpc {
                None
            } else {
                end.request.find(Name::Method).map(|method| told(Name::Method, method))
            },
            path: if status.is_grpc {
                None
            } else {
                path().map(|path| if path == MASK { path } else { format!("/{path}") })
            },
            http_status: status.http_code(),
            grpc_status: status.grpc,
            grpc_status_name: status.grpc.map(grpc_code_name),
            flag: Some(status.flag).filter(|flag| *flag != Flag::None).map(Flag::name),
            failed: status.is_failure(),
            duration_ms: since_began_ms(end.stats.ended_ns),
            queue_ms: end.stats.first_sent_ns.map(since_began_ms),
            first_byte_ms: end.stats.headers_ns.map(since_began_ms),
            request_bytes: end.stats.request_bytes,
            response_bytes: end.stats.response_bytes,
            request_messages: end.stats.request_messages,
            response_messages: end.stats.response_messages,
            attempts: end.stats.attempts,
            new_connection: !end.stats.on_existing_connection,
            trace_id: trace_id(end.request).map(|id| format!("{id:032x}")),
            headers_cut: headers.as_ref().is_some_and(|(_, is_cut)| *is_cut || end.request.is_excerpt()),
            headers: headers.map(|(headers, _)| headers),
        }
    }

    /// When it was over, to the microsecond (RFC 3339).
    pub fn time_text(&self) -> String {
        // What no calendar has, no clock shows.
        Timestamp::try_from(self.time).map_or_else(|_| "-".to_owned(), |time| format!("{time:.6}"))
    }
}

fn rfc_3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    match Timestamp::try_from(*time) {
        Ok(time) => serializer.collect_str(&format_args!("{time:.6}")),
        Err(error) => Err(serde::ser::Error::custom(error)),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::FieldList;
    use crate::mesh::{Endpoint, ObjectName, ServicePort};
    use crate::telemetry::Status;
    use std::time::{Duration, UNIX_EPOCH};

    fn end<'a>(port: &'a ServicePort, endpoint: &'a Endpoint, request: &'a FieldList) -> CallEnd<'a> {
        CallEnd {
            source: None,
            service_port: port,
            original: None,
            endpoint: Some(endpoint),
            method: "other",
            request,
            stats: CallStats {
                status: Status { is_grpc: true, http: 200, grpc: Some(5), flag: Flag::None },
                began_ns: 1_000_000,
                first_sent_ns: Some(1_250_000),
                headers_ns: None,
                ended_ns: 4_000_000,
                request_bytes: 10,
                response_bytes: 2_000,
                request_messages: 1,
                response_messages: 2,
                attempts: 2,
                on_existing_connection: false,
            },
        }
    }

    fn request(fields: &[(&str, &str)]) -> FieldList {
        let mut request = FieldList::new();
        for (name, value) in fields {
            request.push(name.as_bytes(), value.as_bytes());
        }
        request
    }

    #[test]
    fn a_record_has_what_the_call_has_under_the_names_that_are_documented() {
        let port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50_051 };
        let endpoint = Endpoint::at("10.0.0.1:50051".parse().unwrap());
        let request = request(&[
            (":path", "/shop.Cart/Add?x=1"),
            ("authorization", "Bearer hunter2"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ]);
        let at = UNIX_EPOCH + Duration::from_micros(1_700_000_000_250_000);
        let record = CallRecord::new(&end(&port, &endpoint, &request), at, true);
        let value = serde_json::to_value(&record).unwrap();
        let expected = serde_json::json!({
            "time": "2023-11-14T22:13:20.250000Z",
            "destination": {"namespace": "shop", "service": "cart", "port": 50051},
            "endpoint": {"address": "10.0.0.1:50051"},
            "method": "shop.Cart/Add",
            "http_status": 200,
            "grpc_status": 5,
            "grpc_status_name": "NOT_FOUND",
            "duration_ms": 3.0,
            "queue_ms": 0.25,
            "request_bytes": 10,
            "response_bytes": 2000,
            "request_messages": 1,
            "response_messages": 2,
            "attempts": 2,
            "new_connection": true,
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "headers": [
                [":path", "/shop.Cart/Add"],
                ["authorization", "***"],
                ["traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            ],
        });
        assert_eq!(value, expected);
        assert!(CallRecord::new(&end(&port, &endpoint, &request), at, false).headers.is_none());
    }

    #[test]
    fn what_is_not_grpc_has_a_path_and_a_method_of_http() {
        let port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50_051 };
        let endpoint = Endpoint::at("10.0.0.1:50051".parse().unwrap());
        let request = request(&[(":method", "GET"), (":path", "/a?token=hunter2")]);
        let mut end = CallEnd { method: "", ..end(&port, &endpoint, &request) };
        end.stats.status = Status { is_grpc: false, http: 200, grpc: None, flag: Flag::None };
        let record = CallRecord::new(&end, UNIX_EPOCH, false);
        assert_eq!(
            (record.method, record.http_method.as_deref(), record.path.as_deref()),
            (None, Some("GET"), Some("/a"))
        );
    }

    #[test]
    fn a_record_names_the_trace_that_the_calls_span_would_be_in_and_in_the_same_digits() {
        const ID: &str = "0af7651916cd43dd8448eb211c80319c";
        const SHORT: &str = "8448eb211c80319c";
        const SPAN: &str = "b7ad6b7169203331";
        let traceparent = |id: &str| ("traceparent", format!("00-{id}-{SPAN}-01"));
        let long_short = format!("{}{SHORT}", "0".repeat(16));
        let port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50_051 };
        let endpoint = Endpoint::at("10.0.0.1:50051".parse().unwrap());
        for (headers, expected) in [
            (vec![traceparent(ID)], Some(ID)),
            (vec![("b3", format!("{ID}-{SPAN}-0"))], Some(ID)),
            (vec![("x-b3-traceid", SHORT.into()), ("x-b3-spanid", SPAN.into())], Some(&*long_short)),
            (vec![("traceparent", "00-nonsense-1-01".into()), ("b3", format!("{ID}-{SPAN}"))], Some(ID)),
            // What the agent takes for no context is none here, too.
            (vec![("b3", format!("{ID}-1"))], None),
            (vec![("x-b3-traceid", SHORT.into())], None),
            (vec![traceparent(ID), traceparent(ID)], None),
            (vec![traceparent(&ID.to_uppercase())], None),
            (vec![traceparent(&"0".repeat(32))], None),
            (vec![("traceparent", format!("ff-{ID}-{SPAN}-01"))], None),
            (vec![("traceparent", format!("x-{ID}"))], None),
            (vec![("b3", "0".into())], None),
            (vec![], None),
        ] {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let request = request(&headers);
            let record = CallRecord::new(&end(&port, &endpoint, &request), UNIX_EPOCH, false);
            assert_eq!(record.trace_id.as_deref(), expected, "{headers:?}");
        }
    }
}
