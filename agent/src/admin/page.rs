//! The paths of the admin endpoint: what there is, which methods and parameters each takes. Everything that says what there is
//! (answers, hints, the index, the OpenAPI description) goes by this table.

use super::accept::NDJSON;
use super::filter::Parameter;

/// What is answered by whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Page {
    /// The node in a few numbers.
    Status,
    /// The pods of this node: enrolled, or why not; connections taken, and straight because of what.
    Pods,
    /// The Service ports: captured at which addresses, or why not.
    Services,
    /// The endpoints of each Service port, with calls begun, failed and under way.
    Endpoints,
    /// The connections that are open now, as the worker threads have them.
    Connections,
    /// The calls that are under way now, as the worker threads have them.
    Streams,
    /// What of the world the workers go by: versions, their age, and which address leads where.
    Snapshot,
    /// The workers' counters.
    Workers,
    /// The kernel's side: where the programs are attached, how full the maps are.
    Kernel,
    /// How the source stands: when each kind was last in contact, and where it is.
    Source,
    /// The checked configuration.
    Config,
    /// What of the source could not be used, and why.
    Problems,
    /// What would become of a call, and why.
    Explain,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// The list of the paths.
    Index,
    /// A page, asked of whoever holds it.
    Page(Page),
    /// What is counted of the calls that are over.
    Calls,
    /// Calls as they end, for as long as somebody reads.
    Tap,
    /// What is logged.
    Log,
    /// What each thread costs, or each stack.
    Cpu,
    /// What the process holds in memory.
    Heap,
    /// The description of all of it.
    OpenApi,
}

/// A path that there is.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) leads: Leads,
    /// Beside HEAD, which goes with GET.
    pub(super) methods: &'static [&'static str],
    /// Beside [`Parameter::Format`], or [`Parameter::ProfileFormat`], which all take.
    pub(super) parameters: &'static [Parameter],
    /// What it answers, in one line.
    pub(super) summary: &'static str,
}

const GET: &[&str] = &["GET"];

const fn page(
    path: &'static str,
    page: Page,
    parameters: &'static [Parameter],
    summary: &'static str,
) -> Route {
    Route { path, leads: Leads::Page(page), methods: GET, parameters, summary }
}

/// All paths.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/",
        leads: Leads::Index,
        methods: GET,
        parameters: &[],
        summary: "what there is to look at",
    },
    page(
        "/pods",
        Page::Pods,
        &[Parameter::Namespace, Parameter::Name, Parameter::Enrolled],
        "the node's pods: enrolled, or why not; connections taken, and straight because of what; memory held",
    ),
    page(
        "/services",
        Page::Services,
        &[Parameter::Namespace, Parameter::Name],
        "Services: captured at which addresses, or why not; endpoints that are not used, and why",
    ),
    page(
        "/endpoints",
        Page::Endpoints,
        &[Parameter::Service],
        "each Service port's endpoints: calls begun, failed and under way; latency; who is ejected",
    ),
    page(
        "/connections",
        Page::Connections,
        &[Parameter::Pod, Parameter::Service, Parameter::Limit],
        "connections of clients and to servers: age, protocol, calls, bytes held, how each stands",
    ),
    page(
        "/streams",
        Page::Streams,
        &[Parameter::Pod, Parameter::Service, Parameter::Methods, Parameter::Limit],
        "calls that are under way: source pod, method, endpoint, stage, age, deadline",
    ),
    Route {
        path: "/calls",
        leads: Leads::Calls,
        methods: GET,
        parameters: &[
            Parameter::By,
            Parameter::Pod,
            Parameter::Service,
            Parameter::Methods,
            Parameter::Limit,
        ],
        summary: "calls that are over, by pod, Service port, method, endpoint and status, or summed up: how many, failures, bytes, messages, latency",
    },
    Route {
        path: "/tap",
        leads: Leads::Tap,
        methods: GET,
        parameters: &[
            Parameter::Namespace,
            Parameter::Pod,
            Parameter::Service,
            Parameter::Methods,
            Parameter::Status,
            Parameter::Headers,
            Parameter::Records,
        ],
        summary: "calls as they end, one after the other, until you go away: source, endpoint, method, status, times, bytes",
    },
    page(
        "/snapshot",
        Page::Snapshot,
        &[Parameter::Service],
        "the state that calls go by: its version and each worker's, the source's versions and age, which address leads where",
    ),
    page("/workers", Page::Workers, &[], "what the worker threads have counted, and how each stands"),
    page(
        "/kernel",
        Page::Kernel,
        &[],
        "the kernel programs and what they cost, the maps and how full they are, what others have attached",
    ),
    page("/source", Page::Source, &[], "how old what the API server said is"),
    page("/config", Page::Config, &[], "the configuration as it was checked"),
    page("/problems", Page::Problems, &[], "what of the source cannot be used, and why"),
    page(
        "/status",
        Page::Status,
        &[],
        "the node in a few numbers: ready, serving, pods, connections, calls, problems",
    ),
    page(
        "/explain",
        Page::Explain,
        &[Parameter::Pod, Parameter::To, Parameter::Method, Parameter::Header],
        "every decision from connect() to the endpoint on a call of that pod's (pod and to are needed); nothing is sent",
    ),
    Route {
        path: "/log",
        leads: Leads::Log,
        methods: &["GET", "PUT", "POST"],
        parameters: &[],
        summary: "what is logged; a filter that is sent changes it",
    },
    Route {
        path: "/profile/cpu",
        leads: Leads::Cpu,
        methods: GET,
        parameters: &[Parameter::Seconds],
        summary: "what each thread of the worker process costs, looked at for some seconds; as pprof or folded, by stack",
    },
    Route {
        path: "/profile/heap",
        leads: Leads::Heap,
        methods: GET,
        parameters: &[],
        summary: "what the worker process holds in memory, and the allocator's statistics; as pprof or folded, by stack",
    },
    Route {
        path: "/openapi.json",
        leads: Leads::OpenApi,
        methods: GET,
        parameters: &[],
        summary: "the OpenAPI 3.1 description of all this",
    },
];

impl Route {
    pub(super) fn find(path: &str) -> Option<&'static Self> {
        ROUTES.iter().find(|route| route.path == path)
    }

    /// All parameters that it takes.
    pub(super) fn all_parameters(&self) -> impl Iterator<Item = Parameter> {
        let format = if self.is_profile() { Parameter::ProfileFormat } else { Parameter::Format };
        self.parameters.iter().copied().chain([format])
    }

    /// Whether its answer goes on and on.
    pub(super) fn is_stream(&self) -> bool {
        self.leads == Leads::Tap
    }

    /// Whether it has a profile by stack too.
    pub(super) fn is_profile(&self) -> bool {
        matches!(self.leads, Leads::Cpu | Leads::Heap)
    }

    /// The media type of its answer for programs.
    pub(super) fn json_type(&self) -> &'static str {
        if self.is_stream() { NDJSON } else { "application/json" }
    }

    /// Whether there is no answer without the parameter.
    pub(super) fn needs(&self, parameter: Parameter) -> bool {
        self.leads == Leads::Page(Page::Explain) && matches!(parameter, Parameter::Pod | Parameter::To)
    }

    /// The methods that it takes, as the `Allow` header has them.
    pub(super) fn allow(&self) -> String {
        let head = self.methods.contains(&"GET").then_some("HEAD");
        self.methods.iter().copied().chain(head).collect::<Vec<_>>().join(", ")
    }
}
