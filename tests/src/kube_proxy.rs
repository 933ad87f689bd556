//! What kube-proxy does without Evenkeel: each *connection* to a ClusterIP goes to one endpoint, chosen at random, by DNAT.
//!
//! The rules have the shape of kube-proxy's nftables mode: numgen over the endpoints, and a refusal where there are none.

use crate::manifests::{Endpoint, Service, ServicePort};
use std::fmt::Write;

/// The rules for these Services, replacing all earlier ones in one transaction.
pub fn rules(services: impl Iterator<Item = Service>) -> String {
    let mut family = [Family::new("ip"), Family::new("ip6")];
    for service in services {
        for port in &service.ports {
            family[0].add(&service.ipv4.to_string(), port, &service.endpoints, &|e| e.ipv4.to_string());
            family[1].add(&service.ipv6.to_string(), port, &service.endpoints, &|e| e.ipv6.to_string());
        }
    }
    family.iter().map(Family::table).collect()
}

struct Family {
    name: &'static str,
    translate: String,
    refuse: String,
}

impl Family {
    fn new(name: &'static str) -> Self {
        Self { name, translate: String::new(), refuse: String::new() }
    }

    fn add(
        &mut self,
        cluster_ip: &str,
        port: &ServicePort,
        endpoints: &[Endpoint],
        address: &dyn Fn(&Endpoint) -> String,
    ) {
        let protocol = port.protocol.to_lowercase();
        let destination = format!("{} daddr {cluster_ip} {protocol} dport {}", self.name, port.port);
        let ready: Vec<String> = endpoints.iter().filter(|e| e.ready).map(address).collect();
        if ready.is_empty() {
            let _ = writeln!(self.refuse, "{destination} reject");
            return;
        }
        let choices: Vec<String> = ready
            .iter()
            .enumerate()
            .map(|(number, address)| format!("{number} : {address} . {}", port.target_port))
            .collect();
        let _ = writeln!(
            self.translate,
            "{destination} dnat to numgen random mod {} map {{ {} }}",
            choices.len(),
            choices.join(", ")
        );
    }

    fn table(&self) -> String {
        let Self { name, translate, refuse } = self;
        // Made, then deleted, then made: the delete does not fail where there was none.
        format!(
            "table {name} kube-proxy\ndelete table {name} kube-proxy\ntable {name} kube-proxy {{\n\
             chain no-endpoints {{\ntype filter hook prerouting priority -150;\n{refuse}}}\n\
             chain services {{\ntype nat hook prerouting priority -100;\n{translate}}}\n\
             chain services-of-the-node {{\ntype nat hook output priority -100;\n{translate}}}\n}}\n"
        )
    }
}
