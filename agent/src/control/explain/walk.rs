//! From the pod to the backend: who calls, what is dialled, whose that is, and whether it is taken.

use super::super::enrolment;
use super::super::services::{Port, Service};
use super::super::world::World;
use super::name::{Meaning, meaning};
use super::question::{Host, Question};
use super::{Explanation, Live, Outcome, Standing, Step, kernel};
use crate::mesh::{Backend, Destination, ObjectName, ServicePort};
use crate::routing;
use crate::sources::rows::{PodRow, ServiceKind, ServiceRow, Transport};
use evenkeel_common::Reason;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Further addresses that are named beside the one that is explained.
const MOST_OTHER_ADDRESSES: usize = 8;

impl World {
    /// The pod of this name, as far as this node knows it.
    pub fn pod(&self, name: &ObjectName) -> Option<&PodRow> {
        self.pods.find(name).map(Arc::as_ref)
    }

    /// Says what would become of a connection and a call, and why.
    pub fn explain(&self, question: &Question, live: &Live, now_ns: u64) -> Explanation {
        let mut told = Explanation::new(question);
        let pod = self.explain_pod(question, live, &mut told);
        let is_enrolled = told.outcome == Outcome::Balanced;
        let Some(address) = self.explain_name(question, &mut told) else { return told };
        told.address = Some(address);
        let Some((port, service)) = self.explain_owner(address, &mut told) else {
            self.explain_kernel(live, is_enrolled, address, &mut told);
            return told;
        };
        told.service_port = Some(port.key.to_string());
        told.port = Some(port.key.clone());
        self.explain_capture(port, address, &mut told);
        self.explain_kernel(live, is_enrolled, address, &mut told);
        told.step(
            "What does the agent do with the connection?",
            "looks at its first bytes",
            vec![format!(
                "HTTP/2 is balanced, call by call; anything else (TLS, HTTP/1.1, silence) is relayed to {address}, untouched"
            )],
        );
        let Some(backend) = explain_route(question, port, address, &mut told) else { return told };
        told.balancing = backend.balancing.clone();
        let count = self.explain_endpoints(
            question,
            pod,
            service,
            (port, address),
            &backend,
            live,
            now_ns,
            &mut told,
        );
        if told.outcome == Outcome::Balanced {
            told.summary = match told.endpoint {
                Some(endpoint) => format!("The connection is taken; this call goes to {endpoint}."),
                None => format!("The connection is taken; each call goes to one of {count} endpoints."),
            };
        }
        told
    }

    fn explain_pod<'a>(
        &'a self,
        question: &Question,
        live: &Live,
        told: &mut Explanation,
    ) -> Option<&'a PodRow> {
        const ASKED: &str = "Is the pod enrolled?";
        let Some(pod) = self.pod(&question.pod) else {
            let node = self.here().node.map_or_else(|| "this node".to_owned(), |node| format!("node {node}"));
            told.step(
                ASKED,
                "not known",
                vec![format!("{node} has no pod {}: ask the agent of the pod's own node", question.pod)],
            );
            told.straight(None, format!("{node} has no pod {}", question.pod));
            return None;
        };
        let namespace = self.namespaces.get(&pod.name.namespace).map(Arc::as_ref);
        match enrolment::decide(pod, namespace, self.here()) {
            Err(reason) => {
                told.step(ASKED, "no", vec![reason.to_string()]);
                told.straight(None, format!("the pod is not enrolled ({reason})"));
            }
            Ok(()) => match &live.pod {
                Standing::Enrolled(facts) => {
                    told.step(ASKED, format!("yes, for {}", duration(facts.seconds)), Vec::new());
                }
                Standing::Waiting { reason, seconds } => {
                    told.step(
                        ASKED,
                        format!("not yet: it waits for {}", duration(*seconds)),
                        vec![reason.clone()],
                    );
                    told.straight(None, format!("the pod is not enrolled yet ({reason})"));
                }
                Standing::Unknown => {
                    told.step(ASKED, "not yet", vec!["it is about to be looked for".to_owned()]);
                    told.straight(None, "the pod is not enrolled yet");
                }
            },
        }
        Some(pod)
    }

    /// The address that the app would dial.
    fn explain_name(&self, question: &Question, told: &mut Explanation) -> Option<SocketAddr> {
        let port = question.to.port;
        let host = &question.to.host;
        let found = meaning(self, &question.pod.namespace, host);
        if let (Host::Address(ip), Meaning::Address(_)) = (host, &found) {
            return Some(SocketAddr::new(*ip, port));
        }
        let asked = format!("What does {host} stand for?");
        let (answer, detail, why) = match found {
            Meaning::Address(_) => return None,
            Meaning::Service(service, addresses) => {
                let address = self.address_to_explain(&addresses, port);
                let others: Vec<String> = addresses
                    .iter()
                    .filter(|ip| **ip != address.ip())
                    .take(MOST_OTHER_ADDRESSES)
                    .map(ToString::to_string)
                    .collect();
                let mut detail = vec![format!("by what is known of the cluster, and not by asking DNS: {}", address.ip())];
                if host.names_a_domain() {
                    detail.push("taken for a name of this cluster, whose domain is not known here".to_owned());
                }
                if !others.is_empty() {
                    detail.push(format!("it also has {}: explained with --to ADDRESS:PORT", others.join(", ")));
                }
                told.step(asked, format!("the Service {service}"), detail);
                return Some(address);
            }
            Meaning::NoAddress(service) => (
                format!("the Service {service}, without an address"),
                "DNS has no address of it: it is headless and has no ready endpoint, or none was given to it yet".to_owned(),
                None,
            ),
            Meaning::NoSuchService(service) => (
                "nothing".to_owned(),
                format!("there is no Service {service}"),
                None,
            ),
            Meaning::ExternalName(service) => (
                format!("the Service {service}, another DNS name (type ExternalName)"),
                "the app connects to wherever that leads; if it is the address of another Service, ask for that".to_owned(),
                Some(format!("the Service {service} is of type ExternalName")),
            ),
            Meaning::PodOf(service) => (
                format!("a pod of the headless Service {service}"),
                "which one is not known here: ask for its address".to_owned(),
                Some(format!("it is dialled to one pod of the Service {service}, by that pod's own name")),
            ),
            Meaning::Outside => (
                "no Service's name".to_owned(),
                "the app asks DNS; if that says an address of a Service, ask for that address".to_owned(),
                Some(format!("{host} is no Service's name")),
            ),
        };
        told.step(asked, answer, vec![detail]);
        match why {
            Some(why) => told.straight(None, why),
            None if told.outcome != Outcome::Straight => {
                told.outcome = Outcome::Unresolved;
                told.summary = format!("There is nothing to connect to: {host} has no address.");
            }
            None => {}
        }
        None
    }

    /// Of several addresses that a name stands for, the first that some Service port has, else the first.
    fn address_to_explain(&self, addresses: &[IpAddr], port: u16) -> SocketAddr {
        let owned = addresses.iter().find(|ip| self.claims.owner(SocketAddr::new(**ip, port)).is_some());
        let first = owned.or(addresses.first()).copied();
        SocketAddr::new(first.unwrap_or(IpAddr::from([0, 0, 0, 0])), port)
    }

    /// The Service port that has the address.
    fn explain_owner(
        &self,
        address: SocketAddr,
        told: &mut Explanation,
    ) -> Option<(&Port, (&Service, &ServiceRow))> {
        let asked = format!("Whose is {address}?");
        let owner = self.claims.owner(address);
        let found = owner.and_then(|owner| {
            let service = self.services.get(&owner.service)?;
            Some((service.port(owner.port)?, (service, service.row.as_deref()?)))
        });
        let Some((port, service)) = found else {
            let (answer, why) = self.whose_otherwise(address);
            told.step(asked, answer, vec![why.clone()]);
            told.straight(Some(Reason::UnknownDestination.name()), why);
            return None;
        };
        let rivals: Vec<String> = self.claims.rivals(address).map(ServicePort::to_string).collect();
        let detail = match rivals[..] {
            [] => Vec::new(),
            _ => vec![format!("{} claim it too, and come after it", rivals.join(", "))],
        };
        told.step(asked, format!("the Service port {}", port.key), detail);
        Some((port, service))
    }

    /// What an address is that no Service port has.
    fn whose_otherwise(&self, address: SocketAddr) -> (String, String) {
        let known = self.services.values().filter_map(|service| Some((service, service.row.as_deref()?)));
        let mut behind = None;
        for (service, row) in known {
            let of_load_balancer = row.load_balancer.iter().map(|address| address.ip);
            let mut ips = row.cluster_ips.iter().chain(&row.external_ips).copied().chain(of_load_balancer);
            if ips.any(|ip| ip == address.ip()) {
                let tcp = row.ports.iter().filter(|port| port.transport == Transport::Tcp);
                let ports: Vec<String> = tcp.map(|port| port.port.to_string()).collect();
                let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
                return (
                    format!("an address of the Service {}", row.name),
                    format!("{} has no TCP port {}; it has {ports}", row.name, address.port()),
                );
            }
            let endpoints = service.slices.values().flat_map(|slice| &slice.endpoints);
            if behind.is_none() && endpoints.into_iter().any(|endpoint| endpoint.address == address.ip()) {
                behind = Some(row);
            }
        }
        match behind {
            Some(row) if row.kind == ServiceKind::Headless && !row.balance_headless => (
                format!("a pod's, behind the headless Service {}", row.name),
                format!(
                    "the Service {} is headless (annotate it evenkeel.dev/headless: balance to have it balanced)",
                    row.name
                ),
            ),
            Some(row) => (
                format!("a pod's, behind the Service {}", row.name),
                "a pod that is dialled by its own address is reached at it".to_owned(),
            ),
            None => ("no Service's".to_owned(), "it is the address of no Service that is known".to_owned()),
        }
    }

    /// Whether connections to the address are taken, as far as the Service, the cluster and the node's room for it say.
    fn explain_capture(&self, port: &Port, address: SocketAddr, told: &mut Explanation) {
        const ASKED: &str = "Are connections to it taken?";
        let refused = match (&port.wanted, port.frontend(address)) {
            (Err(reason), _) => Some(reason.to_string()),
            (Ok(()), Some(frontend)) if !self.is_captured_for(address, &port.key.service, port.key.port) => {
                self.straight_because(port, frontend).map(|reason| reason.to_string())
            }
            (Ok(()), _) => None,
        };
        match refused {
            Some(reason) => {
                told.step(ASKED, "no", vec![reason.clone()]);
                let counted = match self.capture.in_kernel(address) {
                    Some(_) => Reason::NoEndpoint,
                    None => Reason::UnknownDestination,
                };
                told.straight(Some(counted.name()), reason);
            }
            None => {
                let detail = vec!["a gRPC port of a Service with an endpoint to serve it".to_owned()];
                told.step(ASKED, "yes", detail);
            }
        }
    }

    /// What the programs would say, which are asked of each connection of an enrolled pod, wherever it goes.
    fn explain_kernel(&self, live: &Live, is_enrolled: bool, address: SocketAddr, told: &mut Explanation) {
        let checks = kernel::checks(live, address, self.capture.in_kernel(address));
        let straight = checks.iter().find(|check| check.straight);
        let answer = match straight {
            None if is_enrolled => "takes the connection".to_owned(),
            None => "takes the connection, if the pod is enrolled".to_owned(),
            Some(check) => format!("lets it go straight, counted as {}", check.reason.name()),
        };
        let line = |check: &kernel::Check| {
            let mark = if check.straight { "→ " } else { "" };
            format!("{mark}{}: {}", check.reason.name(), check.text)
        };
        // What comes after the first reason is not looked at any more.
        let looked_at = checks.iter().position(|check| check.straight).map_or(checks.len(), |at| at + 1);
        told.steps.push(Step {
            question: "What do the kernel programs say at connect()?".to_owned(),
            answer,
            detail: checks[..looked_at].iter().map(line).collect(),
            hypothetical: !is_enrolled,
        });
        if let Some(check) = straight {
            told.straight(Some(check.reason.name()), &check.text);
        }
    }
}

/// The backend that the call goes to.
fn explain_route(
    question: &Question,
    port: &Port,
    address: SocketAddr,
    told: &mut Explanation,
) -> Option<Arc<Backend>> {
    const ASKED: &str = "Which backend does the call go to?";
    let Some(backend) = port.backend_for(address) else {
        told.step(ASKED, "none", vec!["no endpoint may serve a call".to_owned()]);
        return None;
    };
    let destination = Destination { original: address, backend: backend.clone() };
    match routing::route(Some(&destination), &question.request) {
        Ok(backend) => {
            told.step(ASKED, backend.service_port.to_string(), Vec::new());
            Some(backend.clone())
        }
        Err(_) => {
            told.step(ASKED, "none: no route matches it", Vec::new());
            None
        }
    }
}

/// A time as people say it.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
