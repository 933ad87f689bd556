//! Plain host names as a source of endpoints: `evenkeel proxy --to HOST:PORT,…`.
use super::Problems;
use std::net::SocketAddr;

/// What a person asks calls to be sent to: `HOST:PORT`, `ADDRESS:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {}

impl std::str::FromStr for Target {
    type Err = String;
    fn from_str(_: &str) -> Result<Self, String> {
        todo!()
    }
}

/// Targets, whose names are looked up again and again.
#[derive(Debug)]
pub struct NameSource {}

impl NameSource {
    /// Looks all names up for the first time. A name without an answer is a problem, not an error.
    pub async fn open(targets: Vec<Target>) -> (Self, Vec<SocketAddr>) {
        let _ = targets;
        todo!()
    }

    /// Waits until the names stand for other addresses, and returns all of them, sorted, each once. Cancel-safe.
    pub async fn next(&mut self) -> Vec<SocketAddr> {
        todo!()
    }

    /// The names that can't be looked up now.
    pub fn problems(&self) -> Problems {
        todo!()
    }
}
