//! A container within a pod's container, as a daemon of containers that runs in a pod makes it: a cgroup below the container's, and a
//! network of its own behind the pod's.

use super::running_pod::RunningPod;
use crate::cgroup::{self, Cgroup};
use crate::netns::Netns;
use crate::process::{Place, Process};
use crate::{Load, Tally, host, peers};
use anyhow::{Context, Result};
use std::fs;
use std::net::SocketAddr;

/// The network between the pod and what is nested in it.
const INNER: &str = "172.29.0.2";
const OUTER: &str = "172.29.0.1";

/// It goes with the value.
#[derive(Debug)]
pub struct NestedContainer {
    cgroup: Cgroup,
    _parent: Cgroup,
    netns: Netns,
}

impl NestedContainer {
    /// One within the container of that pod that runs that program; `name` is to be unique on this machine.
    ///
    /// # Errors
    /// When its cgroup or its network cannot be made.
    pub fn of(pod: &RunningPod, program: &str, name: &str) -> Result<Self> {
        let app = *pod.pids_of(program).first().with_context(|| format!("{program} runs in no container"))?;
        let netns = Netns::create(name.to_owned())?;
        netns.ip(&format!(
            "link add eth0 type veth peer name nested netns {}\n\
             addr add {INNER}/24 dev eth0\n\
             link set eth0 up\n\
             route add default via {OUTER}\n",
            pod.sandbox_pid()?
        ))?;
        pod.enter(|| -> Result<String> {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            host::run(
                "ip",
                &["-batch", "-"],
                &format!("addr add {OUTER}/24 dev nested\nlink set nested up\n"),
            )?;
            host::run("nft", &["-f", "-"], MASQUERADE)
        })??;
        let parent = Cgroup::make(cgroup::of(app)?.join("docker"))?;
        Ok(Self { cgroup: parent.child("nested")?, _parent: parent, netns })
    }

    /// Makes so many calls from one channel inside, and waits for their end.
    ///
    /// # Errors
    /// When the client does not end well; failed calls are in the tally.
    pub fn call(&self, to: SocketAddr, calls: u32) -> Result<Tally> {
        let command = peers::command(&["load", "--to", &to.to_string(), "--calls", &calls.to_string()])?;
        let place = Place::new(self.cgroup.path(), Some(self.netns.open()?))?;
        Load { process: Process::spawn("nested", command, Some(place))? }.finish()
    }
}

/// Others see the pod's own address, as behind Docker's bridge.
const MASQUERADE: &str = "table ip nested {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname eth0 masquerade
  }
}
";
