//! How the commands reach agents. [`args`] is what a person says about it; [`place`] makes agents of that: an address, the one of this
//! node, or a cluster's ([`cluster`]), through the port-forward of its API. [`agent`] asks one, over the [`wire`]; [`ask_all`] asks all
//! of them beside each other.

mod address;
mod agent;
mod args;
mod cluster;
mod place;
mod wire;

pub(super) use agent::Agent;
pub(super) use args::ReachArgs;
pub(super) use place::{Agents, find};
pub(super) use wire::{Ask, AskError};

use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How many agents are asked at a time: each is a connection through the API server.
const AT_A_TIME: usize = 16;

/// What an agent said: to each question an answer, or that it has none.
pub(super) type Answers = Vec<Result<Value, AskError>>;

/// An agent that was asked.
pub(super) struct Asked {
    pub(super) agent: Agent,
    /// Its answers, or why there are none.
    pub(super) answers: Result<Answers, AskError>,
    /// When they had come.
    pub(super) at: Instant,
}

/// Asks every agent all of it, and gives the agents back, in their order.
pub(super) async fn ask_all(agents: Vec<Agent>, asks: &[Ask], limit: Duration) -> Vec<Asked> {
    let at_a_time = Arc::new(Semaphore::new(AT_A_TIME));
    let mut asking = JoinSet::new();
    for (position, mut agent) in agents.into_iter().enumerate() {
        let (at_a_time, asks) = (Arc::clone(&at_a_time), asks.to_vec());
        asking.spawn(async move {
            // Never closed.
            let _permit = at_a_time.acquire_owned().await;
            let answers = timeout(limit, agent.ask(&asks)).await;
            let answers = answers.unwrap_or_else(|_| {
                agent.hang_up();
                Err(AskError::Silent(limit))
            });
            (position, Asked { agent, answers, at: Instant::now() })
        });
    }
    let mut answered = Vec::new();
    while let Some(done) = asking.join_next().await {
        // A panic is a mistake of ours, and is said by the panic itself.
        answered.extend(done.ok());
    }
    answered.sort_by_key(|(position, _)| *position);
    answered.into_iter().map(|(_, asked)| asked).collect()
}
