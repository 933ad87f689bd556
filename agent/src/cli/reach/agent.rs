//! One agent: where it is, and the connection to it for as long as it holds.

use super::Answers;
use super::address::Address;
use super::cluster::AgentPod;
use super::wire::{Ask, AskError, Connection, Lines};
use kube::Client;
use tokio::net::{TcpStream, UnixStream};

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
    pub(super) fn at(address: Address) -> Self {
        Self { node: address.to_string(), way: Way::Address(address), connection: None }
    }

    pub(super) fn forwarded(client: Client, pod: AgentPod) -> Self {
        Self { node: pod.node.clone(), way: Way::Forwarded(client, pod), connection: None }
    }

    /// Asks one thing after the other, over the connection of the last time, if that holds.
    pub(in crate::cli) async fn ask(&mut self, asks: &[Ask]) -> Result<Answers, AskError> {
        if let Some(connection) = &mut self.connection
            && let Ok(answers) = ask_over(connection, asks).await
        {
            return Ok(answers);
        }
        self.hang_up();
        let mut connection = self.way.open().await?;
        let answers = ask_over(&mut connection, asks).await?;
        self.connection = Some(connection);
        Ok(answers)
    }

    /// Asks for an answer that goes on and on, over a connection of its own.
    pub(in crate::cli) async fn follow(&self, ask: &Ask) -> Result<Lines, AskError> {
        self.way.open().await?.follow(ask).await
    }

    /// Ends the connection, if there is one: what is asked next opens another.
    pub(super) fn hang_up(&mut self) {
        self.connection = None;
    }
}

async fn ask_over(connection: &mut Connection, asks: &[Ask]) -> Result<Answers, AskError> {
    let mut answers = Vec::with_capacity(asks.len());
    for ask in asks {
        answers.push(connection.ask(ask).await?);
    }
    Ok(answers)
}

impl Way {
    async fn open(&self) -> Result<Connection, AskError> {
        let unreachable = |error: std::io::Error| AskError::Unreachable(error.to_string());
        match self {
            Self::Address(Address::Tcp(address)) => {
                Connection::over(TcpStream::connect(address).await.map_err(unreachable)?).await
            }
            Self::Address(Address::Unix(path)) => {
                Connection::over(UnixStream::connect(path).await.map_err(unreachable)?).await
            }
            Self::Forwarded(client, pod) => Connection::over(pod.connect(client).await?).await,
        }
    }
}
