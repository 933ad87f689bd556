//! What of a page is asked for: the parameters of a request, checked once.

use super::accept::Form;
use super::refusal::Refusal;
use crate::control::explain;
use crate::mesh::{ObjectName, ServiceFilter, ServicePort};
use crate::telemetry::profile::StackFormat;
use crate::telemetry::{By, Dimension, TapFilter};
use serde_json::{Value, json};
use std::str::FromStr;

/// The rows that `/calls`, `/connections` and `/streams` have at most where the request does not say another number.
pub(super) const USUAL_ROWS: usize = 1_000;
/// And the most that it may say: an answer of some megabytes, which costs each worker thread some milliseconds.
pub(super) const MOST_ROWS: usize = 10_000;

/// The most records that `/tap` may be told to end after: a larger number is no end.
const MOST_RECORDS: usize = 1_000_000;

/// For how long `/profile/cpu` looks where the request does not say: many of the scheduler's turns.
const USUAL_SECONDS: u32 = 5;
/// And at most: whoever asks waits for it.
const MOST_SECONDS: u32 = 60;

/// A parameter of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Namespace,
    Name,
    Enrolled,
    Service,
    Pod,
    To,
    Method,
    By,
    Header,
    /// The methods whose calls are shown.
    Methods,
    Status,
    Headers,
    Limit,
    /// After how many records `/tap` ends.
    Records,
    Seconds,
    Format,
    /// That of a profile.
    ProfileFormat,
}

/// What of a page is asked for; without anything, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Of this namespace alone.
    pub namespace: Option<String>,
    /// Of this name alone.
    pub name: Option<String>,
    /// Enrolled pods alone, or those that are not.
    pub enrolled: Option<bool>,
    /// Of this Service, or one port of it.
    pub service: Option<ServiceFilter>,
    /// Of this source pod alone.
    pub pod: Option<ObjectName>,
    /// What the rows of `/calls` are told apart by.
    pub(super) by: By,
    /// What the pod would dial, by `/explain`.
    to: Option<String>,
    /// The method that it would call.
    method: Option<String>,
    /// Headers of that call.
    headers: Vec<String>,
    /// Which calls `/calls`, `/streams` and `/tap` show, by method; and by status.
    pub tap: TapFilter,
    /// With their headers.
    pub(super) with_headers: bool,
    /// And how many.
    pub(super) records: Option<usize>,
    /// The most rows of `/calls`, `/connections` and `/streams`.
    pub rows: usize,
    /// For how long `/profile/cpu` looks, in seconds.
    pub(super) seconds: u32,
    /// A profile by stack instead of the sums.
    pub(super) stacks: Option<StackFormat>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            namespace: None,
            name: None,
            enrolled: None,
            service: None,
            pod: None,
            by: By::ALL,
            to: None,
            method: None,
            headers: Vec::new(),
            tap: TapFilter::default(),
            with_headers: false,
            records: None,
            rows: USUAL_ROWS,
            seconds: USUAL_SECONDS,
            stacks: None,
        }
    }
}

impl Parameter {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Name => "name",
            Self::Enrolled => "enrolled",
            Self::Service => "service",
            Self::Pod => "pod",
            Self::To => "to",
            Self::Method | Self::Methods => "method",
            Self::By => "by",
            Self::Header => "header",
            Self::Status => "status",
            Self::Headers => "headers",
            Self::Limit | Self::Records => "limit",
            Self::Seconds => "seconds",
            Self::Format | Self::ProfileFormat => "format",
        }
    }

    /// What it does, and what it takes.
    pub(super) fn summary(self) -> &'static str {
        match self {
            Self::Namespace => "those of this namespace alone",
            Self::Name => "those of this name alone",
            Self::Enrolled => "true: enrolled pods alone; false: the others",
            Self::Service => "those of this Service alone: NAMESPACE/NAME, or NAMESPACE/NAME:PORT",
            Self::Pod => "those of this source pod alone: NAMESPACE/NAME",
            Self::To => "what the pod dials: HOST:PORT, a Service's name or an address",
            Self::Method => "what it calls there: /PACKAGE.SERVICE/METHOD",
            Self::By => {
                "what rows are told apart by: some of pod, workload, service, method, endpoint, status, with commas between them; the rest is \
                 summed up; all where nothing is said"
            }
            Self::Header => "a header of the call: NAME=VALUE; may be there several times",
            Self::Methods => {
                "calls of this method alone: PACKAGE.SERVICE/METHOD, or of those that begin so: PACKAGE.SERVICE/*"
            }
            Self::Status => {
                "calls that ended so alone: error, a gRPC status by name or number, or an HTTP status"
            }
            Self::Headers => "true: with the headers of requests, secrets masked",
            Self::Records => "how many calls, and then the end: 1 to 1000000; without it, no end",
            Self::Limit => "the most rows: 1 to 10000; 1000 where nothing is said",
            Self::Seconds => "for how long is looked: 1 to 60; 5 where nothing is said",
            Self::Format => "json or text, whatever Accept says",
            Self::ProfileFormat => {
                "json or text, whatever Accept says; pprof or folded: the profile by stack, for pprof or as lines for flame graphs"
            }
        }
    }
}

impl Parameter {
    /// Whether it may be there several times.
    pub(super) fn may_repeat(self) -> bool {
        self == Self::Header
    }

    /// The values that it takes, as a JSON schema.
    pub(super) fn schema(self) -> Value {
        match self {
            Self::Namespace | Self::Name => json!({ "type": "string", "minLength": 1 }),
            Self::Service => json!({ "type": "string", "pattern": "^[^/:]+/[^/:]+(:[0-9]+)?$" }),
            Self::Pod => json!({ "type": "string", "pattern": "^[^/]+/[^/]+$" }),
            Self::Enrolled | Self::Headers => json!({ "type": "boolean" }),
            Self::Methods => json!({ "type": "string", "pattern": "^[^*]+$|^[^*]*\\*$" }),
            Self::Status => json!({ "type": "string", "pattern": "^([A-Za-z_-]+|[0-9]{1,3})$" }),
            Self::Records => json!({ "type": "integer", "minimum": 1, "maximum": MOST_RECORDS }),
            Self::To => json!({ "type": "string", "pattern": ":[0-9]+$" }),
            Self::Method => json!({ "type": "string", "pattern": "^/." }),
            Self::By => {
                let names: Vec<_> = Dimension::ALL.iter().map(|dimension| dimension.name()).collect();
                let one = format!("({})", names.join("|"));
                json!({ "type": "string", "pattern": format!("^{one}(,{one})*$") })
            }
            Self::Header => json!({ "type": "array", "items": { "type": "string", "pattern": "[=:]" } }),
            Self::Limit => {
                json!({ "type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": USUAL_ROWS })
            }
            Self::Seconds => {
                json!({ "type": "integer", "minimum": 1, "maximum": MOST_SECONDS, "default": USUAL_SECONDS })
            }
            Self::Format => json!({ "type": "string", "enum": ["json", "text"] }),
            Self::ProfileFormat => json!({ "type": "string", "enum": ["json", "text", "pprof", "folded"] }),
        }
    }
}

impl Filter {
    /// Takes a parameter's value in.
    ///
    /// # Errors
    /// What it should be.
    pub(super) fn set(
        &mut self,
        form: &mut Option<Form>,
        parameter: Parameter,
        value: &str,
    ) -> Result<(), Refusal> {
        let refuse = |why: String| Refusal::value(parameter.name(), value, &why);
        match parameter {
            Parameter::Namespace => self.namespace = Some(named(value).map_err(refuse)?),
            Parameter::Name => self.name = Some(named(value).map_err(refuse)?),
            Parameter::Enrolled => {
                self.enrolled = Some(one_of(value, &[("true", true), ("false", false)]).map_err(refuse)?);
            }
            Parameter::Service => self.service = Some(ServiceFilter::from_str(value).map_err(refuse)?),
            Parameter::Pod => self.pod = Some(ObjectName::from_str(value).map_err(refuse)?),
            Parameter::To => self.to = Some(value.into()),
            Parameter::Method => self.method = Some(value.into()),
            Parameter::By => self.by = value.parse().map_err(refuse)?,
            Parameter::Header => self.headers.push(value.into()),
            Parameter::Methods => self.tap.method = Some(value.parse().map_err(refuse)?),
            Parameter::Status => self.tap.status = Some(value.parse().map_err(refuse)?),
            Parameter::Headers => {
                self.with_headers = one_of(value, &[("true", true), ("false", false)]).map_err(refuse)?;
            }
            Parameter::Records => {
                let records = value.parse().ok().filter(|records| (1..=MOST_RECORDS).contains(records));
                let expected = || refuse(format!("expected a number from 1 to {MOST_RECORDS}"));
                self.records = Some(records.ok_or_else(expected)?);
            }
            Parameter::Limit => {
                let rows = value.parse().ok().filter(|rows| (1..=MOST_ROWS).contains(rows));
                self.rows = rows.ok_or_else(|| refuse(format!("expected a number from 1 to {MOST_ROWS}")))?;
            }
            Parameter::Seconds => {
                let seconds = value.parse().ok().filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
                self.seconds =
                    seconds.ok_or_else(|| refuse(format!("expected a number from 1 to {MOST_SECONDS}")))?;
            }
            Parameter::Format => {
                let forms = [("json", Form::Json), ("text", Form::Text)];
                *form = Some(one_of(value, &forms).map_err(refuse)?);
            }
            Parameter::ProfileFormat => {
                let forms = [
                    ("json", (Form::Json, None)),
                    ("text", (Form::Text, None)),
                    // Whatever Accept says of JSON.
                    ("pprof", (Form::Json, Some(StackFormat::Pprof))),
                    ("folded", (Form::Json, Some(StackFormat::Folded))),
                ];
                let (plain, stacks) = one_of(value, &forms).map_err(refuse)?;
                (*form, self.stacks) = (Some(plain), stacks);
            }
        }
        Ok(())
    }

    /// The call that `/explain` is asked about.
    ///
    /// # Errors
    /// What is missing, or wrong.
    pub fn call(&self) -> Result<explain::Question, String> {
        const NEEDED: &str = "/explain needs pod=NAMESPACE/NAME and to=HOST:PORT";
        let (Some(pod), Some(to)) = (&self.pod, &self.to) else { return Err(NEEDED.into()) };
        explain::Question::parse(&pod.to_string(), to, self.method.as_deref(), &self.headers)
    }

    /// The calls that `/tap` is to show.
    pub(super) fn of_tap(self) -> TapFilter {
        TapFilter { namespace: self.namespace, pod: self.pod, service: self.service, ..self.tap }
    }

    /// Whether a Service port is asked for.
    pub fn takes_port(&self, port: &ServicePort) -> bool {
        self.service.as_ref().is_none_or(|service| service.takes(port))
    }

    /// Whether calls of a method to a Service port are asked for, whichever pod they are of.
    pub fn takes_calls(&self, service_port: &ServicePort, method: &str) -> bool {
        self.takes_port(service_port)
            && self.tap.method.as_ref().is_none_or(|wanted| wanted.takes(method.as_bytes()))
    }

    /// Whether an object is asked for.
    pub fn takes(&self, object: &ObjectName) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == &*object.namespace)
            && self.name.as_deref().is_none_or(|name| name == &*object.name)
    }
}

fn named(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("expected a name".into()) } else { Ok(value.into()) }
}

fn one_of<T: Copy>(value: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning);
    let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" or ");
    found.ok_or_else(|| format!("expected {}", names()))
}
