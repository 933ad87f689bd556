//! The cluster that most suites start from: some servers of one Service, and a client pod.

use crate::{Cluster, Pod, Server, Service};
use anyhow::Result;

/// Servers `server-1`, `server-2`, … behind the Service `greeter`, and the pod `client`.
#[derive(Debug)]
pub struct Shop {
    /// Pods of the servers, in the order of their names.
    pub servers: Vec<Pod>,
    /// Their greeters.
    pub greeters: Vec<Server>,
    /// Where the clients run.
    pub client: Pod,
    /// The Service over all servers.
    pub greeter: Service,
    /// The node; dropped last.
    pub cluster: Cluster,
}

impl Shop {
    /// A shop with so many servers, in an enrolled Namespace.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn enrolled(servers: usize) -> Result<Self> {
        let mut shop = Self::not_enrolled(servers)?;
        shop.cluster.enrol_namespace(true);
        shop.cluster.publish()?;
        Ok(shop)
    }

    /// A shop with so many servers that Evenkeel has nothing to do with yet.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn not_enrolled(servers: usize) -> Result<Self> {
        let mut cluster = Cluster::new()?;
        let client = cluster.pod("client")?;
        let servers = (1..=servers)
            .map(|number| cluster.pod(&format!("server-{number}")))
            .collect::<Result<Vec<Pod>>>()?;
        let greeters = servers.iter().map(Pod::serve).collect::<Result<Vec<Server>>>()?;
        let greeter = cluster.service("greeter", &servers.iter().collect::<Vec<_>>())?;
        Ok(Self { servers, greeters, client, greeter, cluster })
    }

    /// The servers' names.
    pub fn names(&self) -> Vec<&str> {
        self.servers.iter().map(|pod| pod.name.as_str()).collect()
    }

    /// The Service's IPv4 address and port.
    pub fn v4(&self) -> String {
        self.greeter.v4()
    }

    /// The Service's IPv6 address and port.
    pub fn v6(&self) -> String {
        self.greeter.v6()
    }

    /// Adds a server pod with its greeter, but not yet to the Service.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn add_server(&mut self) -> Result<()> {
        let pod = self.cluster.pod(&format!("server-{}", self.servers.len() + 1))?;
        self.greeters.push(pod.serve()?);
        self.servers.push(pod);
        Ok(())
    }

    /// Makes exactly the servers at those positions the Service's endpoints.
    ///
    /// # Errors
    /// When it cannot be published.
    pub fn publish_servers(&mut self, positions: &[usize]) -> Result<()> {
        let pods: Vec<&Pod> = positions.iter().map(|&position| &self.servers[position]).collect();
        self.cluster.set_endpoints("greeter", &pods)
    }

    /// Whether the calls of one fresh connection from that pod are spread, rather than all on one server.
    ///
    /// # Errors
    /// When a call fails.
    pub fn spreads_calls_of(&self, pod: &Pod) -> Result<bool> {
        const ENOUGH_FOR_EACH_WORKERS_ROUND: u64 = 12;
        // Not the usual rate: in step with another client, each would get the same server in turn.
        let tally = pod.call(&self.v4(), ENOUGH_FOR_EACH_WORKERS_ROUND, &["--rate", "130"])?;
        tally.is_clean()?;
        if tally.calls.len() == 1 {
            eprintln!("the calls of {} were not spread: {tally:?}", pod.name);
        }
        Ok(tally.calls.len() > 1)
    }
}
