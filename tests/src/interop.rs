//! gRPC's own interoperability test: clients and servers of which each language has one, by the same description of cases.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md> says what each case does. The programs are those
//! that grpc-go and grpc-java publish, unchanged; they are built, or fetched, on first use.

use crate::host;
use crate::peers::Server;
use crate::stacks::{once_for, sources, workshop};
use crate::{Pod, Process, cluster, eventually};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// Where the client's and the server's main program come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// grpc-go.
    Go,
    /// grpc-java, on Netty.
    Java,
}

/// One implementation's client and server, ready to run.
#[derive(Clone, Debug)]
pub struct Interop {
    implementation: Implementation,
    /// Go's two programs, or the folder of Java's archives.
    built: PathBuf,
}

impl Interop {
    /// Builds or fetches them: the versions that their module or project names.
    ///
    /// # Errors
    /// When the toolchain cannot.
    pub fn build(implementation: Implementation) -> Result<Self> {
        let built = match implementation {
            Implementation::Go => go()?,
            Implementation::Java => java()?,
        };
        Ok(Self { implementation, built })
    }

    /// A server in that pod, on the target port of the cluster's Services, once it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&self, pod: &Pod) -> Result<Server> {
        let mut command = self.command("server", "io.grpc.testing.integration.TestServiceServer");
        command.arg(format!("--port={}", cluster::GREETER_TARGET_PORT)).arg("--use_tls=false");
        let mut process = pod.spawn("interop-server", command)?;
        eventually("the interop server listens", || {
            pod.listening_on()
                .is_ok_and(|all| all.iter().any(|address| address.port() == cluster::GREETER_TARGET_PORT))
        })?;
        ensure!(process.ended()?.is_none(), "the server ended: {:#?}", process.stderr());
        Ok(Server { process, name: pod.name.clone() })
    }

    /// Starts one case of the client in that pod; its exit status is the verdict.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn client(&self, pod: &Pod, to: &str, case: &str) -> Result<Process> {
        let (host, port) = to.rsplit_once(':').with_context(|| format!("{to} has no port"))?;
        let mut command = self.command("client", "io.grpc.testing.integration.TestServiceClient");
        command.args(["--use_tls=false", &format!("--server_host={host}"), &format!("--server_port={port}")]);
        command.arg(format!("--test_case={case}")).args(flags_of(case));
        pod.spawn(case, command)
    }

    fn command(&self, go_program: &str, java_class: &str) -> Command {
        match self.implementation {
            Implementation::Go => Command::new(self.built.join(go_program)),
            Implementation::Java => {
                let mut command = Command::new("java");
                // A case lasts a second: no time for the second compiler and its threads to pay.
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp"]);
                command.arg(self.built.join("*")).arg(java_class);
                command
            }
        }
    }
}

/// What some cases ask for beside their name.
fn flags_of(case: &str) -> &'static [&'static str] {
    match case {
        // Their own limits are for machines with nothing else to do.
        "rpc_soak" | "channel_soak" => {
            &["--soak_per_iteration_max_acceptable_latency_ms=60000", "--soak_overall_timeout_seconds=60"]
        }
        // The policy through which the client sees the report.
        "orca_per_rpc" => {
            &["--service_config_json={\"loadBalancingConfig\":[{\"test_backend_metrics_load_balancer\":{}}]}"]
        }
        _ => &[],
    }
}

fn go() -> Result<PathBuf> {
    let (folder, _lock) = workshop()?;
    let built = folder.join("interop-go");
    let source = sources("interop-go");
    for program in ["client", "server"] {
        let package = format!("google.golang.org/grpc/interop/{program}");
        let (source, output) = (source.to_string_lossy(), built.join(program));
        host::run("go", &["-C", &source, "build", "-o", &output.to_string_lossy(), &package], "")
            .context("grpc-go's interop programs")?;
    }
    Ok(built)
}

fn java() -> Result<PathBuf> {
    let (folder, _lock) = workshop()?;
    let built = folder.join("interop-java");
    let project = sources("interop-java").join("pom.xml");
    once_for(&project, &built, || {
        // Archives of versions before must not stay on the class path.
        let _ = std::fs::remove_dir_all(&built);
        let output = format!("-DoutputDirectory={}", built.display());
        let copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
        let project = project.to_string_lossy();
        host::run("mvn", &["-q", "-B", "-f", &project, copy, &output, "-DincludeScope=runtime"], "")
            .context("grpc-java's interop programs")
    })?;
    Ok(built)
}
