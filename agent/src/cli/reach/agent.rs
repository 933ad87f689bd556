//! One agent: where it is, and the connection to it for as long as it holds.

use super::Answers;
use super::address::Address;
use super::cluster::{AgentPod, Refusal};
use super::wire::{Ask, AskError, Connection, Lines};
use bytes::Bytes;
use kube::Client;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How long the node's words on a connection that has ended may follow its end: they come by the same way.
const REFUSAL_WITHIN: Duration = Duration::from_millis(500);

/// One agent.
pub(in crate::cli) struct Agent {
    /// The node that it is on, or what is known instead: its address.
    pub(in crate::cli) node: String,
    way: Way,
    connection: Option<Connection>,
}

/// How an agent is reached.
enum Way {
    Address(Address),
    /// Through the API server.
    Forwarded(Client, AgentPod),
}

impl Agent {
    pub(in crate::cli) fn at(address: Address) -> Self {
        Self { node: address.to_string(), way: Way::Address(address), connection: None }
    }

    pub(super) fn forwarded(client: Client, pod: AgentPod) -> Self {
        Self { node: pod.node.clone(), way: Way::Forwarded(client, pod), connection: None }
    }

    /// Asks one thing after the other, over the connection of the last time, if that holds.
    pub(in crate::cli) async fn ask(&mut self, asks: &[Ask]) -> Result<Answers, AskError> {
        if let Some(connection) = &mut self.connection {
            let mut answers = Vec::with_capacity(asks.len());
            if ask_over(connection, asks, &mut answers).await.is_ok() {
                return Ok(answers);
            }
        }
        self.hang_up();
        let mut answers = Vec::with_capacity(asks.len());
        loop {
            let (mut connection, refusal) = self.way.open().await?;
            let answered = answers.len();
            match ask_over(&mut connection, &asks[answered..], &mut answers).await {
                Ok(()) => {
                    self.connection = Some(connection);
                    return Ok(answers);
                }
                // Who ends a connection behind each answer is asked the rest over others.
                Err(_) if answers.len() > answered => {}
                Err(AskError::Unreachable(cause)) => return Err(explained(cause, refusal).await),
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for an answer that goes on and on, over a connection of its own.
    pub(in crate::cli) async fn follow(&self, ask: &Ask) -> Result<Lines, AskError> {
        let (connection, refusal) = self.way.open().await?;
        match connection.follow(ask).await {
            Err(AskError::Unreachable(cause)) => Err(explained(cause, refusal).await),
            other => other,
        }
    }

    /// Asks for an answer that is no JSON, over a connection of its own.
    pub(in crate::cli) async fn fetch(&self, ask: &Ask) -> Result<Bytes, AskError> {
        let (mut connection, refusal) = self.way.open().await?;
        match connection.fetch(ask).await {
            Ok(answer) => answer,
            Err(AskError::Unreachable(cause)) => Err(explained(cause, refusal).await),
            Err(error) => Err(error),
        }
    }

    /// Ends the connection, if there is one: what is asked next opens another.
    pub(super) fn hang_up(&mut self) {
        self.connection = None;
    }
}

/// Why nobody answers: what the node says of it, where it says anything, else what was seen here.
async fn explained(cause: String, refusal: Option<Refusal>) -> AskError {
    let told = match refusal {
        Some(refusal) => timeout(REFUSAL_WITHIN, refusal).await.ok().flatten(),
        None => None,
    };
    AskError::Unreachable(told.unwrap_or(cause))
}

async fn ask_over(connection: &mut Connection, asks: &[Ask], answers: &mut Answers) -> Result<(), AskError> {
    for ask in asks {
        answers.push(connection.ask(ask).await?);
    }
    Ok(())
}

impl Way {
    async fn open(&self) -> Result<(Connection, Option<Refusal>), AskError> {
        let unreachable = |error: std::io::Error| AskError::Unreachable(error.to_string());
        Ok(match self {
            Self::Address(Address::Tcp(address)) => {
                (Connection::over(TcpStream::connect(address).await.map_err(unreachable)?).await?, None)
            }
            Self::Address(Address::Unix(path)) => {
                (Connection::over(UnixStream::connect(path).await.map_err(unreachable)?).await?, None)
            }
            Self::Forwarded(client, pod) => {
                let (stream, refusal) = pod.connect(client).await?;
                (Connection::over(stream).await?, Some(refusal))
            }
        })
    }
}
