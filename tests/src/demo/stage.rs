//! The pods, and what is done to them and to the agent.

use super::phase::{Expected, in_flight_max};
use crate::manifests::ON_ENROL_ANNOTATION;
use crate::{Agent, Load, Shop, Tally};
use anyhow::{Context, Result};

/// Calls a second: enough to see shares within a second, little enough for a laptop.
pub(super) const RATE: u64 = 500;
/// How many servers stand behind the Service at first.
const SERVERS_AT_FIRST: usize = 3;
/// The server that is killed.
const VICTIM: usize = 1;

impl super::play::Stage for Stage {
    fn tally(&mut self) -> Result<Tally> {
        self.load.runs()?;
        self.load.tally()
    }
}

/// All that runs.
pub(super) struct Stage {
    load: Load,
    agent: Option<Agent>,
    alive: Vec<usize>,
    shop: Shop,
}

impl Stage {
    pub(super) fn set_up() -> Result<Self> {
        let mut shop = Shop::not_enrolled(SERVERS_AT_FIRST)?;
        let [rate, in_flight] = [RATE, in_flight_max(RATE)].map(|number| number.to_string());
        let mut load = shop.client.load(&shop.v4(), &["--rate", &rate, "--in-flight", &in_flight])?;
        load.more_calls(1)?;
        // Runs already when it joins, so that joining is a matter of the Service only.
        shop.add_server()?;
        Ok(Self { load, agent: None, alive: (0..SERVERS_AT_FIRST).collect(), shop })
    }

    /// Every server by name, and whether it takes part now.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&str, bool)> {
        self.shop
            .servers
            .iter()
            .enumerate()
            .map(|(position, pod)| (pod.name.as_str(), self.alive.contains(&position)))
    }

    pub(super) fn all_servers(&self) -> Expected {
        Expected::Even(self.servers().filter(|(_, alive)| *alive).map(|(name, _)| name.to_owned()).collect())
    }

    pub(super) fn enrol(&mut self) -> Result<()> {
        self.agent = Some(Agent::start(&self.shop.cluster)?);
        let namespace = self.shop.cluster.enrol_namespace(true);
        namespace.annotations.insert(ON_ENROL_ANNOTATION.to_owned(), "reconnect".to_owned());
        self.shop.cluster.publish()
    }

    pub(super) fn add_server(&mut self) -> Result<()> {
        self.alive.push(SERVERS_AT_FIRST);
        self.shop.publish_servers(&self.alive)
    }

    /// Kills the server; its endpoint goes a moment later, as the kubelet would have it.
    pub(super) fn kill_server(&mut self) -> Result<()> {
        self.shop.greeters[VICTIM].process.kill()?;
        self.alive.retain(|&position| position != VICTIM);
        self.shop.publish_servers(&self.alive)
    }

    pub(super) fn kill_worker_process(&mut self) -> Result<()> {
        self.running_agent()?.kill_worker_process()
    }

    pub(super) fn kill_agent(&mut self) -> Result<()> {
        self.running_agent()?.process.kill()
    }

    fn running_agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("the agent was started in an earlier phase")
    }

    pub(super) fn print_agents_last_words(&self) {
        const LINES: usize = 30;
        let said = self.agent.as_ref().map(|agent| agent.process.stderr()).unwrap_or_default();
        for line in said.iter().skip(said.len().saturating_sub(LINES)) {
            eprintln!("[agent] {line}");
        }
    }
}
