//! Who is asked, time and again: agents come and go meanwhile, as in a rollout.

use super::By;
use super::sample::{Sample, take};
use crate::cli::reach::{self, Agent, Agents, ReachArgs};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often agents are looked for where one does not answer: it is a question to the API server.
const FIND_EVERY: Duration = Duration::from_secs(10);

/// The agents, and how to find them again.
pub(super) struct Looker {
    args: ReachArgs,
    agents: Vec<Agent>,
    /// Nodes whose agent cannot even be asked, and why.
    missing: Vec<(String, String)>,
    /// Nodes whose agent did not answer.
    silent: BTreeSet<String>,
    /// They were found by their pods: others may have taken their places.
    are_pods: bool,
    found_at: Instant,
}

impl Looker {
    pub(super) fn new(args: ReachArgs, found: Agents) -> Self {
        let Agents { agents, missing, namespace } = found;
        let (silent, found_at) = (BTreeSet::new(), Instant::now());
        Self { args, agents, missing, silent, are_pods: namespace.is_some(), found_at }
    }

    /// Asks all agents what they have counted.
    pub(super) async fn look(mut self, by: By) -> (Self, Sample) {
        let lacks = !self.silent.is_empty() || !self.missing.is_empty();
        if self.are_pods && lacks && self.found_at.elapsed() >= FIND_EVERY {
            self.found_at = Instant::now();
            // Who cannot be found now is looked for the next time.
            if let Ok(Ok(found)) = timeout(self.args.limit(), reach::find(&self.args)).await {
                self.take_in(found);
            }
        }
        let (agents, mut sample) = take(std::mem::take(&mut self.agents), self.args.limit(), by).await;
        self.agents = agents;
        self.silent.clone_from(&sample.silent);
        sample.complaints.extend(self.missing.iter().map(|(node, why)| format!("{node}: {why}")));
        (self, sample)
    }

    /// Whoever answers stays, with the connection; of the others those count that are there now.
    fn take_in(&mut self, found: Agents) {
        let silent = std::mem::take(&mut self.silent);
        self.agents.retain(|agent| !silent.contains(&agent.node));
        let known: BTreeSet<String> = self.agents.iter().map(|agent| agent.node.clone()).collect();
        self.agents.extend(found.agents.into_iter().filter(|agent| !known.contains(&agent.node)));
        self.missing = found.missing;
        self.missing.retain(|(node, _)| !known.contains(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        reach: ReachArgs,
    }

    #[test]
    fn who_is_silent_gives_way_to_who_is_found_in_its_place() {
        let agents = |addresses: &[&str]| -> Vec<Agent> {
            addresses.iter().map(|address| Agent::at(address.parse().unwrap())).collect()
        };
        let found = |addresses: &[&str], missing: &[&str]| Agents {
            agents: agents(addresses),
            missing: missing.iter().map(|node| ((*node).to_owned(), "why".to_owned())).collect(),
            namespace: Some("default".to_owned()),
        };
        let args = Line::parse_from(["top"]).reach;
        let mut looker = Looker::new(args, found(&["a:1", "b:1", "c:1"], &["d:1"]));
        looker.silent = ["b:1", "c:1"].map(str::to_owned).into();
        looker.take_in(found(&["a:1", "b:1", "d:1"], &["a:1", "e:1"]));
        let nodes: Vec<&str> = looker.agents.iter().map(|agent| agent.node.as_str()).collect();
        assert_eq!(nodes, ["a:1", "b:1", "d:1"], "c has gone, d has come, a is as it was");
        assert_eq!(looker.missing, [("e:1".to_owned(), "why".to_owned())]);
    }
}
