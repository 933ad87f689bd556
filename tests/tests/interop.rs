//! gRPC's interoperability cases through the real redirect: grpc-go's and grpc-java's own clients and servers, each with its
//! own kind and with the other. All cases of the description that need no TLS.
//!
//! One cluster serves all cases, so this suite's tests are made at run time: each is named `CLIENT_to_SERVER::CASE`.

use anyhow::{Context, Result, anyhow, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::interop::{Implementation, Interop};
use evenkeel_tests::{Agent, Cluster, Pod, Server, Service};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What every client and every server can do.
const COMMON: &[&str] = &[
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
];
/// Loads that the clients of both know beside the description's cases: calls on one channel, and a channel for each.
const SOAKS: &[&str] = &["rpc_soak", "channel_soak"];
/// Compression, and a request above the usual limit: grpc-java has them at both ends. Without the probe by which a server is
/// asked to refuse what is not compressed, which grpc-java's takes.
const JAVA_ALONE: &[&str] = &[
    "client_compressed_unary_noprobe",
    "server_compressed_unary",
    "client_compressed_streaming_noprobe",
    "server_compressed_streaming",
    "very_large_request",
];
/// Metrics of the server in trailers: grpc-go has them at both ends.
const GO_ALONE: &[&str] = &["orca_per_rpc"];

/// Which cases run, by the client and the server.
const PAIRS: [(&str, Implementation, Implementation, &[&[&str]]); 4] = [
    ("go_to_go", Implementation::Go, Implementation::Go, &[COMMON, SOAKS, GO_ALONE]),
    ("go_to_java", Implementation::Go, Implementation::Java, &[COMMON, SOAKS]),
    ("java_to_go", Implementation::Java, Implementation::Go, &[COMMON]),
    ("java_to_java", Implementation::Java, Implementation::Java, &[COMMON, SOAKS, JAVA_ALONE]),
];

/// Servers of each implementation: several, so that the cases' calls are spread.
const SERVERS: usize = 2;

/// An implementation's programs and its Service, or why they are not there.
type Side = (Implementation, Result<(Interop, Service), String>);

/// What all cases share. Dropped in this order.
struct Stage {
    agent: Agent,
    _servers: Vec<(Pod, Server)>,
    client: Pod,
    /// Without one toolchain the other's cases run all the same.
    sides: Vec<Side>,
    _cluster: Cluster,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut cluster = Cluster::new()?;
        cluster.enrol_namespace(true);
        let client = cluster.pod("client")?;
        let mut servers = Vec::new();
        let mut sides = Vec::new();
        for implementation in [Implementation::Go, Implementation::Java] {
            let side = side(implementation, &mut cluster, &mut servers);
            sides.push((implementation, side.map_err(|error| format!("{error:#}"))));
        }
        let agent = Agent::start(&cluster)?;
        Ok(Self { agent, _servers: servers, client, sides, _cluster: cluster })
    }

    fn of(&self, implementation: Implementation) -> Result<&(Interop, Service)> {
        let side = self.sides.iter().find(|(of, _)| *of == implementation).context("both are made")?;
        side.1.as_ref().map_err(|error| anyhow!("{implementation:?}: {error}"))
    }

    /// One case: the client's own verdict, and that its calls went through the agent.
    fn run(&self, client: Implementation, server: Implementation, case: &str) -> Result<()> {
        let (interop, to) = (&self.of(client)?.0, self.of(server)?.1.v4());
        let mut process = interop.client(&self.client, &to, case)?;
        let status = process.wait()?;
        ensure!(status.success(), "{status}\n{:#?}\n{:#?}", process.stdout(), process.stderr());
        let row = self.agent.pod("client")?;
        ensure!(
            row["connections"]["taken"].as_u64().is_some_and(|taken| taken > 0),
            "nothing was taken: {row}"
        );
        ensure!(!self.client.goes_straight_to(&to)?, "a connection goes straight: {row}");
        Ok(())
    }
}

/// An implementation's programs, and its servers behind a Service.
fn side(
    implementation: Implementation,
    cluster: &mut Cluster,
    servers: &mut Vec<(Pod, Server)>,
) -> Result<(Interop, Service)> {
    let interop = Interop::build(implementation)?;
    let name = format!("{implementation:?}").to_lowercase();
    let mut pods = Vec::new();
    for number in 1..=SERVERS {
        let pod = cluster.pod(&format!("{name}-{number}"))?;
        let server = interop.serve(&pod)?;
        pods.push((pod, server));
    }
    let service = cluster.service(&name, &pods.iter().map(|(pod, _)| pod).collect::<Vec<_>>())?;
    servers.append(&mut pods);
    Ok((interop, service))
}

/// Made by the first case that runs, taken away behind the last.
#[derive(Default)]
struct Shared {
    made: OnceLock<Result<(), String>>,
    stage: Mutex<Option<Arc<Stage>>>,
}

impl Shared {
    fn stage(&self) -> Result<Arc<Stage>, Failed> {
        let made = self.made.get_or_init(|| match Stage::new() {
            Ok(stage) => {
                *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(stage));
                Ok(())
            }
            Err(error) => Err(format!("{error:#}")),
        });
        made.clone()?;
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(stage.as_ref().ok_or("it is taken away behind the last case")?))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let may_run = privileged();
    let shared = Arc::new(Shared::default());
    let mut trials = Vec::new();
    for (pair, client, server, cases) in PAIRS {
        for case in cases.iter().copied().flatten().copied() {
            let shared = Arc::clone(&shared);
            let trial = Trial::test(format!("{pair}::{case}"), move || {
                shared.stage()?.run(client, server, case).map_err(|error| format!("{error:#}").into())
            });
            trials.push(trial.with_ignored_flag(!may_run));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(shared);
    conclusion.exit_code()
}
