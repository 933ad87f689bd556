//! A pod as its node has it: its processes, their sockets, and what they said. None of it asks the API server.

use super::daemon::pids_in;
use super::node::Node;
use crate::Tally;
use crate::manifests::CONFIG_MIRROR_ANNOTATION;
use crate::netns;
use crate::pod;
use crate::process::signal_to;
use crate::wait::{eventually, eventually_some};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The process that holds a pod's namespaces, by the name of its program.
const SANDBOX_PROGRAM: &str = "pause";

/// How much of a log's end holds the last count that a client printed.
const LAST_COUNT_BYTES: u64 = 16 * 1024;

/// A pod that has been on a node since its object was read; the same pod after its containers or its sandbox were made anew.
#[derive(Clone, Debug)]
pub struct RunningPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The UID in the path of its cgroup.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its first address.
    pub address: IpAddr,
    kubepods: PathBuf,
    logs: PathBuf,
}

impl RunningPod {
    /// The pod of that object, which is on that node and has its address.
    ///
    /// # Errors
    /// When it has none yet.
    pub fn of(object: &Value, node: &Node) -> Result<Self> {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| object.to_string());
        // A mirror's own UID is not the static pod's.
        let mirrored = &metadata["annotations"][CONFIG_MIRROR_ANNOTATION];
        let uid = text(if mirrored.is_string() { mirrored } else { &metadata["uid"] })?;
        let (namespace, name) = (text(&metadata["namespace"])?, text(&metadata["name"])?);
        Ok(Self {
            address: text(&object["status"]["podIP"])?.parse()?,
            kubepods: node.cgroup()?.join("kubepods"),
            logs: node.pod_logs().join(format!("{namespace}_{name}_{uid}")),
            node: node.name.clone(),
            namespace,
            name,
            uid,
        })
    }

    /// Its processes, as this machine numbers them, the sandbox's among them.
    pub fn pids(&self) -> Vec<i32> {
        let classes = ["", "burstable", "besteffort"].map(|class| self.kubepods.join(class));
        let pods = classes.iter().map(|class| class.join(format!("pod{}", self.uid)));
        let containers = pods.flat_map(|pod| fs::read_dir(pod).into_iter().flatten().flatten());
        containers.flat_map(|container| pids_in(&container.path())).collect()
    }

    /// The process that holds its namespaces.
    ///
    /// # Errors
    /// When there is none now.
    pub fn sandbox_pid(&self) -> Result<i32> {
        let holds = |pid: &i32| program_of(*pid).is_some_and(|program| program == SANDBOX_PROGRAM);
        self.pids().into_iter().find(holds).with_context(|| format!("{} has no sandbox", self.name))
    }

    /// The processes of that program.
    pub fn pids_of(&self, program: &str) -> Vec<i32> {
        self.pids().into_iter().filter(|&pid| program_of(pid).as_deref() == Some(program)).collect()
    }

    /// Whether any process of it has a connection to `destination` itself, rather than through the agent.
    ///
    /// # Errors
    /// When it has no sandbox now.
    pub fn goes_straight_to(&self, destination: SocketAddr) -> Result<bool> {
        Ok(pod::established_to(self.sandbox_pid()?)?.contains(&destination))
    }

    /// Addresses and ports on which something in it listens.
    ///
    /// # Errors
    /// When it has no sandbox now.
    pub fn listening_on(&self) -> Result<Vec<SocketAddr>> {
        pod::listening_on(self.sandbox_pid()?)
    }

    /// Does `work` on a thread inside its network namespace.
    ///
    /// # Errors
    /// When it has no sandbox now.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/proc/{}/ns/net", self.sandbox_pid()?);
        let namespace = File::open(&path).with_context(|| path.clone())?;
        netns::within(&namespace.into(), work)
    }

    /// What a container said since its last start.
    ///
    /// # Errors
    /// When it has not been started.
    pub fn said(&self, container: &str) -> Result<String> {
        let path = self.log(container)?;
        let log = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(log.lines().map(|line| message(line).to_owned() + "\n").collect())
    }

    /// What the client in a container has counted since the container's last start; nothing before it said so.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn tally(&self, container: &str) -> Result<Tally> {
        let Ok(path) = self.log(container) else { return Ok(Tally::default()) };
        let end = end_of(&path).with_context(|| path.display().to_string())?;
        Ok(last_count(&end).unwrap_or_default())
    }

    /// Waits until what the client in a container counted after `earlier` satisfies `condition`, and gives it.
    ///
    /// # Errors
    /// When it does not come so.
    pub fn until(
        &self,
        container: &str,
        what: &str,
        earlier: &Tally,
        condition: impl Fn(&Tally) -> bool,
    ) -> Result<Tally> {
        let what = format!("{}/{container}: {what}", self.name);
        let mut last = Tally::default();
        let waited = eventually_some(&what, || {
            last = self.tally(container)?.since(earlier);
            Ok(condition(&last).then(|| last.clone()))
        });
        waited.with_context(|| format!("the client counted {last:?}"))
    }

    /// Waits for so many more completed calls of the client in a container, and gives their count.
    ///
    /// # Errors
    /// When they do not come.
    pub fn more_calls(&self, container: &str, calls: u64) -> Result<Tally> {
        let now = self.tally(container)?;
        self.until(container, &format!("{calls} more calls"), &now, |tally| tally.completed() >= calls)
    }

    /// Kills the container's process of that program, and waits until the kubelet has started the container again: what is said from now
    /// on is the new one's.
    ///
    /// # Errors
    /// When it does not run, or is not started again.
    pub fn kill_container(&self, container: &str, program: &str) -> Result<()> {
        let before = self.log(container)?;
        let process = *self.pids_of(program).first().with_context(|| format!("no {program} runs"))?;
        signal_to(process, libc::SIGKILL);
        eventually(&format!("{}/{container} is started again", self.name), || {
            self.log(container).is_ok_and(|log| log != before)
        })
    }

    /// Of a container's logs, one a start, the last.
    fn log(&self, container: &str) -> Result<PathBuf> {
        let folder = self.logs.join(container);
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let starts = entries.flatten().filter_map(|entry| {
            let start: u32 = entry.path().file_stem()?.to_str()?.parse().ok()?;
            Some((start, entry.path()))
        });
        let last = starts.max().with_context(|| format!("{} is empty", folder.display()))?;
        Ok(last.1)
    }

    /// Checks that none of its containers was started a second time.
    ///
    /// # Errors
    /// When one was, or none has started.
    pub fn was_never_restarted(&self, container: &str) -> Result<()> {
        let log = self.log(container)?;
        ensure!(log.file_stem().is_some_and(|start| start == "0"), "{} was started again", self.name);
        Ok(())
    }
}

fn program_of(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let called = line.split(|&byte| byte == 0).next()?;
    Some(Path::new(std::str::from_utf8(called).ok()?).file_name()?.to_str()?.to_owned())
}

fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_COUNT_BYTES)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// A log's line without what the runtime puts before it: time, stream, and whether it is whole.
fn message(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or_default()
}

/// The last count of a client that is whole: a line may be in the middle of being written.
fn last_count(log: &str) -> Option<Tally> {
    log.lines().rev().find_map(|line| Tally::told(message(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_count_of_a_log_is_read() {
        let log = "d {}}\n\
                   2026-01-01T00:00:00.0Z stdout F tally {\"calls\":{\"a\":1},\"errors\":{},\"seen_as\":{}}\n\
                   2026-01-01T00:00:00.1Z stdout F tally {\"calls\":{\"a\":2},\"errors\":{},\"seen_as\":{}}\n\
                   2026-01-01T00:00:00.2Z stdout F tally {\"calls\":{\"a\":3},\"err";
        assert_eq!(last_count(log).expect("a count").calls["a"], 2);
        assert_eq!(last_count("2026-01-01T00:00:00.0Z stdout F ready"), None);
    }
}
