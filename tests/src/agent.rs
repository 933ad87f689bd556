//! The real agent, on a [`Cluster`].

use crate::cgroup::{self, Cgroup};
use crate::cluster::NODE_NAME;
use crate::memory_limit::MemoryLimit;
use crate::netns::Netns;
use crate::process::{Place, Process, children, signal_to};
use crate::wait::eventually_some;
use crate::{Cluster, eventually, host};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The admin's port of the first agent; its other two follow, and the next agent's stand so much higher.
pub(crate) const FIRST_PORT: u16 = 15_800;
const NEXT_AGENT: u16 = 200;

/// Ports of which the agent's listener in a pod has one, unless it is told otherwise.
pub const LISTENER_PORTS: RangeInclusive<u16> = 15_810..=15_899;
/// An endpoint that has not answered by then does not. What is asked for may be a profile, of an agent that has much to do.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How one agent differs from another.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0, or higher for agents that run beside the first.
    pub number: u16,
    /// See a host on which nothing but cgroup2 is mounted at `/sys/fs/cgroup`.
    pub pure_cgroup2: bool,
    /// Let the agent find the pods' common cgroup by itself, on a host that has no cgroups but the cluster's.
    pub finds_cgroup: bool,
    /// Learn of everything from the API server of this kubeconfig, rather than from the cluster's folder.
    pub kubeconfig: Option<PathBuf>,
    /// No more memory than so many bytes, of all kinds that the kernel charges to the agent's cgroup; beyond, the kernel ends it.
    pub memory_limit: Option<u64>,
    /// See this file as `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// Have the admin endpoint at this unix socket.
    pub admin_socket: Option<PathBuf>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Further variables.
    pub variables: Vec<(String, String)>,
}

/// A running `evenkeel agent`.
#[derive(Debug)]
pub struct Agent {
    /// The keeper process.
    pub process: Process,
    node: Arc<Netns>,
    number: u16,
    admin_socket: Option<PathBuf>,
    // Ends what the keeper might have left.
    _cgroup: Cgroup,
    /// The limit on its memory, if it has one; its cgroup goes when the one above has ended what is in it.
    pub memory: Option<MemoryLimit>,
}

impl Agent {
    /// Starts the agent on the cluster's node and waits until it is ready.
    ///
    /// # Errors
    /// With the agent's last words when it ends instead.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_with(cluster, &Options::default())
    }

    /// Starts an agent with these options and waits until it is ready.
    ///
    /// # Errors
    /// With the agent's last words when it ends instead.
    pub fn start_with(cluster: &Cluster, options: &Options) -> Result<Self> {
        let mut agent = Self::launch(cluster, options)?;
        agent.ready()?;
        Ok(agent)
    }

    /// Starts an agent and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(cluster: &Cluster, options: &Options) -> Result<Self> {
        let cgroup = cluster.system_cgroup(&format!("agent-{}", options.number))?;
        let memory = options.memory_limit.map(|bytes| MemoryLimit::of(&cgroup, bytes)).transpose()?;
        let mut cgroups = vec![cgroup.path().to_owned()];
        cgroups.extend(memory.iter().filter_map(MemoryLimit::folder_of_v1).map(Path::to_owned));
        let place = Place::in_all(&cgroups, Some(cluster.node.open()?))?;
        let command = command(cluster, options)?;
        Ok(Self {
            process: Process::spawn(&format!("agent-{}", options.number), command, Some(place))?,
            node: Arc::clone(&cluster.node),
            number: options.number,
            admin_socket: options.admin_socket.clone(),
            _cgroup: cgroup,
            memory,
        })
    }

    /// Waits until the agent says that all pods of the node are enrolled.
    ///
    /// # Errors
    /// With the agent's last words when it ends instead.
    pub fn ready(&mut self) -> Result<()> {
        eventually_some("the agent is ready", || {
            if let Some(status) = self.process.ended()? {
                bail!("the agent ended ({status}): {}", self.process.stderr().join("\n"));
            }
            Ok(self.is_ready().then_some(()))
        })
    }

    /// Whether `/readyz` says 200 now.
    pub fn is_ready(&self) -> bool {
        self.get(self.port(1), "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Whether `/livez` says 200 now.
    pub fn is_alive(&self) -> bool {
        self.get(self.port(1), "/livez").is_ok_and(|(status, _)| status == 200)
    }

    /// The metrics as OpenMetrics text.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(self.metrics_for("application/openmetrics-text;version=1.0.0")?.body)
    }

    /// The metrics for who accepts that.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics_for(&self, accept: &str) -> Result<Answer> {
        let at = self.metrics_address();
        let request = request("GET", "/metrics", &at.to_string(), &[("Accept", accept)], "");
        self.node.enter(|| exchange(connect(at)?, &request))?
    }

    /// Where the metrics are, for who is on the node.
    pub fn metrics_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port(2)).into()
    }

    /// A path of the admin endpoint, for who is on the node.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", Ipv4Addr::LOCALHOST, self.port(0))
    }

    /// The admin endpoint's JSON at a path such as `/pods`.
    ///
    /// # Errors
    /// When it does not answer 200 with JSON.
    pub fn admin(&self, path: &str) -> Result<Value> {
        let Answer { status, body, .. } = self.ask("GET", path, &[], "")?;
        ensure!(status == 200, "{path}: {status} {body}");
        serde_json::from_str(&body).with_context(|| body)
    }

    /// Sends the admin endpoint a request. `Host` is the endpoint's own where no header is one.
    ///
    /// # Errors
    /// When it does not answer with HTTP.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port(0)));
        let request = request(method, path, &at.to_string(), headers, body);
        match &self.admin_socket {
            Some(path) => exchange(UnixStream::connect(path)?, &request),
            None => self.node.enter(|| exchange(connect(at)?, &request))?,
        }
    }

    /// What the agent counts of the endpoint at that address, of whatever Service: `calls` begun, `failures`, `active` ones.
    ///
    /// # Errors
    /// When it does not answer, or knows no such endpoint.
    pub fn endpoint(&self, address: &str) -> Result<Value> {
        let Value::Array(rows) = self.admin("/endpoints")? else { bail!("/endpoints is a list") };
        let found = rows.into_iter().find(|row| row["address"] == address);
        found.with_context(|| format!("the agent knows no endpoint {address}"))
    }

    /// What the agent shows of the pod of that name: its row at `/pods`.
    ///
    /// # Errors
    /// When it does not answer, or knows no such pod.
    pub fn pod(&self, name: &str) -> Result<Value> {
        let Value::Array(rows) = self.admin("/pods")? else { bail!("/pods is a list") };
        let found = rows.into_iter().find(|row| row["name"] == name);
        found.with_context(|| format!("the agent knows no pod {name}"))
    }

    /// Calls that are with servers now.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn active_calls(&self) -> Result<u64> {
        let rows = self.admin("/endpoints")?;
        let active = rows.as_array().into_iter().flatten().map(|row| row["active"].as_u64());
        active.sum::<Option<u64>>().context("each endpoint has its active calls")
    }

    /// Whether no connection is open and no call under way: all that calls leave behind has been told.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn is_idle(&self) -> Result<bool> {
        // Published behind a turn's calls.
        let workers = self.admin("/workers")?;
        Ok(workers["calls_open"] == 0 && workers["http2_open"] == 0 && self.active_calls()? == 0)
    }

    /// A connection to the admin endpoint, the probes and the metrics, from the node, on which nothing is said.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn silent_connections(&self) -> Result<[TcpStream; 3]> {
        self.node.enter(|| {
            let [admin, probes, metrics] =
                [0, 1, 2].map(|offset| connect((Ipv4Addr::LOCALHOST, self.port(offset)).into()));
            Ok([admin?, probes?, metrics?])
        })?
    }

    /// Descriptors that the worker process has open.
    ///
    /// # Errors
    /// When there is no worker process.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.worker_process()?))?.count())
    }

    /// Memory of the worker process that is in RAM.
    ///
    /// # Errors
    /// When there is no worker process.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.worker_process()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.context("a process has a VmRSS")?.parse().context("a number of KiB")
    }

    /// The worker process, which the keeper runs.
    ///
    /// # Errors
    /// When there is none.
    pub fn worker_process(&self) -> Result<i32> {
        eventually_some("the keeper has a worker process", || Ok(children(self.process.pid()).pop()))
    }

    /// Kills the worker process with -9, and waits until the keeper has started another and that is ready.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn kill_worker_process(&mut self) -> Result<()> {
        let before = self.worker_process()?;
        signal_to(before, libc::SIGKILL);
        eventually("the keeper starts another worker process", || {
            children(self.process.pid()).iter().any(|&pid| pid != before)
        })?;
        self.ready()
    }

    /// Stops the agent in order (SIGTERM).
    ///
    /// # Errors
    /// When it does not exit with 0.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.stop()?;
        ensure!(status.success(), "the agent ended with {status}, signal {:?}", status.signal());
        Ok(())
    }

    /// The admin's port, or one of those that follow it.
    fn port(&self, offset: u16) -> u16 {
        FIRST_PORT + NEXT_AGENT * self.number + offset
    }

    fn get(&self, port: u16, path: &str) -> Result<(u16, String)> {
        self.node.enter(|| get((Ipv4Addr::LOCALHOST, port).into(), path))?
    }
}

/// The command line of an agent on that cluster.
///
/// # Errors
/// When the binary has not been built.
pub fn command(cluster: &Cluster, options: &Options) -> Result<Command> {
    let port = FIRST_PORT + NEXT_AGENT * options.number;
    let binary = host::evenkeel_binary()?;
    let mut arguments: Vec<OsString> = match &options.kubeconfig {
        None => {
            vec!["agent".into(), "--source".into(), format!("folder:{}", cluster.folder().display()).into()]
        }
        Some(kubeconfig) => {
            vec![
                "agent".into(),
                "--kubeconfig".into(),
                kubeconfig.into(),
                "--node-name".into(),
                NODE_NAME.into(),
            ]
        }
    };
    let admin = match &options.admin_socket {
        Some(path) => format!("unix:{}", path.display()),
        None => format!("127.0.0.1:{port}"),
    };
    arguments.extend([
        "--workers".into(),
        "2".into(),
        "--admin".into(),
        admin.into(),
        "--readiness".into(),
        format!("0.0.0.0:{}", port + 1).into(),
        "--metrics".into(),
        format!("0.0.0.0:{}", port + 2).into(),
    ]);
    if !options.finds_cgroup {
        arguments.push("--cgroup".into());
        arguments.push(seen_cgroup(cluster.kubepods.path(), options.pure_cgroup2)?.into());
    }
    arguments.extend(options.arguments.iter().map(Into::into));
    let mut command = if options.pure_cgroup2 {
        in_host(&binary, PURE_CGROUP2_HOST)
    } else if options.finds_cgroup {
        let own = seen_cgroup(cluster.cgroup_root(), true)?;
        in_host(&binary, &format!("{PURE_CGROUP2_HOST} && mount --bind {} /sys/fs/cgroup", own.display()))
    } else if let Some(hosts) = &options.hosts {
        in_host(&binary, &format!("mount --bind {} /etc/hosts", hosts.display()))
    } else {
        Command::new(binary)
    };
    command.args(arguments).envs(options.variables.iter().cloned());
    Ok(command)
}

/// The cgroup's folder as the agent's mount namespace has it.
fn seen_cgroup(path: &Path, pure: bool) -> Result<PathBuf> {
    if !pure {
        return Ok(path.to_owned());
    }
    Ok(Path::new("/sys/fs/cgroup").join(path.strip_prefix(cgroup::mount()?)?))
}

/// Mounts nothing but cgroup2 at the place that a pure host has it.
const PURE_CGROUP2_HOST: &str = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup";

/// Runs a program in a mount namespace of its own, which the shell command `mounts` has changed.
fn in_host(program: &Path, mounts: &str) -> Command {
    let script = format!("{mounts} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).arg(program);
    command
}

/// What an endpoint has answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields, as they came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header field's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// One HTTP request; the whole answer's status and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let answer = exchange(connect(address)?, &request("GET", path, &address.to_string(), &[], ""))?;
    Ok((answer.status, answer.body))
}

fn request(method: &str, path: &str, host: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request += &format!("Host: {host}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request + "\r\n" + body
}

pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(stream)
}

/// Sends a request and reads until the connection's end.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &str) -> Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
    let status = head.split(' ').nth(1).context("an HTTP answer has a status")?;
    let mut answer = Answer { status: status.parse()?, head: head.to_owned(), body: body.to_owned() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = of_chunks(body)?;
    }
    Ok(answer)
}

/// The body that came in chunks (RFC 9112 §7.1). Its end may be missing.
fn of_chunks(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).with_context(|| format!("a chunk has a size: {size}"))?;
        body.push_str(behind.get(..size).unwrap_or(behind));
        rest = behind.get(size + "\r\n".len()..).unwrap_or_default();
    }
    Ok(body)
}
