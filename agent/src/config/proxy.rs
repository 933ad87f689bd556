//! `evenkeel proxy`.

use super::protection::parse_memory;
use super::{
    AccessLogArgs, AccessLogConfig, CircuitArgs, NamedListener, Source, TracesArgs, TracesConfig,
    workers_or_cores,
};
use crate::mesh::{Balancing, HashOn, Picker, Protection, ServicePort};
use crate::sources::Target;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// What `evenkeel proxy` takes: the data path without eBPF.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Where to listen, as 127.0.0.1:9000; with --source also which Service port is served there:
    /// ADDR=NAMESPACE/SERVICE:PORT. May be given more than once
    #[arg(
        long,
        env = "EVENKEEL_LISTEN",
        value_name = "ADDR[=NAMESPACE/SERVICE:PORT]",
        required = true,
        value_delimiter = ','
    )]
    listen: Vec<NamedListener>,
    /// The endpoints, addresses or names, which are resolved again as their records change
    #[arg(
        long,
        env = "EVENKEEL_TO",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        conflicts_with = "source"
    )]
    to: Vec<Target>,
    /// Where Services and endpoints are learnt from: folder:DIR
    #[arg(long, env = "EVENKEEL_SOURCE", value_name = "SOURCE", required_unless_present = "to")]
    source: Option<Source>,
    /// How an endpoint is chosen for a call; with --source a Service's own annotation says it
    #[arg(long, env = "EVENKEEL_PICKER", value_name = "PICKER", value_parser = picker(), default_value = "ewma")]
    picker: Picker,
    /// What the pickers ring-hash and maglev go by: source, which is the client's connection here, or header:NAME
    #[arg(
        long,
        env = "EVENKEEL_HASH_ON",
        value_name = "source|header:NAME",
        default_value = "source",
        conflicts_with = "source"
    )]
    hash_on: HashOn,
    /// Worker threads; by default one a core
    #[arg(long, env = "EVENKEEL_WORKERS", value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// What connections and calls may hold in memory, as 1Gi; beyond it calls are answered RESOURCE_EXHAUSTED
    #[arg(long, env = "EVENKEEL_MEMORY", value_name = "BYTES", default_value = "1Gi", value_parser = parse_memory)]
    memory: u64,
    #[command(flatten)]
    circuit: CircuitArgs,
    #[command(flatten)]
    access_log: AccessLogArgs,
    #[command(flatten)]
    traces: TracesArgs,
    /// How long calls may go on after SIGTERM, in seconds
    #[arg(long, env = "EVENKEEL_DRAIN_SECONDS", value_name = "N", default_value = "20")]
    drain_seconds: u32,
}

fn picker() -> impl TypedValueParser<Value = Picker> {
    let of_name = |name: String| Picker::NAMED.into_iter().find(|(known, _)| *known == name);
    PossibleValuesParser::new(Picker::NAMED.map(|(name, _)| name))
        .map(move |name| of_name(name).map_or_else(Picker::default, |(_, picker)| picker))
}

/// A checked [`ProxyArgs`].
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where calls go.
    pub upstreams: Upstreams,
    /// Worker threads.
    pub workers: usize,
    /// What the call path holds its clients to.
    pub protection: Protection,
    /// The access log; `None`: there is none.
    pub access_log: Option<AccessLogConfig>,
    /// Traces; `None`: calls' contexts are not looked at.
    pub traces: Option<TracesConfig>,
    /// From SIGTERM to the end of the last call.
    pub drain: Duration,
}

/// Where the proxy's calls go.
#[derive(Clone, Debug)]
pub enum Upstreams {
    /// Every listener's to the same hosts.
    Hosts {
        /// The listeners.
        listen: Vec<SocketAddr>,
        /// The hosts.
        to: Vec<Target>,
        /// How one is chosen.
        balancing: Balancing,
    },
    /// Each listener's to a Service port.
    Services {
        /// The folder that the Services are learnt from.
        folder: PathBuf,
        /// The listeners, each with its Service port.
        listen: Vec<(SocketAddr, ServicePort)>,
    },
}

impl ProxyArgs {
    /// Checks what one flag alone cannot say.
    ///
    /// # Errors
    /// A listener that names a Service without `--source`, or none with it; a source that is no folder; something to hash for a picker
    /// that hashes nothing; an access log that makes no sense; traces that nobody takes.
    pub fn check(self) -> Result<ProxyConfig, String> {
        if self.hash_on != HashOn::default() && !self.picker.has_table() {
            return Err(format!(
                "--hash-on {}: the picker {} does not hash: --picker ring-hash or --picker maglev",
                self.hash_on,
                self.picker.name()
            ));
        }
        let balancing = Balancing { picker: self.picker, hash_on: self.hash_on, ..Balancing::default() };
        let upstreams = match self.source {
            None => {
                if let Some(NamedListener { address, .. }) =
                    self.listen.iter().find(|l| l.service_port.is_some())
                {
                    return Err(format!("--listen {address}=…: a Service can only be served with --source"));
                }
                let listen = self.listen.iter().map(|listener| listener.address).collect();
                Upstreams::Hosts { listen, to: self.to, balancing }
            }
            Some(Source::Kubernetes) => {
                return Err(
                    "--source kubernetes: the proxy without eBPF reads a folder alone: --source folder:DIR"
                        .into(),
                );
            }
            Some(Source::Folder(folder)) => {
                let listen = self.listen.into_iter().map(|NamedListener { address, service_port }| {
                    let missing =
                        || format!("--listen {address}: say which Service: {address}=NAMESPACE/SERVICE:PORT");
                    Ok((address, service_port.ok_or_else(missing)?))
                });
                Upstreams::Services { folder, listen: listen.collect::<Result<_, String>>()? }
            }
        };
        Ok(ProxyConfig {
            upstreams,
            workers: workers_or_cores(self.workers),
            access_log: self.access_log.check()?,
            traces: self.traces.check(|name| std::env::var(name).ok())?,
            protection: Protection {
                own_memory: self.memory,
                circuit: self.circuit.limits(),
                ..Protection::default()
            },
            drain: Duration::from_secs(self.drain_seconds.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        proxy: ProxyArgs,
    }

    #[test]
    fn what_to_hash_is_for_pickers_that_hash() {
        let check = |further: &[&str]| {
            let line = ["evenkeel", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"];
            Line::try_parse_from(line.iter().chain(further)).unwrap().proxy.check()
        };
        let by_user = ["--hash-on", "header:user"];
        let refusal = check(&by_user).unwrap_err();
        assert!(refusal.contains("--hash-on header:user") && refusal.contains("ewma"), "{refusal}");
        assert!(check(&[by_user[0], by_user[1], "--picker", "maglev"]).is_ok());
        assert!(check(&["--hash-on", "source"]).is_ok() && check(&[]).is_ok());
    }
}
