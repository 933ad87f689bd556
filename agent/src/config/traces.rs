//! The flags for traces, and OpenTelemetry's standard variables, which count where a flag is not given
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).

use crate::telemetry::Ratio;
use crate::telemetry::otlp::{Compression, Endpoint, Headers, Resource};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// Which calls are traced, and who takes the spans.
#[derive(Args, Clone, Debug)]
pub struct TracesArgs {
    /// The collector that takes spans of traced calls by OTLP over gRPC, as http://HOST:4317, also https; without it, and without
    /// OTEL_EXPORTER_OTLP_ENDPOINT, traces are off
    #[arg(long, env = "EVENKEEL_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<Endpoint>,
    /// The PEM file with the authorities that an https collector's certificate is trusted for, in place of the system's; it is read again
    /// for each connection
    #[arg(long, env = "EVENKEEL_OTLP_CA_FILE", value_name = "FILE")]
    otlp_ca_file: Option<PathBuf>,
    /// Of the traces that their callers sample, the part in which the agent's spans are, from 0 to 1, by trace id: all agents decide alike.
    /// By default all
    #[arg(long, env = "EVENKEEL_TRACE_SAMPLE", value_name = "RATIO")]
    trace_sample: Option<Ratio>,
    /// Of the calls that come without a trace context, the part with which a trace starts, from 0 to 1. By default none
    #[arg(long, env = "EVENKEEL_TRACE_START", value_name = "RATIO")]
    trace_start: Option<Ratio>,
}

/// Traces, if they are on.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TracesConfig {
    /// The collector.
    pub endpoint: Endpoint,
    /// Authorities for https; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// What goes with each batch: the names alone are shown.
    pub headers: Headers,
    /// Whether batches are made smaller.
    pub compression: Compression,
    /// The part of sampled traces that are continued.
    pub sample: Ratio,
    /// The part of calls without a context that start one.
    pub start: Ratio,
    /// What the variables say of who sends the spans.
    pub resource: Resource,
}

/// The one way in which spans are sent.
const PROTOCOL: &str = "grpc";

impl TracesArgs {
    /// Checks what one flag alone cannot say. `variable` is the environment.
    ///
    /// # Errors
    /// A flag without a collector; variables that say what cannot be.
    pub(super) fn check(
        self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<TracesConfig>, String> {
        // An empty one is as none, as OpenTelemetry has it.
        let set =
            |name: &'static str| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value));
        let of_traces_or_all = |of_traces, of_all| set(of_traces).or_else(|| set(of_all));
        let endpoint = match self.otlp_endpoint {
            Some(endpoint) => Some(endpoint),
            None => of_traces_or_all("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
                .map(|(name, value)| value.parse().map_err(|error| format!("{name}: {error}")))
                .transpose()?,
        };
        let Some(endpoint) = endpoint else {
            return match (self.trace_sample, self.trace_start, &self.otlp_ca_file) {
                (None, None, None) => Ok(None),
                _ => Err("--trace-sample, --trace-start and --otlp-ca-file need a collector: --otlp-endpoint http://HOST:4317".into()),
            };
        };
        let protocol = of_traces_or_all("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
        if let Some((name, other)) = protocol.filter(|(_, protocol)| protocol != PROTOCOL) {
            return Err(format!("{name}: \"{}\": spans are sent by {PROTOCOL} alone", other.escape_debug()));
        }
        let certificate =
            of_traces_or_all("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE");
        let headers = of_traces_or_all("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
        let headers = headers
            .map(|(name, value)| Headers::parse(&value).map_err(|error| format!("{name}: {error}")))
            .transpose()?;
        let compression =
            of_traces_or_all("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION");
        let compression = match compression.as_ref().map(|(name, value)| (name, value.as_str())) {
            None | Some((_, "none")) => Compression::None,
            Some((_, "gzip")) => Compression::Gzip,
            Some((name, other)) => {
                return Err(format!("{name}: \"{}\": expected gzip or none", other.escape_debug()));
            }
        };
        let (attributes, name) = (set("OTEL_RESOURCE_ATTRIBUTES"), set("OTEL_SERVICE_NAME"));
        let text = |found: &Option<(&str, String)>| found.as_ref().map(|(_, value)| value.clone());
        Ok(Some(TracesConfig {
            endpoint,
            ca_file: self.otlp_ca_file.or_else(|| text(&certificate).map(PathBuf::from)),
            headers: headers.unwrap_or_default(),
            compression,
            sample: self.trace_sample.unwrap_or(Ratio::ALL),
            start: self.trace_start.unwrap_or(Ratio::NONE),
            resource: Resource::new(text(&attributes).as_deref(), text(&name).as_deref())?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        traces: TracesArgs,
    }

    fn check(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Option<TracesConfig>, String> {
        let line = Line::try_parse_from([&["x"], arguments].concat()).map_err(|error| error.to_string())?;
        let of = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        line.traces.check(of)
    }

    fn endpoint(arguments: &[&str], variables: &[(&str, &str)]) -> Option<String> {
        check(arguments, variables).unwrap().map(|config| config.endpoint.to_string())
    }

    #[test]
    fn without_a_collector_traces_are_off_and_no_flag_of_theirs_is_taken_for_nothing() {
        assert_eq!(check(&[], &[]), Ok(None));
        assert_eq!(check(&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_SERVICE_NAME", "a")]), Ok(None));
        for flag in [["--trace-start", "0.1"], ["--trace-sample", "1"], ["--otlp-ca-file", "/x"]] {
            assert!(check(&flag, &[]).unwrap_err().contains("--otlp-endpoint"), "{flag:?}");
        }
        for bad in [["--trace-start", "2"], ["--trace-sample", "x"], ["--otlp-endpoint", "collector:4317"]] {
            assert!(check(&bad, &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_flag_goes_before_the_variable_for_traces_and_that_before_the_one_for_all() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:2");
        let flag = ["--otlp-endpoint", "http://flag:3"];
        assert_eq!(endpoint(&[], &[all]).as_deref(), Some("http://all:1"));
        assert_eq!(endpoint(&[], &[all, traces]).as_deref(), Some("http://traces:2"));
        assert_eq!(endpoint(&flag, &[all, traces]).as_deref(), Some("http://flag:3"));
        let config = check(&flag, &[("OTEL_SERVICE_NAME", "lb")]).unwrap().unwrap();
        assert_eq!((config.sample, config.start), (Ratio::ALL, Ratio::NONE));
        let shown = serde_json::to_value(&config).unwrap();
        assert_eq!(
            (&shown["endpoint"], &shown["resource"]["service.name"]),
            (&"http://flag:3".into(), &"lb".into())
        );
    }

    #[test]
    fn headers_and_compression_are_variables_alone_and_no_value_is_shown() {
        let config = |variables: &[(&str, &str)]| {
            check(&["--otlp-endpoint", "http://flag:3"], variables).unwrap().unwrap()
        };
        let all = ("OTEL_EXPORTER_OTLP_HEADERS", "x-of-all=1,authorization=hunter2");
        let shown = serde_json::to_value(config(&[all])).unwrap();
        assert_eq!(shown["headers"], serde_json::json!(["x-of-all", "authorization"]));
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-of-traces=1");
        let shown = serde_json::to_value(config(&[all, of_traces])).unwrap();
        assert_eq!(shown["headers"], serde_json::json!(["x-of-traces"]));
        let compressed = |value| config(&[("OTEL_EXPORTER_OTLP_COMPRESSION", value)]).compression;
        assert_eq!(compressed("gzip"), Compression::Gzip);
        assert_eq!((compressed("none"), compressed("")), (Compression::None, Compression::None));
    }

    #[test]
    fn a_variable_that_cannot_be_is_named() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1");
        for (name, value, what) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "all:1", "http://HOST:PORT"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "grpc alone"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a", "KEY=VALUE"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a", "NAME=VALUE"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "te=a", "number 1 is a header of the protocol's own"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
        ] {
            let refusal = check(&[], &[collector, (name, value)]).unwrap_err();
            assert!(refusal.contains(name) && refusal.contains(what), "{refusal}");
        }
        assert!(check(&[], &[collector, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).is_ok());
    }
}
