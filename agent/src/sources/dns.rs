//! Plain host names as a source of endpoints: `evenkeel proxy --to HOST:PORT,…`.
//!
//! Names are looked up as any program of the host looks them up (`getaddrinfo`), so that `/etc/hosts`, search domains and
//! whatever else the host is set up with count as everywhere. That tells no record's time to live; names are therefore
//! looked up again at a steady pace, and the host's own resolver keeps them for as long as they live.

use super::{Problem, Problems, Severity};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often a name is looked up. The time within which a change of records counts; what Envoy does by default.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);

/// How long the first look-ups are waited for; names that take longer come later. `getaddrinfo` waits 5 s for a name server
/// before it asks the next.
const FIRST_LOOK_UP_WAIT: Duration = Duration::from_secs(6);

/// The longest host name (RFC 1035, section 3.1), as text.
const MAX_HOST_BYTES: usize = 253;

/// What calls are to be sent to: `HOST:PORT`, `ADDRESS:PORT`, `[ADDRESS]:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("\"{}\" is no HOST:PORT: {what}", text.escape_debug());
        if text.contains("://") {
            return Err(wrong("leave out the scheme"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| wrong("the port is not a number from 1 to 65535"))?;
        let host = if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr =
                address.parse().map_err(|_| wrong("no IPv6 address is in the brackets"))?;
            Host::Address(address.into())
        } else if host.contains(':') {
            return Err(wrong("write an IPv6 address in brackets"));
        } else if let Ok(address) = host.parse() {
            Host::Address(address)
        } else if is_host_name(host) {
            Host::Name(host.to_owned())
        } else {
            return Err(wrong("that can't be the name of a host"));
        };
        Ok(Self { host, port })
    }
}

fn is_host_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text.len() <= MAX_HOST_BYTES && text.bytes().all(allowed)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Targets, whose names are looked up again and again.
#[derive(Debug)]
pub struct NameSource {
    literals: Vec<SocketAddr>,
    /// The last good answer for each name that ever had one.
    answers: HashMap<Target, Vec<SocketAddr>>,
    failures: HashMap<Target, String>,
    current: Vec<SocketAddr>,
    look_ups: mpsc::Receiver<(Target, Result<Vec<SocketAddr>, String>)>,
    problems: Problems,
    /// A task a name; they end with the source.
    tasks: JoinSet<()>,
}

impl NameSource {
    /// Looks all names up for the first time. A name without an answer is a problem, not an error. To be called within a
    /// tokio runtime.
    pub async fn open(targets: Vec<Target>) -> (Self, Vec<SocketAddr>) {
        Self::open_with(targets, LOOK_UP_EVERY, look_up).await
    }

    async fn open_with<F, A>(targets: Vec<Target>, every: Duration, look_up: F) -> (Self, Vec<SocketAddr>)
    where
        F: Fn(String, u16) -> A + Clone + Send + 'static,
        A: Future<Output = io::Result<Vec<SocketAddr>>> + Send,
    {
        let (sender, look_ups) = mpsc::channel(1);
        let mut literals = Vec::new();
        let mut tasks = JoinSet::new();
        let targets: HashSet<Target> = targets.into_iter().collect();
        for target in targets {
            match target.host.clone() {
                Host::Address(address) => literals.push(SocketAddr::new(address, target.port)),
                Host::Name(name) => {
                    let (sender, look_up) = (sender.clone(), look_up.clone());
                    tasks.spawn(async move {
                        loop {
                            let answer = look_up(name.clone(), target.port).await;
                            let answer = answer.map_err(|error| error.to_string()).and_then(of_one_family);
                            if sender.send((target.clone(), answer)).await.is_err() {
                                return;
                            }
                            tokio::time::sleep(every).await;
                        }
                    });
                }
            }
        }
        let mut source = Self {
            literals,
            answers: HashMap::new(),
            failures: HashMap::new(),
            current: Vec::new(),
            look_ups,
            problems: Problems::default(),
            tasks,
        };
        let names = source.tasks.len();
        let first_answers = async {
            while source.answers.len() + source.failures.len() < names {
                let Some((target, answer)) = source.look_ups.recv().await else { return };
                source.take(target, answer);
            }
        };
        // Too late is no error: `next` takes what comes.
        let _ = tokio::time::timeout(FIRST_LOOK_UP_WAIT, first_answers).await;
        source.current = source.addresses();
        let current = source.current.clone();
        (source, current)
    }

    /// Waits until the targets stand for other addresses, and returns all of them, sorted, each once. Cancel-safe.
    pub async fn next(&mut self) -> Vec<SocketAddr> {
        while let Some((target, answer)) = self.look_ups.recv().await {
            self.take(target, answer);
            let addresses = self.addresses();
            if addresses != self.current {
                self.current.clone_from(&addresses);
                return addresses;
            }
        }
        // There are no names, or the runtime is going.
        std::future::pending().await
    }

    /// The names that can't be looked up now.
    pub fn problems(&self) -> Problems {
        self.problems.clone()
    }

    fn take(&mut self, target: Target, answer: Result<Vec<SocketAddr>, String>) {
        match answer {
            Ok(addresses) => {
                self.failures.remove(&target);
                self.answers.insert(target, addresses);
            }
            Err(cause) => {
                self.failures.insert(target, cause);
            }
        }
        let problems = self.failures.iter().map(|(target, cause)| {
            let goes_on =
                if self.answers.contains_key(target) { "; its last good answer goes on" } else { "" };
            let cause = format!("can't look it up: {cause}{goes_on}");
            let object = Some(target.to_string());
            Problem { severity: Severity::Error, file: None, line: None, column: None, object, cause }
        });
        self.problems.replace(problems.collect());
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> =
            self.literals.iter().chain(self.answers.values().flatten()).copied().collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

async fn look_up(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, port)).await?.collect())
}

/// Of a name with addresses of both families, the IPv4 ones: the others are the same servers once more as a rule, and
/// which a server listens on, or a host has a route for, is surer of IPv4.
fn of_one_family(mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    if addresses.iter().any(SocketAddr::is_ipv4) {
        addresses.retain(SocketAddr::is_ipv4);
    }
    if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses) }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
