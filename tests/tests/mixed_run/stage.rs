//! The cluster of the run, and what those in it say.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::agent::Options;
use evenkeel_tests::cluster::GREETER_TARGET_PORT;
use evenkeel_tests::collector::{self, Collector};
use evenkeel_tests::manifests::{CIRCUIT_BREAKER_ANNOTATION, EJECTION_ANNOTATION, RETRY_ANNOTATION};
use evenkeel_tests::peer::{SeenCall, SeenEnd};
use evenkeel_tests::{Agent, Cluster, Load, Outcome, Pod, Server, Service, Tally};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Which of the servers fails the first attempt of each call, which drains, and which is killed. The first sends its clients away all the time.
pub(super) const FAILS: usize = 1;
pub(super) const DRAINS: usize = 2;
pub(super) const IS_KILLED: usize = 3;
const SERVERS: usize = 4;
/// Those that serve all the time.
pub(super) const STAY: [&str; 2] = ["server-1", "server-2"];

/// The client's span that each call has as its parent.
const PARENT: &str = "00f067aa0ba902b7";

pub(super) struct Stage {
    pub(super) agent: Agent,
    pub(super) collector: Collector,
    /// Those that serve, by their pods' places.
    serving: BTreeMap<usize, Server>,
    /// What servers have said that have ended.
    said: Vec<(String, Vec<String>)>,
    /// How the calls of clients ended that have ended.
    seen: BTreeMap<String, SeenEnd>,
    clients: u16,
    pods: Vec<Pod>,
    client: Pod,
    _absent: Pod,
    _observatory: Pod,
    pub(super) plain: Service,
    /// The same with a retry policy.
    pub(super) again: Service,
    /// Of one server, and with a circuit breaker.
    pub(super) narrow: Service,
    /// Of an endpoint where nobody listens.
    pub(super) nobody: Service,
    log: tempfile::TempDir,
    cluster: Cluster,
}

/// A client that calls on.
pub(super) struct Client {
    pub(super) load: Load,
    /// The upper half of its calls' trace ids; the lower is a call's number.
    trace: String,
}

/// An attempt that a server has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) server: String,
    pub(super) trace: String,
    /// The span that is its parent.
    pub(super) parent: String,
    /// How often the call had been sent before, as the agent's policy says.
    pub(super) previous: u64,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        // What it needs is there before anything waits for it.
        Collector::command("", &[])?;
        let mut cluster = Cluster::new()?;
        let [client, absent, observatory] = ["client", "absent", "observatory"].map(|name| cluster.pod(name));
        let (client, absent, observatory) = (client?, absent?, observatory?);
        let pods = (1..=SERVERS)
            .map(|number| cluster.pod(&format!("server-{number}")))
            .collect::<Result<Vec<Pod>>>()?;
        let all: Vec<&Pod> = pods.iter().collect();
        let [plain, again] = ["plain", "again"].map(|name| cluster.service(name, &all));
        let (plain, again) = (plain?, again?);
        let narrow = cluster.service("narrow", &all[..1])?;
        let nobody = cluster.service("nobody", &[&absent])?;
        for service in ["plain", "again"] {
            // Whoever fails is to be called all the same.
            cluster.annotate(service, EJECTION_ANNOTATION, "off")?;
        }
        cluster.annotate(
            "again",
            RETRY_ANNOTATION,
            "attempts=3 on=unavailable backoff=2ms..10ms budget=100%",
        )?;
        cluster.annotate("narrow", CIRCUIT_BREAKER_ANNOTATION, "requests=4")?;
        cluster.enrol_namespace(true);
        cluster.publish()?;
        let collector = observatory.collect(&[])?;
        let log = tempfile::tempdir()?;
        let arguments = vec![
            "--access-log=all".to_owned(),
            format!("--access-log-to={}", log.path().join("access.log").display()),
            format!("--otlp-endpoint=http://{}", observatory.v4(collector::PORT)),
        ];
        let agent = Agent::start_with(&cluster, &Options { arguments, ..Options::default() })?;
        let mut stage = Self {
            agent,
            collector,
            serving: BTreeMap::new(),
            said: Vec::new(),
            seen: BTreeMap::new(),
            clients: 0,
            pods,
            client,
            _absent: absent,
            _observatory: observatory,
            plain,
            again,
            narrow,
            nobody,
            log,
            cluster,
        };
        (0..SERVERS).try_for_each(|place| stage.serve(place))?;
        Ok(stage)
    }

    pub(super) fn serve(&mut self, place: usize) -> Outcome {
        let told = ["--tell-fields", "traceparent", "--tell-fields", "grpc-previous-rpc-attempts"];
        let manner: &[&str] = match place {
            0 => &["--calls-per-connection", "50"],
            FAILS => &["--fail-attempts", "1"],
            _ => &[],
        };
        let server = self.pods[place].serve_with(GREETER_TARGET_PORT, &[&told, manner].concat())?;
        self.serving.insert(place, server);
        Ok(())
    }

    /// A server ends in order, when all its calls have ended.
    pub(super) fn stop(&mut self, place: usize) -> Outcome {
        let mut server = self.serving.remove(&place).context("it serves")?;
        server.process.stop()?;
        self.said.push((server.name, server.process.stdout()));
        Ok(())
    }

    pub(super) fn kill(&mut self, place: usize) -> Outcome {
        let mut server = self.serving.remove(&place).context("it serves")?;
        server.process.kill()?;
        // Until all that it said is read.
        server.process.wait()?;
        self.said.push((server.name, server.process.stdout()));
        Ok(())
    }

    /// Makes exactly those servers a Service's endpoints.
    pub(super) fn publish(&mut self, service: &str, places: &[usize]) -> Outcome {
        let pods: Vec<&Pod> = places.iter().map(|place| &self.pods[*place]).collect();
        self.cluster.set_endpoints(service, &pods)
    }

    pub(super) fn address(&self, place: usize) -> String {
        self.pods[place].v4(GREETER_TARGET_PORT)
    }

    /// Calls under way at a server's address, of those to a Service.
    pub(super) fn active(&self, service: &str, address: &str) -> Result<u64> {
        let rows = self.agent.admin("/endpoints")?;
        let mut rows = rows.as_array().context("a list")?.iter();
        let row = rows.find(|row| row["service_port"] == service && row["address"] == address);
        row.and_then(|row| row["active"].as_u64()).context("the endpoint is there")
    }

    pub(super) fn client(&mut self, to: &str, options: &[&str]) -> Result<Client> {
        self.clients += 1;
        let trace = format!("5eed{:012x}", self.clients);
        let context = format!("traceparent=00-{trace}{{call}}-{PARENT}-01");
        let options = [&["--tell-calls", "--header", &context], options].concat();
        Ok(Client { load: self.client.load(to, &options)?, trace })
    }

    /// Has a client end when its calls have.
    pub(super) fn stop_client(&mut self, client: Client) -> Result<Tally> {
        client.load.process.signal(libc::SIGTERM);
        self.finish(client)
    }

    pub(super) fn call(&mut self, to: &str, calls: u64, options: &[&str]) -> Result<Tally> {
        let calls = calls.to_string();
        let client = self.client(to, &[&["--calls", &calls], options].concat())?;
        self.finish(client)
    }

    fn finish(&mut self, Client { mut load, trace }: Client) -> Result<Tally> {
        load.process.wait()?;
        let tally = load.tally()?;
        let lines = load.process.stdout();
        for line in lines.iter().filter_map(|line| line.strip_prefix("call ")) {
            let SeenCall { call, end } = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let before = self.seen.insert(format!("{trace}{call}"), end);
            ensure!(before.is_none(), "the client tells of a call twice: {line}");
        }
        ensure!(lines.iter().any(|line| line.starts_with("done ")), "{:?}", load.process.stderr());
        Ok(tally)
    }

    /// How each call ended for its client, of clients that have ended, by trace id.
    pub(super) fn seen(&self) -> &BTreeMap<String, SeenEnd> {
        &self.seen
    }

    /// The attempts that servers have begun.
    pub(super) fn begun(&self) -> Result<Vec<Begun>> {
        let serving = self.serving.values().map(|server| (server.name.clone(), server.process.stdout()));
        let mut begun = Vec::new();
        for (server, lines) in self.said.iter().cloned().chain(serving) {
            for line in lines.iter().filter_map(|line| line.strip_prefix("fields ")) {
                let fields: BTreeMap<String, String> =
                    serde_json::from_str::<Vec<(String, String)>>(line)?.into_iter().collect();
                let context = fields.get("traceparent").context(line.to_owned())?;
                let [_, trace, parent, "01"] = context.split('-').collect::<Vec<_>>()[..] else {
                    anyhow::bail!("{line}")
                };
                let previous = fields.get("grpc-previous-rpc-attempts").map_or(Ok(0), |text| text.parse())?;
                let (trace, parent) = (trace.to_owned(), parent.to_owned());
                begun.push(Begun { server: server.clone(), trace, parent, previous });
            }
        }
        Ok(begun)
    }

    /// The servers' names by their addresses.
    pub(super) fn names(&self) -> BTreeMap<String, String> {
        let of = |(place, pod): (usize, &Pod)| (self.address(place), pod.name.clone());
        self.pods.iter().enumerate().map(of).collect()
    }

    /// The lines of the access log.
    pub(super) fn lines(&self) -> Result<Vec<Value>> {
        let path: PathBuf = self.log.path().join("access.log");
        let text = fs::read_to_string(path)?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// When the worker process began, in Unix time, as its metrics say.
    pub(super) fn process_start(&self) -> Result<f64> {
        let text = self.agent.metrics()?;
        let line = text.lines().find_map(|line| line.strip_prefix("process_start_time_seconds "));
        Ok(line.context("a process has begun")?.parse()?)
    }
}
